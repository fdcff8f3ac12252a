/*
 * link_frame and what follows in the tick: any bytes from the message service leave the link alive, and each
 * turn bounded. The input is a list of frames, each behind its length (one
 * byte; 255: two more follow, little endian), given after a good hello and once more without one.
 */
#include "fuzz.h"

#include "base/log.h"
#include "plugin/broker.h"
#include "plugin/link.h"
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { KEPT = 1000 }; /* bytes of the journal's only epoch */

static struct session somebody = {.handle = 1, .client_id = "alice:phone", .user = "alice", .protocol = 5, .websocket = true};
static char dir[] = "/tmp/im-link-fuzz-XXXXXX";
static uint64_t expanded_turn;

/* ---------------------------------------------------------------- broker, sessions, journal: the least that answers */

void *broker_alloc(size_t len)
{
	return malloc(len);
}

void broker_free(void *p)
{
	free(p);
}

bool broker_send(const char *client_id, const char *topic, void *payload, size_t len, int qos, const Im__Bus__Properties *props)
{
	(void)props;
	must(client_id && topic && (qos == 0 || qos == 1));
	must((payload != NULL) == (len > 0));
	expanded_turn++;
	free(payload);
	return true;
}

void broker_kick(const char *client_id, bool with_will)
{
	(void)client_id;
	(void)with_will;
}

bool broker_acked(const struct mosquitto *context, uint64_t *out)
{
	(void)context;
	(void)out;
	return false;
}

void broker_wake(void)
{
}

struct session *session_by_handle(struct session_table *t, uint64_t handle)
{
	(void)t;
	return handle == 1 ? &somebody : NULL;
}

void session_describe(const struct session *s, Im__Bus__Session *out, Im__Bus__Filter *filters, Im__Bus__Filter **array)
{
	(void)filters;
	(void)array;
	out->handle = s->handle;
}

void session_each(struct session_table *t, session_fn *fn, void *arg)
{
	(void)t;
	fn(arg, &somebody);
}

void session_kick(struct session_table *t, struct session *s, const char *reason)
{
	(void)t;
	must(s == &somebody && reason);
}

uint64_t journal_epoch(const struct journal *j)
{
	(void)j;
	return 7;
}

uint64_t journal_bytes(const struct journal *j)
{
	(void)j;
	return KEPT;
}

struct journal_cursor journal_oldest(const struct journal *j)
{
	(void)j;
	return (struct journal_cursor){7, 0};
}

enum im_status journal_read(struct journal *j, struct journal_cursor *c, size_t max, struct im_buf *out, uint64_t *epoch, uint64_t *offset)
{
	(void)j;
	(void)max;
	if (c->epoch != 7 || c->offset >= KEPT)
		return IM_NOT_FOUND;
	*epoch = 7;
	*offset = c->offset;
	im_buf_add(out, "0123456789", 10);
	c->offset += 10;
	return IM_OK;
}

void journal_confirm(struct journal *j, uint64_t epoch, uint64_t offset)
{
	(void)j;
	(void)epoch;
	(void)offset; /* a hello may confirm anything: what the service's log has */
}

/* ---------------------------------------------------------------- the target */

static void quiet(enum im_log_level level, const char *line)
{
	(void)level;
	(void)line;
}

static void forget_roster(void)
{
	char path[64];

	(void)snprintf(path, sizeof(path), "%s/roster", dir);
	(void)unlink(path);
}

static void remove_dir(void)
{
	forget_roster();
	(void)rmdir(dir);
}

static void start(void)
{
	im_log_open("link_frame_fuzz", IM_LOG_ERROR, quiet);
	must(mkdtemp(dir));
	(void)atexit(remove_dir);
}

static void run(const uint8_t *data, size_t size, bool greet)
{
	static const uint8_t hello[] = {0x12, 0x04, 0x08, 0x01, 0x10, 0x01};
	struct im_settings settings = {.dir = dir, .node = 1, .expand_bytes = 4096};
	struct roster *roster = roster_create();
	struct link_stats st;
	struct link *l = NULL;

	must(roster && link_create(&settings, NULL, NULL, roster, &l, NULL) == IM_OK);
	link_service(l, "$im-offline", true);
	if (greet)
		link_frame(l, hello, sizeof(hello));
	while (size > 0) {
		size_t len = *data++;

		size--;
		if (len == 255 && size >= 2) {
			len = (size_t)data[0] | (size_t)data[1] << 8;
			data += 2;
			size -= 2;
		}
		len = len < size ? len : size;
		link_frame(l, data, len);
		data += len;
		size -= len;
		expanded_turn = 0;
		link_tick(l);
		must(expanded_turn < 4096 / 100 + 16); /* the budget, and the frames for the service */
		link_stats(l, &st);
		must(st.in_flight <= KEPT);
	}
	link_destroy(l);
	roster_destroy(roster);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static bool started;

	if (!started)
		start();
	started = true;
	run(data, size, true);
	run(data, size, false);
	forget_roster(); /* the next input begins with nothing */
	return 0;
}
