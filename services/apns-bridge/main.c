/* im-apns-bridge: Apple's push service. All rules are in apns.c and below it; what every bridge does is in lib/push. */
#include "apns.h"

int main(int argc, char **argv)
{
	return push_bridge_main(&apns_driver, argc, argv);
}
