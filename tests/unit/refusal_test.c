/* lib/wire/refusal.c: every code has its texts and its section in docs/errors.md. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "wire/name.h"
#include "wire/refusal.h"
#include <stdio.h>
#include <string.h>

static void every_code_has_a_name_a_reason_and_a_fix(void **state)
{
	struct im_refusal r;

	(void)state;
	for (int i = IM_REFUSE_NONE + 1; i < IM_REFUSE_COUNT; i++) {
		const char *name = im_refusal_name((enum im_refusal_code)i);

		assert_non_null(name);
		assert_int_equal(im_refusal_find(name), i);
		im_refuse(&r, (enum im_refusal_code)i, NULL);
		assert_int_equal(r.code, i);
		assert_in_range(strlen(r.reason), 10, sizeof(r.reason) - 2);
		assert_in_range(strlen(r.fix), 10, sizeof(r.fix) - 2); /* not cut */
		assert_int_equal(r.reason[strlen(r.reason) - 1], '.');
		assert_int_equal(r.fix[strlen(r.fix) - 1], '.');
	}
	assert_int_equal(im_refusal_find("no_such_code"), IM_REFUSE_NONE);
}

static void every_code_has_its_section_in_the_docs(void **state)
{
	static char found[IM_REFUSE_COUNT];
	char line[512];
	FILE *f = fopen(IM_SOURCE_DIR "/docs/errors.md", "r");

	(void)state;
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		if (strncmp(line, "## ", 3) != 0)
			continue;
		line[strcspn(line, "\n")] = '\0';
		if (im_refusal_find(line + 3) == IM_REFUSE_NONE)
			fail_msg("docs/errors.md tells about \"%s\", which is no code", line + 3);
		found[im_refusal_find(line + 3)] = 1;
	}
	(void)fclose(f); /* only read */
	for (int i = IM_REFUSE_NONE + 1; i < IM_REFUSE_COUNT; i++)
		if (!found[i])
			fail_msg("docs/errors.md has no section \"## %s\"", im_refusal_name((enum im_refusal_code)i));
}

static void reasons_stay_printable_whatever_they_quote(void **state)
{
	struct im_refusal r;
	char hostile[300];

	(void)state;
	im_refuse(&r, IM_REFUSE_BAD_FIELD, "field %s", "a\nb\x7f\xff");
	assert_string_equal(r.reason, "field a?b??");
	for (size_t shift = 0; shift < 3; shift++) { /* the cut falls on each byte of a character once */
		memset(hostile, 'x', shift);
		for (size_t i = shift; i + 3 < sizeof(hostile); i += 3)
			memcpy(hostile + i, "\xe4\xbd\xa0", 4);
		im_refuse(&r, IM_REFUSE_BAD_FIELD, "%s", hostile);
		assert_true(im_utf8_valid(r.reason, strlen(r.reason)));
		assert_int_equal(strlen(r.reason), sizeof(r.reason) - 1);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_code_has_a_name_a_reason_and_a_fix),
		cmocka_unit_test(every_code_has_its_section_in_the_docs),
		cmocka_unit_test(reasons_stay_printable_whatever_they_quote),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
