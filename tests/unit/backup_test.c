/* lib/backup: what was written comes back, and nothing else passes for a backup. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "backup/backup.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct fixture {
	char dir[64], path[96];
	unsigned rows, parts;
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	strcpy(f->dir, "/tmp/im-backup-XXXXXX");
	if (!mkdtemp(f->dir))
		return -1;
	snprintf(f->path, sizeof(f->path), "%s/b", f->dir);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;
	char command[128];

	snprintf(command, sizeof(command), "rm -r %s", f->dir);
	free(f);
	return system(command);
}

static int entries(const struct fixture *f)
{
	DIR *d = opendir(f->dir);
	int n = -2; /* . and .. */

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static const char *const columns[] = { "number", "name", "data", "nothing" };

static void fill(struct backup_value v[4], unsigned n, const char *blob)
{
	static char name[16];

	snprintf(name, sizeof(name), "name %u", n);
	v[0] = (struct backup_value){ .type = BACKUP_INT, .integer = n % 2 ? -(int64_t)n : (int64_t)n << 40 };
	v[1] = (struct backup_value){ .type = BACKUP_TEXT, .data = name, .len = strlen(name) };
	v[2] = (struct backup_value){ .type = BACKUP_BLOB, .data = blob, .len = n % 7 };
	v[3] = (struct backup_value){ .type = BACKUP_NULL };
}

static struct backup_writer *begin(struct fixture *f, bool replace)
{
	struct backup_writer *w;
	struct im_err err = { "" };

	if (backup_create(f->path, replace, 0, &w, &err) != IM_OK)
		fail_msg("%s", err.text);
	assert_int_equal(backup_header(w, "created_ms=7\nnode=1\n", &err), IM_OK);
	return w;
}

static void write_parts(struct backup_writer *w, unsigned rows)
{
	struct backup_value v[4];
	struct im_err err;

	for (int part = 0; part < 2; part++) {
		assert_int_equal(backup_part(w, part ? "second" : "first", columns, 4, &err), IM_OK);
		for (unsigned n = 0; n < rows; n++) {
			fill(v, n, "blobblob");
			assert_int_equal(backup_row(w, v, &err), IM_OK);
		}
		assert_int_equal(backup_part_end(w, &err), IM_OK);
	}
}

static void make(struct fixture *f, unsigned rows, bool replace)
{
	struct backup_writer *w = begin(f, replace);
	struct im_err err;

	write_parts(w, rows);
	assert_int_equal(backup_commit(w, &err), IM_OK);
}

static enum im_status on_part(void *arg, const char *name, const char *const *names, size_t n, struct im_err *err)
{
	struct fixture *f = arg;

	(void)err;
	assert_string_equal(name, f->parts++ ? "second" : "first");
	assert_int_equal(n, 4);
	for (size_t i = 0; i < n; i++)
		assert_string_equal(names[i], columns[i]);
	f->rows = 0;
	return IM_OK;
}

static enum im_status on_row(void *arg, const struct backup_value *values, size_t n, struct im_err *err)
{
	struct fixture *f = arg;
	struct backup_value v[4];

	(void)err;
	fill(v, f->rows++, "blobblob");
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(values[i].type, v[i].type);
		assert_true(values[i].integer == v[i].integer);
		assert_int_equal(values[i].len, v[i].len);
		assert_memory_equal(values[i].len ? values[i].data : "", v[i].len ? v[i].data : "", v[i].len);
	}
	return IM_OK;
}

static enum im_status read_back(struct fixture *f, const struct backup_sink *sink, struct backup_summary *sum, struct im_err *err)
{
	int fd = open(f->path, O_RDONLY);
	enum im_status st = backup_read(fd, f->path, sink, f, sum, err);

	close(fd);
	return st;
}

static void what_was_written_comes_back(void **state)
{
	static const struct backup_sink sink = { .part = on_part, .row = on_row };
	static const unsigned sizes[] = { 0, 1, 20000 }; /* the last: over several records */
	struct fixture *f = *state;
	struct backup_summary sum;
	struct im_err err = { "" };
	struct stat sb;

	for (size_t i = 0; i < 3; i++) {
		make(f, sizes[i], i > 0);
		f->parts = 0;
		if (read_back(f, &sink, &sum, &err) != IM_OK)
			fail_msg("%s", err.text);
		assert_int_equal(stat(f->path, &sb), 0);
		assert_int_equal(sb.st_mode & 0777, 0600);
		assert_int_equal(sum.bytes, sb.st_size);
		assert_int_equal(sum.rows, 2 * sizes[i]);
		assert_int_equal(sum.parts, 2);
		assert_int_equal(entries(f), 1);
	}
}

static void no_piece_and_no_changed_byte_passes(void **state)
{
	struct fixture *f = *state;
	struct im_err err;
	struct stat sb;
	char *whole;
	int fd;

	make(f, 5, false);
	assert_int_equal(stat(f->path, &sb), 0);
	whole = malloc((size_t)sb.st_size + 1);
	fd = open(f->path, O_RDWR);
	assert_int_equal(read(fd, whole, (size_t)sb.st_size), sb.st_size);
	for (off_t at = 0; at < sb.st_size; at++) {
		char byte = (char)(whole[at] ^ 4);

		assert_int_equal(pwrite(fd, &byte, 1, at), 1);
		assert_int_equal(read_back(f, NULL, NULL, &err), IM_BAD_INPUT);
		assert_int_equal(pwrite(fd, whole + at, 1, at), 1);
	}
	assert_int_equal(read_back(f, NULL, NULL, &err), IM_OK);
	assert_int_equal(pwrite(fd, "", 1, sb.st_size), 1);
	assert_int_equal(read_back(f, NULL, NULL, &err), IM_BAD_INPUT);
	for (off_t size = sb.st_size; size-- > 0;) {
		assert_int_equal(ftruncate(fd, size), 0);
		assert_int_equal(read_back(f, NULL, NULL, &err), IM_BAD_INPUT);
	}
	close(fd);
	free(whole);
}

static void a_newer_format_is_named(void **state)
{
	struct fixture *f = *state;
	struct im_err err;
	int fd;

	make(f, 1, false);
	fd = open(f->path, O_RDWR);
	assert_int_equal(pwrite(fd, "\2", 1, 8), 1);
	close(fd);
	assert_int_equal(read_back(f, NULL, NULL, &err), IM_BAD_INPUT);
	assert_non_null(strstr(err.text, "newer release"));
}

static void nothing_is_overwritten_unasked(void **state)
{
	struct fixture *f = *state;
	struct backup_writer *w;
	struct im_err err;
	char other[128];
	int fd;

	make(f, 1, false);
	assert_int_equal(backup_create(f->path, false, 0, &w, &err), IM_EXISTS);
	w = begin(f, true);
	backup_abandon(w);
	assert_int_equal(read_back(f, NULL, NULL, &err), IM_OK);
	assert_int_equal(unlink(f->path), 0);
	w = begin(f, false);
	assert_int_equal(backup_create(f->path, false, 0, &(struct backup_writer *){ NULL }, &err), IM_BUSY);
	fd = open(f->path, O_WRONLY | O_CREAT | O_EXCL, 0600); /* comes while it is written */
	close(fd);
	write_parts(w, 1);
	assert_int_equal(backup_commit(w, &err), IM_EXISTS);
	assert_int_equal(entries(f), 1);
	assert_int_equal(unlink(f->path), 0);
	assert_int_equal(mkdir(f->path, 0700), 0);
	assert_int_equal(backup_create(f->path, true, 0, &w, &err), IM_EXISTS);
	assert_int_equal(rmdir(f->path), 0);
	snprintf(other, sizeof(other), "%s.unfinished", f->path);
	fd = open(other, O_WRONLY | O_CREAT | O_EXCL, 0600);
	assert_int_equal(write(fd, "something else", 14), 14);
	close(fd);
	assert_int_equal(backup_create(f->path, false, 0, &w, &err), IM_EXISTS);
	assert_int_equal(unlink(other), 0);
}

static void an_unfinished_one_is_no_backup_and_the_next_takes_its_place(void **state)
{
	struct fixture *f = *state;
	struct backup_writer *w = begin(f, false);
	char other[128];

	write_parts(w, 20000);
	snprintf(other, sizeof(other), "%s.unfinished", f->path);
	assert_int_equal(link(other, f->path), 0); /* as a kill would leave it, and somebody renamed it */
	assert_int_equal(read_back(f, NULL, NULL, &(struct im_err){ "" }), IM_BAD_INPUT);
	assert_int_equal(unlink(other), 0);
	backup_abandon(w);
	assert_int_equal(rename(f->path, other), 0);
	make(f, 3, false);
	assert_int_equal(entries(f), 1);
	assert_int_equal(read_back(f, NULL, NULL, &(struct im_err){ "" }), IM_OK);
}

static void room_that_must_stay_free_stops_it(void **state)
{
	struct fixture *f = *state;
	struct backup_writer *w;
	struct im_err err;

	assert_int_equal(backup_create(f->path, false, UINT64_MAX, &w, &err), IM_FAILED);
	assert_int_equal(entries(f), 0);
}

static void header_values_are_found_by_their_whole_name(void **state)
{
	static const char text[] = "xnode=1\nnode=22\nempty=\nlast=z";
	char out[8];

	(void)state;
	assert_true(backup_header_value(text, "node", out, sizeof(out)));
	assert_string_equal(out, "22");
	assert_true(backup_header_value(text, "empty", out, sizeof(out)));
	assert_string_equal(out, "");
	assert_true(backup_header_value(text, "last", out, sizeof(out)));
	assert_false(backup_header_value(text, "nod", out, sizeof(out)));
	assert_false(backup_header_value(text, "node", out, 2));
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(what_was_written_comes_back),
		T(no_piece_and_no_changed_byte_passes),
		T(a_newer_format_is_named),
		T(nothing_is_overwritten_unasked),
		T(an_unfinished_one_is_no_backup_and_the_next_takes_its_place),
		T(room_that_must_stay_free_stops_it),
		T(header_values_are_found_by_their_whole_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
