"""Breaks of the code, each of a promise of its own: what is edited, which run reaches it, what the checker must say.

Text is replaced in a copy of the tree and nowhere else; a place that is not there exactly once stops the test. Where the
code has more than one line of defence, all of them are taken away, and `edits` shows how many there are.
"""
import collections

# edits: [(file, text, what takes its place)]; schedule: options of chaos.py; must: this verdict; may: others that the same break explains
Sabotage = collections.namedtuple("Sabotage", "what edits schedule must may")

ACK_BEFORE_WRITE = """\
static char *late;
static size_t late_len;
static int64_t late_us;

static void write_late(struct journal *j, int64_t now_us)
{
	if (late)
		(void)append(j, late, late_len, now_us);
	free(late);
	late = NULL;
}

static enum im_status append_late(struct journal *j, const void *body, size_t len, int64_t now_us)
{
	write_late(j, now_us);
	late = malloc(len + 1);
	if (!late)
		return IM_BUSY;
	memcpy(late, body, len);
	late_len = len;
	late_us = now_us;
	return IM_OK;
}

enum im_status journal_append("""

MARK_BEFORE_COMMIT = """\
static void on_marked(void *arg, enum im_status st)
{
	struct batch *b = arg;

	if (st != IM_OK)
		on_append(arg, st);
	else
		store_append(b->in->store, b->entries, b->n_entries, on_append, b);
}

static void append(struct inbox *in, struct batch *b)
{
	struct store_entry mark = { .kind = STORE_POSITION, .pos = { b->node, b->post ? 0 : b->epoch, b->slice_next } };
"""

SEEN = """\
static bool seen(const struct publish *b)
{
	static uint64_t table[1u << 18];
	const char *parts[] = { b->s->user, b->s->client_id, b->rec.id };
	uint64_t h = 1469598103934665603u, *slot;

	for (size_t i = 0; i < 3; i++)
		for (const char *p = parts[i]; ; p++) {
			h = (h ^ (uint8_t)*p) * 1099511628211u;
			if (!*p)
				break;
		}
	slot = &table[h & ((1u << 18) - 1)];
	if (*slot == h)
		return true;
	*slot = h;
	return false;
}

static enum route_verdict route_ours(struct publish *b)
{"""

SABOTAGES = {
    "ack-before-write": Sabotage(
        "the journal says yes and writes the record a moment later",
        [("plugin/journal.c", "enum im_status journal_append(", ACK_BEFORE_WRITE),
         ("plugin/journal.c", "enum im_status st = append(j, body, len, now_us);", "enum im_status st = append_late(j, body, len, now_us);"),
         ("plugin/journal.c", "\tnote_accepting(j);\n", "\tnote_accepting(j);\n\tif (late && im_clock_mono_us() - late_us > 20000)\n"
                                                         "\t\twrite_late(j, im_clock_mono_us());\n")],
        ("--faults", "kill"), "LOST", {"CURSOR"}),  # an im/v1/ack is lost as well
    "ack-despite-error": Sabotage(
        "what the journal could not write is acknowledged all the same",
        [("plugin/route.c", "\tst = append(b, &b->rec);\n\tif (st == IM_OK)\n\t\treturn ROUTE_SWALLOW;\n\tif (st == IM_BAD_INPUT) {",
          "\tst = append(b, &b->rec);\n\tif (st == IM_OK || st == IM_FAILED)\n\t\treturn ROUTE_SWALLOW;\n\tif (st == IM_BAD_INPUT) {")],
        ("--faults", "kill,disk"), "LOST", {"CURSOR"}),
    "dedupe-off": Sabotage(
        "a message id that was there before is not looked for",
        [("services/offline/decision.c", "\tif (found)\n\t\tst = decide_repeat(", "\tif (found && b->post)\n\t\tst = decide_repeat(")],
        ("--faults", "kill,connections"), "DUP-STORE", set()),
    "sequence-reused": Sabotage(
        "after a restart each conversation gives its last sequence again, and nothing behind that looks",
        [("services/offline/decision.c", "b->convs[i].conv, b->convs[i].last_seq)", "b->convs[i].conv, b->convs[i].last_seq - (b->convs[i].last_seq > 0))"),
         ("services/offline/store_tail.c", "\tif (m->seq <= e->message.conv->given)\n\t\treturn check_repeat(t, e);\n",
          "\tif (m->seq <= e->message.conv->given && check_repeat(t, e) == IM_EXISTS)\n\t\treturn IM_EXISTS;\n"),
         ("services/offline/store_db.c", "CREATE UNIQUE INDEX message_seq", "CREATE INDEX message_seq"),
         ("services/offline/store_db.c", "VALUES(?1, ?2, ?3) ON CONFLICT(conv, seq) DO NOTHING", "VALUES(?1, ?2, ?3)")],
        # Whoever names a place that two have means one of them; an ack of the highest is one too many for the counter; a page of
        # history that ends between the two shows one.
        ("--faults", "kill"), "DUP-STORE", {"FALSE-ACK", "CORRUPT", "DUP-DELIVERY", "CURSOR", "LOST", "DRIFT"}),
    "mark-before-commit": Sabotage(
        "the journal's position is marked as done in a commit of its own, before what came from there",
        [("services/offline/inbox.c", "static void append(struct inbox *in, struct batch *b)\n{\n", MARK_BEFORE_COMMIT),
         ("services/offline/inbox.c", "store_append(in->store, b->entries, b->n_entries, on_append, b);",
          "store_append(in->store, &mark, 1, on_marked, b);")],
        ("--faults", "kill"), "LOST", {"DRIFT", "CURSOR"}),  # the journal still has what is lost
    "retry-without-id": Sabotage(
        "after a restart the service does not know by their positions what it has stored, and takes the journal's repeats as new",
        [("services/offline/inbox.c", "if (start->high_water[i].node == 0)", "if (start->high_water[i].next > 0)")],
        ("--faults", "kill"), "DUP-STORE", set()),
    "skip-repeats": Sabotage(
        "what comes a second time is acknowledged and dropped as known, without asking what became of the first (as EMQX takes DUP)",
        [("plugin/route.c", "static enum route_verdict route_ours(struct publish *b)\n{", SEEN),
         ("plugin/route.c", "\tst = append(b, &b->rec);\n\tif (st == IM_OK)\n\t\treturn ROUTE_SWALLOW;\n\tif (st == IM_BAD_INPUT) {",
          "\tif (b->rec.kind == IM__BUS__KIND__KIND_SEND && b->rec.id[0] && seen(b))\n\t\treturn ROUTE_SWALLOW;\n"
          "\tst = append(b, &b->rec);\n\tif (st == IM_OK)\n\t\treturn ROUTE_SWALLOW;\n\tif (st == IM_BAD_INPUT) {")],
        ("--faults", "kill,disk"), "LOST", set()),  # a first try that the journal could not take
    "delivered-when-handed": Sabotage(
        "when a connection ends, a device has got all that was handed to the broker for it",
        [("services/offline/device.c", "\t\t\tdue_plan(d, &dev->readers[i]->due, DUE_READER, 0);\n\tdev->session = NULL;",
          "\t\t{\n\t\t\tdue_plan(d, &dev->readers[i]->due, DUE_READER, 0);\n\t\t\tdev->readers[i]->cursor.delivered = dev->readers[i]->cursor.handed;\n"
          "\t\t\treader_moved(d, dev->readers[i]);\n\t\t}\n\tdev->session = NULL;")],
        # what was passed over comes late if the service dies before it has stored that
        ("--faults", "kill,connections,net"), "UNDELIVERED", {"REORDER-DELIVERY"}),
    "settles-at-once": Sabotage(
        "a device that acks nothing has got what was handed over for it a millisecond ago, if its connection was up then",
        [("services/offline/cursor.c", "\treturn ms < SETTLE_LEAST_MS ? SETTLE_LEAST_MS : ms;", "\treturn ms != 0;"),
         ("services/offline/cursor.c", "\t\treturn SETTLE_NO_KEEPALIVE_MS;", "\t\treturn 1;")],
        ("--faults", "net,connections"), "UNDELIVERED", {"REORDER-DELIVERY"}),
}
