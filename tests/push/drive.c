/*
 * A bridge's driver without the core: JSON lines in, JSON lines out. usage: push_drive PROVIDER
 *
 *     {"op":"start","dir":"...","state_dir":"..."}      -> {"event":"started"} | {"event":"refused","text":"..."}
 *     {"op":"reload","dir":"..."}                       -> {"event":"reloaded"} | {"event":"refused","text":"..."}
 *     {"op":"send","row":1,"app":"a","token":"...", ...} -> {"event":"result","row":1,"class":"accepted","status":200,...}
 *     {"op":"load","n":1000, ... as send}               -> {"event":"loaded","accepted":1000,"ms":...,"kib":...}, results only counted
 *     {"op":"room","app":"a","env":"production"}        -> {"event":"room","n":32}
 *     {"op":"times","request_ms":300,...}, {"op":"drain"}, {"op":"metrics"}, {"op":"stop"}; the end of the input ends the program
 */
#include "apns.h"
#include "base/clock.h"
#include "base/log.h"
#include "fcm.h"
#include "times.h"
#include "vendor.h"
#include "webpush.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct push_driver driver;

static const char *const class_names[] = {
	[PUSH_ACCEPTED] = "accepted", [PUSH_UNSENT] = "unsent", [PUSH_UNREACHABLE] = "unreachable", [PUSH_UNKNOWN] = "unknown",
	[PUSH_RETRY] = "retry", [PUSH_TOKEN_RATE] = "token_rate", [PUSH_RATE] = "rate", [PUSH_QUOTA] = "quota", [PUSH_AUTH] = "auth",
	[PUSH_CONFIG] = "config", [PUSH_TOKEN_INVALID] = "token_invalid", [PUSH_TOKEN_ENV] = "token_env", [PUSH_TOO_LARGE] = "too_large",
	[PUSH_CONTENT] = "content", [PUSH_BUG] = "bug",
};
#define CLASSES (sizeof(class_names) / sizeof(class_names[0]))

struct item {
	struct item *next;
	json_t *spec; /* the texts live in it */
	char *bytes;  /* of "body_hex": what JSON cannot say */
	Im__Push__Job job;
	Im__Push__Ticket ticket;
	Im__Push__Token token;
	struct push_send send;
};

struct load {
	json_t *spec;
	uint64_t n, sent, told, by_class[CLASSES];
	int64_t began_us;
};

struct drive {
	struct push_host host;
	char state_dir[4096];
	void *driver;
	struct im_watch *input;
	char line[1 << 20];
	size_t used;
	struct item *items;
	struct load load;
};

static void say(json_t *event)
{
	char *text = json_dumps(event, JSON_COMPACT);

	if (text)
		(void)puts(text);
	(void)fflush(stdout);
	free(text);
	json_decref(event);
}

static long resident_kib(void)
{
	char line[128];
	long kib = 0;
	FILE *f = fopen("/proc/self/status", "re");

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "VmRSS: %ld", &kib) == 1)
			break;
	if (f)
		(void)fclose(f);
	return kib;
}

/* ---- sends ---- */

static char *text_of(json_t *spec, const char *key)
{
	const char *s = json_string_value(json_object_get(spec, key));

	return (char *)(s ? s : "");
}

static int64_t number_of(json_t *spec, const char *key)
{
	return json_integer_value(json_object_get(spec, key));
}

static void copy_text(char *out, size_t size, const char *text, const char *otherwise)
{
	(void)snprintf(out, size, "%s", *text ? text : otherwise);
}

/* NULL: there is none. */
static char *read_hex(json_t *spec, const char *key)
{
	const char *hex = text_of(spec, key);
	size_t len = strlen(hex) / 2;
	char *bytes = *hex ? calloc(1, len + 1) : NULL;

	if (bytes && sodium_hex2bin((unsigned char *)bytes, len, hex, 2 * len, NULL, NULL, NULL) != 0)
		abort();
	return bytes;
}

static struct item *item_create(struct drive *d, json_t *spec, uint64_t row)
{
	struct item *i = calloc(1, sizeof(*i));
	char uuid[37];

	if (!i)
		abort();
	i->spec = json_incref(spec);
	im__push__job__init(&i->job);
	im__push__ticket__init(&i->ticket);
	im__push__token__init(&i->token);
	i->token.app = text_of(spec, "app");
	i->token.env = text_of(spec, "env");
	i->token.token = text_of(spec, "token");
	i->token.p256dh = text_of(spec, "p256dh");
	i->token.auth = text_of(spec, "auth");
	i->job.kind = (Im__Push__Kind)number_of(spec, "kind");
	i->job.deadline_ms = json_object_get(spec, "deadline_ms") ? number_of(spec, "deadline_ms") : im_clock_wall_ms() + 3600000;
	i->ticket.token = &i->token;
	i->ticket.language = text_of(spec, "language");
	i->ticket.title = text_of(spec, "title");
	i->ticket.subtitle = text_of(spec, "subtitle");
	i->bytes = read_hex(spec, "body_hex");
	i->ticket.body = i->bytes ? i->bytes : text_of(spec, "body");
	i->ticket.conv = text_of(spec, "conv");
	i->ticket.msgid = text_of(spec, "msgid");
	i->ticket.from = text_of(spec, "from");
	i->ticket.type = text_of(spec, "type");
	i->ticket.seq = (uint64_t)number_of(spec, "seq");
	i->ticket.has_badge = json_object_get(spec, "badge") != NULL;
	i->ticket.badge = (uint32_t)number_of(spec, "badge");
	i->ticket.silent = json_is_true(json_object_get(spec, "silent"));
	i->send.row = row;
	i->send.attempt = json_object_get(spec, "attempt") ? (unsigned)number_of(spec, "attempt") : 1;
	i->send.job = &i->job;
	i->send.ticket = &i->ticket;
	(void)snprintf(uuid, sizeof(uuid), "00000000-0000-4000-8000-%012llx", (unsigned long long)row);
	copy_text(i->send.uuid, sizeof(i->send.uuid), text_of(spec, "uuid"), uuid);
	copy_text(i->send.collapse, sizeof(i->send.collapse), text_of(spec, "collapse"), "0123456789abcdef0123456789abcdef");
	copy_text(i->send.thread, sizeof(i->send.thread), text_of(spec, "thread"), "fedcba9876543210fedcba9876543210");
	i->next = d->items;
	d->items = i;
	return i;
}

static void item_remove(struct drive *d, uint64_t row)
{
	struct item **at = &d->items, *i;

	while ((i = *at) && i->send.row != row)
		at = &i->next;
	if (!i) {
		say(json_pack("{s:s, s:I}", "event", "stray", "row", (json_int_t)row)); /* told twice, or never sent */
		return;
	}
	*at = i->next;
	json_decref(i->spec);
	free(i->bytes);
	free(i);
}

static void send_one(struct drive *d, json_t *spec, uint64_t row)
{
	const struct item *i = item_create(d, spec, row);

	driver.send(d->driver, &i->send, json_is_true(json_object_get(spec, "minimal")));
}

/* ---- a load */

static void load_more(struct drive *d)
{
	struct load *l = &d->load;
	size_t room;

	if (!l->spec || l->sent == l->n || !d->driver)
		return;
	room = driver.room(d->driver, text_of(l->spec, "app"), text_of(l->spec, "env"));
	for (; room > 0 && l->sent < l->n; room--)
		send_one(d, l->spec, ++l->sent);
}

static void load_told(struct drive *d, const struct push_result *r)
{
	struct load *l = &d->load;
	json_t *event;

	l->by_class[r->class]++;
	if (r->class == PUSH_UNSENT || r->class == PUSH_UNREACHABLE || r->class == PUSH_UNKNOWN || r->class == PUSH_AUTH)
		l->n++; /* the core would send it again */
	if (++l->told < l->n)
		return;
	event = json_pack("{s:s, s:I, s:I, s:I}", "event", "loaded", "ms", (json_int_t)((im_clock_mono_us() - l->began_us) / 1000), "kib",
			  (json_int_t)resident_kib(), "told", (json_int_t)l->told);
	for (size_t i = 0; i < CLASSES; i++)
		if (l->by_class[i])
			json_object_set_new(event, class_names[i], json_integer((json_int_t)l->by_class[i]));
	say(event);
	json_decref(l->spec);
	*l = (struct load){0};
}

static void op_load(struct drive *d, json_t *spec)
{
	d->load = (struct load){.spec = json_incref(spec), .n = (uint64_t)number_of(spec, "n"), .began_us = im_clock_mono_us()};
	load_more(d);
}

/* ---- the host ---- */

static void on_result(void *arg, uint64_t row, const struct push_result *r)
{
	struct drive *d = arg;

	item_remove(d, row);
	if (d->load.spec) {
		load_told(d, r);
		load_more(d);
		return;
	}
	say(json_pack("{s:s, s:I, s:s, s:i, s:s, s:s, s:I, s:I, s:I}", "event", "result", "row", (json_int_t)row, "class", class_names[r->class], "status",
		      r->status, "reason", r->reason, "id", r->provider_id, "retry_after_ms", (json_int_t)r->retry_after_ms, "invalid_since_ms",
		      (json_int_t)r->invalid_since_ms, "hold_until_ms", (json_int_t)r->hold_until_ms));
}

static void on_room(void *arg)
{
	load_more(arg);
}

/* ---- operations ---- */

static void op_start(struct drive *d, json_t *op)
{
	bool fresh = d->driver == NULL;
	struct im_err err = {""};
	struct push_app **apps = NULL;
	enum im_status st;
	size_t n = 0;

	if (fresh)
		copy_text(d->state_dir, sizeof(d->state_dir), text_of(op, "state_dir"), ".");
	st = push_apps_read(text_of(op, "dir"), driver.provider, driver.keys, &apps, &n, &err);
	if (st == IM_OK)
		st = fresh ? driver.start(&d->host, apps, n, &d->driver, &err) : driver.reload(d->driver, apps, n, &err);
	if (apps)
		push_apps_free(apps, n);
	if (st == IM_OK)
		say(json_pack("{s:s}", "event", fresh ? "started" : "reloaded"));
	else
		say(json_pack("{s:s, s:s, s:s}", "event", "refused", "status", im_status_name(st), "text", err.text));
}

static void op_stop(struct drive *d, json_t *op)
{
	(void)op;
	if (d->driver)
		driver.stop(d->driver);
	d->driver = NULL;
	while (d->items)
		item_remove(d, d->items->send.row);
	json_decref(d->load.spec);
	d->load = (struct load){0};
	say(json_pack("{s:s}", "event", "stopped"));
}

static void op_send(struct drive *d, json_t *op)
{
	send_one(d, op, (uint64_t)number_of(op, "row"));
}

static void op_room(struct drive *d, json_t *op)
{
	say(json_pack("{s:s, s:I}", "event", "room", "n", (json_int_t)driver.room(d->driver, text_of(op, "app"), text_of(op, "env"))));
}

static void op_drain(struct drive *d, json_t *op)
{
	(void)op;
	driver.drain(d->driver);
}

static void op_metrics(struct drive *d, json_t *op)
{
	struct im_buf text;

	(void)op;
	im_buf_init(&text);
	driver.metrics(d->driver, &text);
	say(json_pack("{s:s, s:s, s:I}", "event", "metrics", "text", im_buf_text(&text), "kib", (json_int_t)resident_kib()));
	im_buf_finish(&text);
}

static void op_times(struct drive *d, json_t *op)
{
	const struct {
		const char *name;
		int64_t *ms;
	} times[] = {
		{"connect_ms", &apns_times.connect_ms}, {"request_ms", &apns_times.request_ms}, {"ping_idle_ms", &apns_times.ping_idle_ms},
		{"ping_ack_ms", &apns_times.ping_ack_ms}, {"backoff_least_ms", &apns_times.backoff_least_ms},
		{"backoff_most_ms", &apns_times.backoff_most_ms}, {"connect_each_ms", &apns_times.connect_each_ms}, {"grow_ms", &apns_times.grow_ms}, {"slow_ms", &apns_times.slow_ms},
		{"age_ms", &apns_times.age_ms}, {"drain_ms", &apns_times.drain_ms}, {"wall_shift_ms", &apns_times.wall_shift_ms},
		{"boot_shift_ms", &apns_times.boot_shift_ms},
	};

	(void)d;
	for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++)
		if (json_object_get(op, times[i].name))
			*times[i].ms = number_of(op, times[i].name);
	if (json_object_get(op, "last_stream"))
		apns_times.last_stream = (int32_t)number_of(op, "last_stream");
}

static void run_line(struct drive *d, const char *line, size_t len)
{
	static const struct {
		const char *name;
		void (*run)(struct drive *d, json_t *op);
	} ops[] = {
		{"start", op_start}, {"reload", op_start}, {"send", op_send}, {"load", op_load}, {"room", op_room},
		{"drain", op_drain}, {"metrics", op_metrics}, {"times", op_times}, {"stop", op_stop},
	};
	json_t *op = json_loadb(line, len, 0, NULL);

	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
		if (strcmp(text_of(op, "op"), ops[i].name) == 0)
			ops[i].run(d, op);
	json_decref(op);
}

static void on_input(void *arg, bool readable, bool writable)
{
	struct drive *d = arg;
	ssize_t n = read(STDIN_FILENO, d->line + d->used, sizeof(d->line) - d->used);
	char *end;

	(void)readable;
	(void)writable;
	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0) {
		im_loop_stop(d->host.loop);
		return;
	}
	d->used += (size_t)n;
	while ((end = memchr(d->line, '\n', d->used))) {
		size_t len = (size_t)(end - d->line) + 1;

		run_line(d, d->line, len);
		memmove(d->line, end + 1, d->used - len);
		d->used -= len;
	}
}

static bool find_driver(const char *provider)
{
	const struct push_driver *const others[] = {&apns_driver, &fcm_driver, &webpush_driver};

	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		if (strcmp(others[i]->provider, provider) == 0) {
			driver = *others[i];
			return true;
		}
	return vendor_driver(provider, &driver);
}

int main(int argc, char **argv)
{
	static struct drive d;

	if (argc != 2 || !find_driver(argv[1]) || sodium_init() < 0) {
		(void)fprintf(stderr, "usage: push_drive PROVIDER\n");
		return 2;
	}
	im_log_open("push-drive", IM_LOG_DEBUG, NULL);
	(void)signal(SIGPIPE, SIG_IGN); /* as service_main does */
	d.host = (struct push_host){.loop = im_loop_create(), .state_dir = d.state_dir, .result = on_result, .room = on_room, .arg = &d};
	(void)fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
	d.input = im_watch_create(d.host.loop, STDIN_FILENO, on_input, &d);
	im_watch_set(d.input, true, false);
	im_loop_run(d.host.loop);
	op_stop(&d, NULL);
	im_watch_destroy(d.input);
	im_loop_destroy(d.host.loop);
	return 0;
}
