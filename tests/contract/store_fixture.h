/* A store, a loop, and questions that wait for their answer. */
#ifndef TESTS_STORE_FIXTURE_H
#define TESTS_STORE_FIXTURE_H

#include "io/loop.h"
#include "store.h"

struct fixture {
	const char *driver;      /* "sqlite", "memory" */
	char dir[64];
	struct im_loop *loop;
	struct store *store;
	struct im_settings settings;
	uint64_t next;           /* position of the next message's journal record */
	bool own;                /* messages are the service's own, from no journal */
};

void fixture_open(struct fixture *f, const char *driver); /* a new store in a new folder */
void fixture_close(struct fixture *f);                    /* closes and removes it */
void fixture_reopen(struct fixture *f);
enum im_status fixture_try_open(struct fixture *f, struct im_err *err);

struct message *make_message(struct fixture *f, const char *conv, uint64_t seq, const char *from, const char *id, const char *body);
enum im_status append_message(struct fixture *f, struct message *m); /* takes over the reference */
enum im_status append_entry(struct fixture *f, const struct store_entry *e);
enum im_status append_text(struct fixture *f, const char *conv, uint64_t seq, const char *from, const char *id);

struct seqs {
	uint64_t list[1100];
	char msgid[1100][IM_MSGID_LEN + 1];
	size_t n;
};
enum im_status history(struct fixture *f, const struct store_range *r, struct seqs *out);
uint64_t last_seq(struct fixture *f, const char *conv);
struct message *find_id(struct fixture *f, const char *user, const char *id); /* client id {user}:pc */
unsigned unread(struct fixture *f, const char *user, const char *conv, uint64_t read);

struct conversations {
	struct store_conversation list[64];
	char names[64][IM_CONV_MAX];
	size_t n;
};
void conversations(struct fixture *f, const char *user, struct conversations *out);
const struct store_conversation *conversation(const struct conversations *c, const char *conv); /* NULL: none */

struct device_view {
	unsigned devices, cursors, refusals;
	struct store_device device;
	struct store_cursor cursor[16];
	char convs[16][IM_CONV_MAX];
	uint64_t refusal[16];
};
void device(struct fixture *f, const char *user, const char *client_id, struct device_view *out);
unsigned devices(struct fixture *f, const char *user);

/* Runs the loop until *left is 0, at most ten seconds. */
void run_until_zero(struct fixture *f, unsigned *left);

#endif
