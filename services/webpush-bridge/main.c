/* im-webpush-bridge: browsers, over their push services (RFC 8030). */
#include "webpush.h"

int main(int argc, char **argv)
{
	return push_bridge_main(&webpush_driver, argc, argv);
}
