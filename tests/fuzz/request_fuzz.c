/*
 * What clients and admins may ask (im/v1/req, $CONTROL/im/v1), with any bytes as arguments: each is answered exactly
 * once, with JSON, in less than 64 KiB. The input is a list: what is asked and by whom, then its body behind its length.
 */
#include "fuzz.h"
#include "input.h"

#include "../unit/fake_offline.h"
#include "base/log.h"
#include <string.h>

enum { ASKED_MAX = 6 };

static void quiet(enum im_log_level level, const char *line)
{
	(void)level, (void)line;
}

static void control(const char *json, size_t len)
{
	Im__Bus__Control c = IM__BUS__CONTROL__INIT;
	unsigned before = fake.responses;

	c.session = 77;
	c.client_id = (char *)"$im-ctl-1";
	c.json.data = (uint8_t *)(uintptr_t)json;
	c.json.len = len;
	request_control(fake.request, &c);
	(void)fake_wait(before + 1);
	must(fake.responses == before + 1);
}

static void ask(struct input *in, unsigned how)
{
	static const char *const methods[] = {"history", "sync", "conversations", "groups", "members", "device.set", "server", "me", "user.add", ""};
	static const char *const users[] = {"alice", "bob", "carol", "mallory"};
	Im__Bus__Record r = IM__BUS__RECORD__INIT;
	unsigned before = fake.responses;
	const uint8_t *args;
	char id[16];

	r.args.len = input_bytes(in, &args);
	r.args.data = (uint8_t *)(uintptr_t)args;
	r.kind = IM__BUS__KIND__KIND_REQUEST;
	r.user = (char *)(uintptr_t)users[how / 10 % 4];
	r.client_id = (char *)"x";
	r.session = 5;
	(void)snprintf(id, sizeof(id), "r%u", how & 64 ? 0 : before); /* the same once more: the first answer again */
	r.id = id;
	r.method = (char *)(uintptr_t)methods[how % 10];
	request_record(fake.request, &r);
	(void)fake_wait(before + 1);
	must(fake.responses == before + 1);
	must(fake.response_bytes <= 65536 + 4096);
}

static void start(void)
{
	static const char setting[] = "{\"commands\":[{\"command\":\"user.add\",\"user\":\"alice\"},{\"command\":\"user.add\",\"user\":\"bob\"},"
				      "{\"command\":\"group.create\",\"group\":\"friends\",\"owner\":\"alice\"}]}";

	im_log_open("request_fuzz", IM_LOG_ERROR, quiet);
	fake_start();
	control(setting, sizeof(setting) - 1);
	fake_say("u/alice:bob", "alice", 10);
	fake_say("g/friends", "alice", 3000);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};

	start();
	for (unsigned n = 0; n < ASKED_MAX && in.size > 0; n++) {
		unsigned how = input_byte(&in);
		const uint8_t *bytes;

		if (how < 128) {
			ask(&in, how);
		} else {
			size_t len = input_bytes(&in, &bytes);

			control((const char *)bytes, len);
		}
	}
	fake_stop();
	return 0;
}
