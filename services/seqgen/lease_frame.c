#include "lease_frame.h"

#include <stdlib.h>

/* What a request needs; it is there before anything is granted. */
struct room {
	struct seq_lease *asked, *granted;
	Im__Bus__Lease *rows, **list;
};

static bool room_init(struct room *room, size_t n)
{
	*room = (struct room){
		.asked = calloc(n + 1, sizeof(*room->asked)),
		.granted = calloc(n + 1, sizeof(*room->granted)),
		.rows = calloc(n + 1, sizeof(*room->rows)),
		.list = calloc(n + 1, sizeof(*room->list)),
	};
	return room->asked && room->granted && room->rows && room->list;
}

static void room_finish(struct room *room)
{
	free(room->asked);
	free(room->granted);
	free(room->rows);
	free(room->list);
}

static enum im_status encode(const Im__Bus__LeaseRequest *r, struct room *room, size_t n, struct im_err *why, struct lease_frame *out)
{
	Im__Bus__LeaseAnswer a = IM__BUS__LEASE_ANSWER__INIT;
	size_t len;

	for (size_t i = 0; i < n; i++) {
		im__bus__lease__init(&room->rows[i]);
		room->rows[i].section = room->granted[i].section;
		room->rows[i].epoch = room->granted[i].epoch;
		room->rows[i].ceiling = room->granted[i].ceiling;
		room->rows[i].complete = room->granted[i].complete;
		room->rows[i].floor = room->granted[i].floor;
		room->list[i] = &room->rows[i];
	}
	a.id = r->id;
	a.leases = room->list;
	a.n_leases = n;
	a.error = why->text;
	len = im__bus__lease_answer__get_packed_size(&a);
	out->data = malloc(len + 1);
	if (!out->data)
		return im_fail(why, IM_FAILED, "out of memory");
	out->len = im__bus__lease_answer__pack(&a, out->data);
	out->granted = n;
	return IM_OK;
}

enum im_status lease_frame_serve(struct seqgen *g, const Im__Bus__LeaseRequest *r, struct lease_frame *out, struct im_err *err)
{
	struct room room;
	enum im_status st;
	size_t n = 0;

	err->text[0] = '\0';
	if (!room_init(&room, r->n_leases)) {
		st = im_fail(err, IM_FAILED, "out of memory");
		goto out;
	}
	for (size_t i = 0; i < r->n_leases; i++) {
		const Im__Bus__Lease *l = r->leases[i];

		room.asked[i] = (struct seq_lease){.section = l->section, .epoch = l->epoch, .ceiling = l->ceiling};
	}
	st = seqgen_lease(g, r->owner, room.asked, r->n_leases, room.granted, &n, err);
	if (st != IM_FAILED && encode(r, &room, n, err, out) != IM_OK)
		st = IM_FAILED;
out:
	room_finish(&room);
	return st;
}
