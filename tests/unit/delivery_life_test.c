/*
 * Random lives of six devices: sends, connections that end, takeovers, acks, a full link, and time. A
 * model that only remembers who had what says that nothing is lost and nothing comes out of order. SEED=n: that life alone.
 */
#include "delivery_world.h"

#include "wire/topic.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#define DEVICES 6
#define CONVS 4
#define MOST 1200

struct model_device {
	const char *user, *client_id;
	bool acks;
	uint64_t handle;          /* 0 = offline */
	bool had[CONVS][MOST];    /* received, ever */
	uint64_t at[CONVS];       /* newest received in this session */
};

static struct model_device model[DEVICES] = {
	{ .user = "alice", .client_id = "alice:phone", .acks = true }, { .user = "alice", .client_id = "alice:pad" },
	{ .user = "bob", .client_id = "bob:pc" }, { .user = "bob", .client_id = "bob:tv", .acks = true },
	{ .user = "carol", .client_id = "carol:pc" }, { .user = "carol", .client_id = "whatever" },
};
static const char *const convs[CONVS] = { "u/alice:bob", "u/alice:carol", "u/bob:carol", "g/team" };
static const struct model_device *author[CONVS][MOST];
static size_t looked;
static unsigned ended;

/*
 * A message above all before it in this session must be the next one: nothing visible may be between. But a
 * device's own message shows by its ack, which may come a moment later than what a page brought.
 */
static void model_got(struct model_device *m, int c, uint64_t seq)
{
	assert_true(seq < MOST);
	for (uint64_t s = m->at[c] + 1; s < seq; s++)
		if (!m->had[c][s] && author[c][s] != m)
			fail_msg("%s got %s %llu without %llu", m->client_id, convs[c], (unsigned long long)seq, (unsigned long long)s);
	m->had[c][seq] = true;
	if (m->at[c] < seq)
		m->at[c] = seq;
}

static void model_packet(const struct packet *p)
{
	char canonical[IM_CONV_MAX];

	for (int i = 0; i < DEVICES; i++) {
		struct model_device *m = &model[i];
		json_t *acks, *a;
		size_t k;

		if (m->handle != p->handle)
			continue;
		for (int c = 0; c < CONVS && *p->conv; c++)
			if (im_conv_canonical(m->user, p->conv, canonical) && strcmp(canonical, convs[c]) == 0)
				model_got(m, c, p->seq);
		if (strcmp(p->topic, "im/v1/in/ack") != 0)
			continue;
		acks = json_loads(p->payload, 0, NULL);
		json_array_foreach(acks, k, a)
			for (int c = 0; c < CONVS; c++)
				if (im_conv_canonical(m->user, json_string_value(json_object_get(a, "conv")), canonical) &&
				    strcmp(canonical, convs[c]) == 0)
					m->had[c][json_integer_value(json_object_get(a, "seq"))] = true;
		json_decref(acks);
	}
}

static void model_look(void)
{
	for (; looked < world.n_packets; looked++)
		model_packet(&world.packets[looked]);
}

static void model_disconnect(struct model_device *m)
{
	delivery_closed(world.delivery, m->handle);
	model_look();
	m->handle = 0;
}

static void model_connect(struct model_device *m, uint64_t handle)
{
	m->handle = handle;
	memset(m->at, 0, sizeof m->at);
	world_connect(handle, m->user, m->client_id, IM_CODEC_JSON, "im/v1/in/#");
}

static void model_ack(struct model_device *m)
{
	int c = (int)world_random(CONVS);
	char face[IM_CONV_MAX];
	uint64_t seq = 0;

	if (!m->acks || !m->handle || !im_conv_as_seen(convs[c], m->user, face))
		return;
	while (m->had[c][seq + 1])
		seq++;
	if (seq)
		world_ack(m->user, m->client_id, face, seq, world_random(2) ? seq : 0);
}

static void model_act(uint64_t *handle)
{
	struct model_device *m = &model[world_random(DEVICES)];
	int c = (int)world_random(CONVS);
	char face[IM_CONV_MAX];

	world_pass_ms(world_random(2));
	switch (world_random(24)) {
	case 0:
		if (m->handle && world_random(3) == 0)
			model_disconnect(m);
		else if (!m->handle || world_random(6) == 0)
			model_connect(m, ++*handle); /* sometimes a takeover */
		break;
	case 1:
		while (world_tell())
			; /* durable and untold is a matter of milliseconds, not of settle periods */
		world_pass_ms(world_random(40) ? world_random(2000) : 100000);
		break;
	case 2:
	case 3:
		model_ack(m);
		break;
	case 4:
		world.pending = world_random(4) == 0 ? LINK_CATCHUP + 1 : 0;
		delivery_resume(world.delivery);
		break;
	case 5: case 6: case 7: case 8: case 9: case 10:
		(void)world_tell();
		break;
	case 11: case 12: case 13: case 14:
		if (world_newest(convs[c]) < MOST - 2 && im_conv_as_seen(convs[c], m->user, face))
			for (unsigned n = world_random(30) ? 1 : 120; n && world_newest(convs[c]) < MOST - 2; n--)
				author[c][world_store(convs[c], m->user, m->client_id, m->handle, "text")] = m;
		break;
	default:
		(void)world_step();
	}
	model_look();
}

static void one_life(unsigned seed)
{
	uint64_t handle = 0;
	char face[IM_CONV_MAX];

	world_create(seed);
	looked = 0;
	for (int i = 0; i < DEVICES; i++) {
		memset(model[i].had, 0, sizeof model[i].had);
		model[i].handle = 0;
	}
	world.settings.ack_window = 20;
	world.settings.silent_messages = seed % 3 ? 200000 : 400;
	world_user("alice");
	world_user("bob");
	world_user("carol");
	world_member("team", "alice", 1, 0);
	world_member("team", "bob", 1, 0);
	world_member("team", "carol", 1, 0);
	/* Everybody comes once at the beginning: a later first time would start elsewhere. */
	for (int i = 0; i < DEVICES; i++)
		model_connect(&model[i], ++handle);
	world_settle();
	for (int i = 0; i < 6000; i++)
		model_act(&handle);
	world.pending = 0;
	for (int i = 0; i < DEVICES; i++)
		if (!model[i].handle)
			model_connect(&model[i], ++handle);
	for (int i = 0; i < 400; i++) {
		delivery_resume(world.delivery);
		world_settle();
		model_look();
		for (int j = 0; j < DEVICES * CONVS * 2; j++)
			model_ack(&model[j % DEVICES]);
		if (i % 4 == 0)
			world_pass_ms(100000);
	}
	for (int i = 0; i < DEVICES; i++)
		for (int c = 0; c < CONVS; c++)
			for (uint64_t s = 1; im_conv_as_seen(convs[c], model[i].user, face) && s <= world_newest(convs[c]); s++)
				if (!model[i].had[c][s])
					fail_msg("%s never got %s %llu", model[i].client_id, convs[c], (unsigned long long)s);
	world_destroy();
	ended++;
}

static void random_lives_lose_nothing_and_keep_order(void **state)
{
	const char *env = getenv("SEED");
	unsigned seed = env ? (unsigned)atoi(env) : 1, lives = env ? 1 : 6;

	(void)state;
	for (unsigned i = 0; i < lives; i++) {
		print_message("seed %u\n", seed + i);
		one_life(seed + i);
	}
	assert_int_equal(ended, lives);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_lives_lose_nothing_and_keep_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
