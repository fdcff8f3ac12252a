/* lib/base/number.c */
#include "base/number.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void digits_are_a_number_up_to_the_most(void **state)
{
	static const struct {
		const char *text;
		uint64_t most, want;
		const char *behind; /* NULL: refused */
	} cases[] = {
		{ "0", 0, 0, "" }, { "007-", UINT64_MAX, 7, "-" }, { "12k", 12, 12, "k" }, { "13k", 12, 99, NULL },
		{ "18446744073709551615", UINT64_MAX, UINT64_MAX, "" }, { "18446744073709551616", UINT64_MAX, 99, NULL },
		{ "99999999999999999999999", UINT64_MAX, 99, NULL }, { "4294967296", UINT32_MAX, 99, NULL }, { "5", 3, 99, NULL },
		{ "00000000000000000000000000000001.log", UINT64_MAX, 1, ".log" },
		{ "", 9, 99, NULL }, { "-1", 9, 99, NULL }, { "+1", 9, 99, NULL }, { " 1", 9, 99, NULL }, { "x1", 9, 99, NULL },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t n = 99;
		const char *behind = im_digits(cases[i].text, cases[i].most, &n);

		assert_true(n == cases[i].want);
		assert_int_equal(behind != NULL, cases[i].behind != NULL);
		if (behind)
			assert_string_equal(behind, cases[i].behind);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(digits_are_a_number_up_to_the_most),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
