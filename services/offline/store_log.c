#include "store_log.h"
#include "base/clock.h"
#include "base/killpoint.h"
#include "base/log.h"
#include "base/record.h"
#include "store_segment.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define GATHER_BUSY 4u /* entries in the last commit: so many came while one sync ran ... */
#define GATHER_US 1000 /* ... that the next one begins this long after it: each commit costs two frames and several wake-ups */

struct store_log {
	char *dir;
	char epoch[33];
	uint64_t segment_bytes;
	struct log_io io;
	log_wake_fn *wake;
	void *arg;
	uint64_t start;

	pthread_t thread;
	bool running;
	pthread_mutex_t mutex;   /* over everything from here ... */
	pthread_cond_t given, decided;
	struct im_buf pending;   /* frames without checksums */
	struct append_queue waiting, done;
	bool stop, busy, failed, spare;
	struct im_err err;
	uint64_t oldest, current; /* segment numbers on disk */
	uint64_t syncs, sync_us_max, used;
	/* ... to here */

	/* The log's thread only. */
	struct im_buf writing;
	int64_t began_us;        /* of the last commit */
	size_t shared;           /* entries in it */
	int fd;
	uint64_t number, offset, record_epoch;
};

static ssize_t real_pwrite(int fd, const void *data, size_t len, off_t at)
{
	return pwrite(fd, data, len, at);
}

static int real_fdatasync(int fd)
{
	return fdatasync(fd);
}

static const struct log_io real_io = { real_pwrite, real_fdatasync };

/* ---- frames: [u32 length][u32 checksum, filled in by the log's thread][body] */

static uint32_t get_u32(const char *data)
{
	const uint8_t *p = (const uint8_t *)data;

	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

size_t log_frame_begin(struct im_buf *out)
{
	size_t at = out->len;

	im_buf_add(out, "\0\0\0\0\0\0\0\0", IM_RECORD_HEADER);
	return at;
}

bool log_frame_end(struct im_buf *out, size_t at)
{
	size_t len = out->len - at - IM_RECORD_HEADER;

	if (out->failed || len == 0 || len > IM_RECORD_MAX)
		return false;
	for (int i = 0; i < 4; i++)
		out->data[at + (size_t)i] = (char)(len >> (8 * i));
	return true;
}

static void seal_frames(struct store_log *log, char *data, size_t len)
{
	size_t at = 0;

	while (at < len) {
		size_t body = get_u32(data + at);

		im_record_header(log->record_epoch, log->offset + at, data + at + IM_RECORD_HEADER, body, (uint8_t *)data + at);
		at += im_record_size(body);
	}
}

/* ---- the thread */

static enum im_status write_all(struct store_log *log, const char *data, size_t len, uint64_t at, struct im_err *err)
{
	while (len) {
		ssize_t n = log->io.pwrite(log->fd, data, len, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return im_fail(err, IM_FAILED, "cannot write the message log in %s: %s", log->dir, n < 0 ? strerror(errno) : "nothing written");
		data += n;
		len -= (size_t)n;
		at += (uint64_t)n;
	}
	return IM_OK;
}

static enum im_status sync_segment(struct store_log *log, struct im_err *err)
{
	int64_t began = im_clock_mono_us(), took;

	if (log->io.fdatasync(log->fd) != 0)
		return im_fail(err, IM_FAILED, "cannot sync the message log in %s: %s", log->dir, strerror(errno));
	took = im_clock_mono_us() - began;
	pthread_mutex_lock(&log->mutex);
	log->syncs++;
	if ((uint64_t)took > log->sync_us_max)
		log->sync_us_max = (uint64_t)took;
	pthread_mutex_unlock(&log->mutex);
	return IM_OK;
}

/* A segment that begins now; the log is valid up to `valid`. Durable with the first records' sync. */
static enum im_status begin_segment(struct store_log *log, uint64_t number, uint64_t valid, struct im_err *err)
{
	struct segment_header h = { .number = number, .valid = valid };
	uint8_t header[LOG_HEADER];
	enum im_status st;
	int fd;

	randombytes_buf(&h.record_epoch, sizeof(h.record_epoch));
	memcpy(h.store, log->epoch, sizeof(h.store));
	st = segment_take(log->dir, number, log->segment_bytes, &fd, err);
	if (st != IM_OK)
		return st;
	if (log->fd >= 0)
		close(log->fd);
	log->fd = fd;
	IM_KILLPOINT("log.new_segment");
	segment_header_encode(&h, header);
	st = write_all(log, (const char *)header, sizeof(header), 0, err);
	if (st != IM_OK)
		return st;
	log->number = number;
	log->offset = LOG_HEADER;
	log->record_epoch = h.record_epoch;
	pthread_mutex_lock(&log->mutex);
	log->current = number;
	log->spare = false;
	log->used = 0;
	pthread_mutex_unlock(&log->mutex);
	return IM_OK;
}

static enum im_status write_pending(struct store_log *log, struct im_err *err)
{
	enum im_status st;

	if (log->offset >= log->segment_bytes) {
		st = begin_segment(log, log->number + 1, log->number << 32 | log->offset, err);
		if (st != IM_OK)
			return st;
	}
	seal_frames(log, log->writing.data, log->writing.len);
	IM_KILLPOINT("log.before_write");
	st = write_all(log, log->writing.data, log->writing.len, log->offset, err);
	IM_KILLPOINT("log.before_sync");
	if (st == IM_OK)
		st = sync_segment(log, err);
	IM_KILLPOINT("log.after_sync");
	if (st == IM_OK)
		log->offset += log->writing.len;
	return st;
}

/* Every append's position is counted from where its batch began. */
static void decide(struct append_queue *batch, enum im_status st, uint64_t begin)
{
	uint64_t at = begin;

	for (struct append *a = batch->first; a; a = a->next) {
		at += a->bytes;
		if (a->st != IM_FAILED) /* refused already, it only waits for its turn */
			a->st = st;
		a->end = at;
	}
}

#define WRITING_KEPT (4u << 20) /* a buffer that grew beyond this for one burst is given back */

static void swap_buffers(struct store_log *log)
{
	struct im_buf empty = log->writing;

	log->writing = log->pending;
	if (empty.cap > WRITING_KEPT)
		im_buf_finish(&empty);
	im_buf_clear(&empty);
	log->pending = empty;
}

static void note_shared(struct store_log *log, const struct append_queue *batch)
{
	log->began_us = im_clock_mono_us();
	log->shared = 0;
	for (const struct append *a = batch->first; a; a = a->next)
		log->shared += a->n;
}

/* Called and left with the mutex held. A quiet log never waits. */
static void gather(struct store_log *log)
{
	int64_t wait_us = log->began_us + GATHER_US - im_clock_mono_us();
	const struct timespec ts = { .tv_nsec = wait_us * 1000 };

	if (log->shared < GATHER_BUSY || wait_us <= 0 || log->stop)
		return;
	pthread_mutex_unlock(&log->mutex);
	(void)nanosleep(&ts, NULL); /* cut short by a signal: a smaller commit */
	pthread_mutex_lock(&log->mutex);
}

/* One group commit. Called and left with the mutex held. */
static void commit(struct store_log *log)
{
	enum im_status st = IM_UNCERTAIN;
	struct append_queue batch;
	struct im_err err = { "" };

	append_queue_init(&batch);
	append_queue_move(&batch, &log->waiting);
	note_shared(log, &batch);
	swap_buffers(log);
	log->busy = true;
	if (log->writing.len == 0 && !log->failed) {
		st = IM_OK; /* nothing but refused ones */
	} else if (!log->failed) {
		pthread_mutex_unlock(&log->mutex);
		st = write_pending(log, &err);
		pthread_mutex_lock(&log->mutex);
		if (st != IM_OK) {
			log->failed = true;
			log->err = err;
			im_log(IM_LOG_ERROR, "evt=log_failed error=\"%s\"", err.text);
		}
	}
	decide(&batch, st == IM_OK ? IM_OK : IM_UNCERTAIN, log->number << 32 | (log->offset - log->writing.len));
	append_queue_move(&log->done, &batch);
	log->used = log->offset;
	log->busy = false;
	pthread_cond_broadcast(&log->decided);
}

static void *log_thread(void *arg)
{
	struct store_log *log = arg;

	pthread_mutex_lock(&log->mutex);
	for (;;) {
		while (!log->waiting.first && !log->stop)
			pthread_cond_wait(&log->given, &log->mutex);
		if (!log->waiting.first)
			break;
		gather(log);
		commit(log);
		pthread_mutex_unlock(&log->mutex);
		log->wake(log->arg);
		pthread_mutex_lock(&log->mutex);
	}
	pthread_mutex_unlock(&log->mutex);
	return NULL;
}

/* ---- from the loop */

void store_log_append(struct store_log *log, const struct im_buf *frames, struct append *a)
{
	a->bytes = frames->len;
	pthread_mutex_lock(&log->mutex);
	im_buf_add(&log->pending, frames->data, frames->len);
	if (log->pending.failed && !log->failed) { /* out of memory: this append is not whole, so the log ends here */
		log->failed = true;
		(void)im_fail(&log->err, IM_FAILED, "out of memory for the message log"); /* the status is in `failed` */
	}
	append_queue_put(&log->waiting, a);
	pthread_cond_signal(&log->given);
	pthread_mutex_unlock(&log->mutex);
}

void store_log_end(struct store_log *log, const char *why)
{
	pthread_mutex_lock(&log->mutex);
	if (!log->failed) {
		log->failed = true;
		(void)im_fail(&log->err, IM_FAILED, "%s", why); /* the status is in `failed` */
		im_log(IM_LOG_ERROR, "evt=log_ended why=\"%s\"", why);
	}
	pthread_mutex_unlock(&log->mutex);
}

void store_log_flush(struct store_log *log)
{
	pthread_mutex_lock(&log->mutex);
	while (log->waiting.first || log->busy)
		pthread_cond_wait(&log->decided, &log->mutex);
	pthread_mutex_unlock(&log->mutex);
}

void store_log_take(struct store_log *log, struct append_queue *out)
{
	pthread_mutex_lock(&log->mutex);
	append_queue_move(out, &log->done);
	pthread_mutex_unlock(&log->mutex);
}

uint64_t store_log_start(const struct store_log *log)
{
	return log->start;
}

bool store_log_failed(struct store_log *log, struct im_err *err)
{
	bool failed;

	pthread_mutex_lock(&log->mutex);
	failed = log->failed;
	if (failed && err)
		*err = log->err;
	pthread_mutex_unlock(&log->mutex);
	return failed;
}

void store_log_stats(struct store_log *log, struct store_stats *out)
{
	pthread_mutex_lock(&log->mutex);
	out->syncs = log->syncs;
	out->sync_us_max = log->sync_us_max;
	pthread_mutex_unlock(&log->mutex);
}

/* ---- segments no longer needed, and the next one */

/* It becomes the next one, if that is not there yet: no zeros to write. Its records carry another epoch. */
static bool reuse(struct store_log *log, uint64_t number)
{
	bool wanted;

	pthread_mutex_lock(&log->mutex);
	wanted = !log->spare && !log->failed;
	pthread_mutex_unlock(&log->mutex);
	if (!wanted || !segment_reuse(log->dir, number))
		return false;
	pthread_mutex_lock(&log->mutex);
	log->spare = true;
	pthread_mutex_unlock(&log->mutex);
	return true;
}

void store_log_trim(struct store_log *log, uint64_t position)
{
	uint64_t first, end;

	pthread_mutex_lock(&log->mutex);
	first = log->oldest;
	end = position >> 32 < log->current ? position >> 32 : log->current;
	if (end > log->oldest)
		log->oldest = end;
	pthread_mutex_unlock(&log->mutex);
	for (; first < end; first++)
		if (!reuse(log, first))
			segment_remove(log->dir, first);
}

void store_log_prepare(struct store_log *log)
{
	bool due;

	pthread_mutex_lock(&log->mutex);
	due = !log->spare && !log->failed && log->used > log->segment_bytes / 4;
	pthread_mutex_unlock(&log->mutex);
	if (!due || segment_spare(log->dir, log->segment_bytes) != IM_OK)
		return; /* if it can't be made now, the log's thread will try and say why */
	pthread_mutex_lock(&log->mutex);
	log->spare = true;
	pthread_mutex_unlock(&log->mutex);
}

uint64_t store_log_segments(struct store_log *log)
{
	uint64_t n;

	pthread_mutex_lock(&log->mutex);
	n = log->current - log->oldest + 1;
	pthread_mutex_unlock(&log->mutex);
	return n;
}

/* ---- opening and closing */

/*
 * The new segment's header says up to where the log is valid. What was found may be in the page cache only, so it is
 * settled before that is said: else a power cut that leaves the header and takes what it speaks of leaves a hole.
 */
static enum im_status log_recover(struct store_log *log, const struct log_options *o, struct im_err *err)
{
	struct segment_range found;
	uint64_t reached = o->after, number;
	enum im_status st;

	st = segment_list(o->dir, &found, err);
	if (st != IM_OK)
		return st;
	log->oldest = found.first;
	for (number = found.first; number < found.end; number++) {
		st = segment_replay(o, number, number + 1 == found.end, &reached, err);
		if (st == IM_NOT_FOUND)
			break; /* its number is given again: a gap would part what stands before it from the rest */
		if (st != IM_OK)
			return st;
	}
	if (number <= reached >> 32)
		number = (reached >> 32) + 1;
	if (found.first == found.end)
		log->oldest = number;
	log->start = number << 32 | LOG_HEADER;
	if (o->settle) {
		st = o->settle(o->arg, reached, err);
		if (st != IM_OK)
			return st;
	}
	return begin_segment(log, number, reached, err);
}

static enum im_status log_launch(struct store_log *log, struct im_err *err)
{
	int rc = pthread_create(&log->thread, NULL, log_thread, log);

	if (rc != 0)
		return im_fail(err, IM_FAILED, "cannot start the log's thread: %s", strerror(rc));
	log->running = true;
	return IM_OK;
}

enum im_status store_log_open(const struct log_options *o, struct store_log **out, struct im_err *err)
{
	struct store_log *log = calloc(1, sizeof(*log));
	enum im_status st;

	if (!log)
		return im_fail(err, IM_FAILED, "out of memory");
	log->fd = -1;
	log->io = o->io ? *o->io : real_io;
	log->wake = o->wake;
	log->arg = o->arg;
	log->segment_bytes = o->segment_bytes;
	(void)snprintf(log->epoch, sizeof(log->epoch), "%s", o->epoch); /* 32 digits fit */
	append_queue_init(&log->waiting);
	append_queue_init(&log->done);
	pthread_mutex_init(&log->mutex, NULL);
	pthread_cond_init(&log->given, NULL);
	pthread_cond_init(&log->decided, NULL);
	log->dir = strdup(o->dir);
	st = log->dir ? log_recover(log, o, err) : im_fail(err, IM_FAILED, "out of memory");
	if (st == IM_OK)
		st = log_launch(log, err);
	if (st != IM_OK) {
		store_log_close(log);
		return st;
	}
	*out = log;
	return IM_OK;
}

void store_log_close(struct store_log *log)
{
	struct append *a;

	if (!log)
		return;
	if (log->running) {
		pthread_mutex_lock(&log->mutex);
		log->stop = true;
		pthread_cond_signal(&log->given);
		pthread_mutex_unlock(&log->mutex);
		pthread_join(log->thread, NULL);
	}
	while ((a = append_queue_take(&log->done)))
		append_unref(a);
	if (log->fd >= 0)
		close(log->fd);
	im_buf_finish(&log->pending);
	im_buf_finish(&log->writing);
	pthread_cond_destroy(&log->given);
	pthread_cond_destroy(&log->decided);
	pthread_mutex_destroy(&log->mutex);
	free(log->dir);
	free(log);
}
