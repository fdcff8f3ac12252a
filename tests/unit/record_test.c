/* lib/base/record.c: a record is there as a whole, at its place, or not at all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/record.h"
#include <string.h>

enum { BODY = 100, PLACE = 4096 };

struct fixture {
	uint8_t file[IM_RECORD_HEADER + BODY + 16];
};

static void write_one(struct fixture *f)
{
	memset(f->file, 0, sizeof(f->file));
	for (int i = 0; i < BODY; i++)
		f->file[IM_RECORD_HEADER + i] = (uint8_t)(i * 7 + 1);
	im_record_header(5, PLACE, f->file + IM_RECORD_HEADER, BODY, f->file);
}

static enum im_record_verdict verdict(const struct fixture *f, uint64_t epoch, uint64_t offset, size_t len)
{
	const uint8_t *body;
	size_t body_len;

	return im_record_read(epoch, offset, f->file, len, &body, &body_len);
}

static void written_record_is_read_back(void **state)
{
	struct fixture f;
	const uint8_t *body;
	size_t len;

	(void)state;
	write_one(&f);
	assert_int_equal(im_record_read(5, PLACE, f.file, sizeof(f.file), &body, &len), IM_RECORD_VALID);
	assert_int_equal(len, BODY);
	assert_ptr_equal(body, f.file + IM_RECORD_HEADER);
	assert_int_equal(im_record_size(len), IM_RECORD_HEADER + BODY);
}

static void zeros_are_the_end(void **state)
{
	struct fixture f;

	(void)state;
	memset(&f, 0, sizeof(f));
	assert_int_equal(verdict(&f, 5, PLACE, sizeof(f.file)), IM_RECORD_END);
	assert_int_equal(verdict(&f, 5, PLACE, 3), IM_RECORD_END);
}

static void every_shorter_piece_is_torn(void **state)
{
	struct fixture f;

	(void)state;
	write_one(&f);
	for (size_t len = IM_RECORD_HEADER; len < IM_RECORD_HEADER + BODY; len++)
		assert_int_equal(verdict(&f, 5, PLACE, len), IM_RECORD_TORN);
}

static void every_flipped_bit_is_seen(void **state)
{
	struct fixture f;

	(void)state;
	for (size_t bit = 0; bit < 8 * (IM_RECORD_HEADER + BODY); bit++) {
		write_one(&f);
		f.file[bit / 8] ^= (uint8_t)(1u << (bit % 8));
		assert_int_not_equal(verdict(&f, 5, PLACE, sizeof(f.file)), IM_RECORD_VALID);
	}
}

static void another_epoch_or_place_is_not_mistaken(void **state)
{
	struct fixture f;

	(void)state;
	write_one(&f);
	assert_int_equal(verdict(&f, 6, PLACE, sizeof(f.file)), IM_RECORD_TORN);
	assert_int_equal(verdict(&f, 5, PLACE + 8, sizeof(f.file)), IM_RECORD_TORN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(written_record_is_read_back),
		cmocka_unit_test(zeros_are_the_end),
		cmocka_unit_test(every_shorter_piece_is_torn),
		cmocka_unit_test(every_flipped_bit_is_seen),
		cmocka_unit_test(another_epoch_or_place_is_not_mistaken),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
