/* im-fcm-bridge: Android, over Firebase Cloud Messaging's HTTP v1 API. */
#include "fcm.h"

int main(int argc, char **argv)
{
	return push_bridge_main(&fcm_driver, argc, argv);
}
