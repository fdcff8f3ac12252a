#include "fake_plugin.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct fake fake;

/* ---- broker.h ---- */

void *broker_alloc(size_t len)
{
	return malloc(len ? len : 1);
}

void broker_free(void *p)
{
	free(p);
}

bool broker_send(const char *client_id, const char *topic, void *payload, size_t len, int qos, const Im__Bus__Properties *props)
{
	struct fake_sent *s = &fake.sent[fake.n_sent++ % 16];

	(void)props;
	snprintf(s->client_id, sizeof(s->client_id), "%s", client_id);
	snprintf(s->topic, sizeof(s->topic), "%s", topic);
	snprintf(s->payload, sizeof(s->payload), "%.*s", (int)len, (const char *)payload);
	s->qos = qos;
	free(payload);
	return true;
}

void broker_kick(const char *client_id, bool with_will)
{
	(void)with_will;
	snprintf(fake.kicked[fake.n_kicked++ % 8], 160, "%s", client_id);
	if (fake.during_kick)
		fake.during_kick();
	if (fake.disconnect_on_kick) {
		bool owner;

		session_free(session_close(fake.p.sessions, fake.disconnect_on_kick, &owner));
	}
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

void broker_turn(void)
{
}

void broker_finish(void)
{
}

void broker_log(int level, const char *line)
{
	(void)level, (void)line;
}

void broker_client(const struct mosquitto *context, struct broker_client *out)
{
	*out = ((const struct fake_context *)(const void *)context)->c;
}

bool broker_set_user(const struct mosquitto *context, const char *user)
{
	((struct fake_context *)(uintptr_t)context)->c.user = user;
	return true;
}

bool broker_certificate(const struct mosquitto *context, enum im_certificate_user which, struct certificate *out)
{
	(void)context, (void)which, (void)out;
	return false;
}

void broker_properties_read(const void *list, struct broker_properties *out)
{
	const struct broker_properties *p = list;

	memset(out, 0, sizeof(*out));
	if (!p)
		return;
	out->content_type = p->content_type ? strdup(p->content_type) : NULL;
	out->response_topic = p->response_topic ? strdup(p->response_topic) : NULL;
	out->id = p->id ? strdup(p->id) : NULL;
}

void broker_properties_free(struct broker_properties *p)
{
	free(p->content_type);
	free(p->response_topic);
	free(p->id);
	memset(p, 0, sizeof(*p));
}

/* ---- journal.h ---- */

enum im_status journal_append(struct journal *j, const void *body, size_t len)
{
	(void)j;
	if (fake.journal_says != IM_OK)
		return fake.journal_says;
	if (fake.record)
		im__bus__record__free_unpacked(fake.record, NULL);
	fake.record = im__bus__record__unpack(NULL, len, body);
	fake.n_records++;
	return IM_OK;
}

const char *journal_why(const struct journal *j)
{
	(void)j;
	return "the test says so";
}

void journal_set_limit(struct journal *j, uint64_t bytes)
{
	(void)j, (void)bytes;
}

/* ---- link.h ---- */

void link_session(struct link *l, const struct session *s)
{
	(void)l, (void)s;
	fake.n_sessions++;
}

void link_resumed(struct link *l, struct session *s, size_t len)
{
	(void)l, (void)s;
	fake.resumed += len;
}

void link_closed(struct link *l, uint64_t handle)
{
	(void)l;
	fake.n_closed++;
	fake.last_closed = handle;
}

void link_service(struct link *l, const char *client_id, bool up)
{
	(void)l, (void)client_id;
	fake.link_up = up;
}

bool link_is_up(const struct link *l)
{
	(void)l;
	return fake.link_up;
}

void link_signal(struct link *l, const struct session *from, const char *conv, size_t conv_len, const void *payload, size_t len)
{
	(void)l, (void)from, (void)conv, (void)conv_len, (void)payload, (void)len;
	fake.n_signals++;
}

void link_frame(struct link *l, const void *frame, size_t len)
{
	(void)l, (void)frame, (void)len;
	fake.n_frames++;
}

bool link_control(struct link *l, const struct session *asker, const void *json, size_t len)
{
	(void)l, (void)asker, (void)json, (void)len;
	fake.n_control++;
	return !fake.link_full;
}

void link_stats(const struct link *l, struct link_stats *out)
{
	(void)l;
	memset(out, 0, sizeof(*out));
}

uint64_t journal_epoch(const struct journal *j)
{
	(void)j;
	return 7;
}

uint64_t journal_end(const struct journal *j)
{
	(void)j;
	return 77;
}

uint64_t journal_bytes(const struct journal *j)
{
	(void)j;
	return 0;
}

/* ---- the plugin ---- */

static uint64_t version;

static void apply(Im__Bus__RosterItem *item)
{
	item->version = ++version;
	if (roster_apply(fake.p.roster, item) != IM_OK)
		abort();
}

void fake_user(const char *name, const char *password, bool disabled)
{
	Im__Bus__User u = IM__BUS__USER__INIT;
	Im__Bus__RosterItem item = IM__BUS__ROSTER_ITEM__INIT;

	u.name = (char *)name;
	u.password = (char *)(password ? password : "");
	u.disabled = disabled;
	item.user = &u;
	apply(&item);
}

void fake_token(const char *user, const char *token, int64_t expires_ms)
{
	uint8_t hash[32];
	Im__Bus__Token t = IM__BUS__TOKEN__INIT;
	Im__Bus__Token *list[1] = { &t };
	Im__Bus__User u = IM__BUS__USER__INIT;
	Im__Bus__RosterItem item = IM__BUS__ROSTER_ITEM__INIT;

	crypto_generichash(hash, sizeof(hash), (const uint8_t *)token, strlen(token), NULL, 0);
	t.id = (char *)"t1";
	t.hash.data = hash;
	t.hash.len = sizeof(hash);
	t.expires_ms = expires_ms;
	u.name = (char *)user;
	u.tokens = list;
	u.n_tokens = 1;
	item.user = &u;
	apply(&item);
}

static void fake_group(void)
{
	Im__Bus__Group g = IM__BUS__GROUP__INIT;
	Im__Bus__Member m = IM__BUS__MEMBER__INIT;
	Im__Bus__RosterItem item = IM__BUS__ROSTER_ITEM__INIT;

	g.name = (char *)"friends";
	g.owner = (char *)"alice";
	item.group = &g;
	apply(&item);
	item.group = NULL;
	m.group = g.name;
	m.user = (char *)"alice";
	m.role = (char *)"owner";
	m.from_seq = 1;
	item.member = &m;
	apply(&item);
	m.user = (char *)"bob";
	m.role = (char *)"member";
	apply(&item);
}

void fake_start(void)
{
	Im__Bus__Block b = IM__BUS__BLOCK__INIT;
	Im__Bus__RosterItem item = IM__BUS__ROSTER_ITEM__INIT;
	struct im_settings *s = &fake.p.settings;
	char secret[65];

	memset(&fake, 0, sizeof(fake));
	version = 0;
	snprintf(fake.dir, sizeof(fake.dir), "/tmp/im-test-XXXXXX");
	if (!mkdtemp(fake.dir))
		abort();
	s->max_message = 1000;
	s->rate_refusals = 5;
	s->filters = 3;
	s->login_burst = 2;
	s->login_interval_ms = 1000000;
	s->login_tries = 5;
	s->jwt_keys = s->jwt_issuer = s->jwt_audience = (char *)"";
	s->jwt_user_claim = (char *)"sub";
	s->jwt_need_expiry = true;
	s->jwt_max_bytes = 8192;
	s->allow_anonymous = true;
	s->admins = (char *)"bob, root";
	memset(secret, 'a', 64);
	secret[64] = '\0';
	fake.p.roster = roster_create();
	fake.p.limits = limits_create();
	fake.p.auth = auth_create(secret);
	fake.p.refusals = refusals_create();
	fake.p.sealing = sealing_create(s);
	im_arena_init(&fake.p.arena);
	im_buf_init(&fake.p.record);
	if (session_table_create(fake.dir, 7, &fake.p.sessions, NULL) != IM_OK)
		abort();
	fake_user("alice", NULL, false);
	fake_user("bob", NULL, false);
	fake_user("carol", NULL, true);
	fake_user("dave", NULL, false);
	fake_group();
	b.user = (char *)"dave";
	b.blocked = (char *)"alice";
	item.block = &b;
	apply(&item);
}

static void close_limit(void *arg, struct session *s)
{
	(void)arg;
	limit_close(s->limit);
}

void fake_stop(void)
{
	char path[100];

	if (fake.record)
		im__bus__record__free_unpacked(fake.record, NULL);
	session_each(fake.p.sessions, close_limit, NULL);
	session_table_destroy(fake.p.sessions);
	refusals_destroy(fake.p.refusals);
	sealing_destroy(fake.p.sealing);
	limits_destroy(fake.p.limits);
	auth_destroy(fake.p.auth);
	roster_destroy(fake.p.roster);
	im_buf_finish(&fake.p.record);
	im_arena_finish(&fake.p.arena);
	snprintf(path, sizeof(path), "%s/sessions", fake.dir);
	unlink(path);
	rmdir(fake.dir);
}

const struct mosquitto *fake_ctx(struct fake_context *x, const char *user, const char *client_id, unsigned protocol, bool clean)
{
	memset(x, 0, sizeof(*x));
	x->c = (struct broker_client){ .id = client_id, .user = user, .address = "127.0.0.1", .protocol = protocol, .clean = clean,
				       .keepalive_s = 60 };
	return (const struct mosquitto *)(const void *)x;
}

struct session *fake_open(struct fake_context *x)
{
	struct session *s = session_open(fake.p.sessions, (const struct mosquitto *)(const void *)x, &x->c, false);

	s->limit = limit_open(fake.p.limits, s->user);
	return s;
}
