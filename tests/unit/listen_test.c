/* lib/base/listen.c */
#include "base/listen.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void an_address_and_a_port_and_nothing_else(void **state)
{
	static const struct {
		const char *text;
		int family; /* 0: refused */
		unsigned port;
		bool local;
	} cases[] = {
		{ "127.0.0.1:8080", AF_INET, 8080, true }, { "127.9.9.9:1", AF_INET, 1, true }, { "0.0.0.0:65535", AF_INET, 65535, false },
		{ "192.0.2.1:80", AF_INET, 80, false }, { "[::1]:443", AF_INET6, 443, true }, { "[::]:443", AF_INET6, 443, false },
		{ "[2001:db8::1]:443", AF_INET6, 443, false }, { "[::ffff:127.0.0.1]:443", AF_INET6, 443, false },
		{ "", 0, 0, false }, { ":80", 0, 0, false }, { "127.0.0.1", 0, 0, false }, { "127.0.0.1:", 0, 0, false }, { "127.0.0.1:0", 0, 0, false },
		{ "127.0.0.1:65536", 0, 0, false }, { "127.0.0.1:80x", 0, 0, false }, { "127.0.0.1:-1", 0, 0, false }, { "localhost:80", 0, 0, false },
		{ "::1:80", 0, 0, false }, { "[]:80", 0, 0, false }, { "[::1:80", 0, 0, false }, { "[127.0.0.1]:80", 0, 0, false }, { "127.1:80", 0, 0, false },
		{ "[0000:0000:0000:0000:0000:0000:0000:0000:0000:0000]:80", 0, 0, false },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct sockaddr_storage a;
		bool good = im_listen_parse(cases[i].text, &a);

		assert_true(good == (cases[i].family != 0));
		if (!good)
			continue;
		assert_int_equal(a.ss_family, cases[i].family);
		assert_int_equal(ntohs(a.ss_family == AF_INET ? ((struct sockaddr_in *)&a)->sin_port : ((struct sockaddr_in6 *)&a)->sin6_port), cases[i].port);
		assert_true(im_listen_is_local(&a) == cases[i].local);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(an_address_and_a_port_and_nothing_else) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
