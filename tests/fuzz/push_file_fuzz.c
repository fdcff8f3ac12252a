/*
 * What a push bridge reads that others wrote, besides answers: its apps' files, a service account, codes, a browser's subscription and
 * the address it leads to, jobs of a bus frame that go through the outbox, and the text of a notification. The first byte chooses.
 */
#include "fuzz.h"
#include "input.h"

#include "apns-bridge/apns.h"
#include "apns-bridge/payload.h"
#include "base/log.h"
#include "fcm-bridge/account.h"
#include "fcm-bridge/fcm.h"
#include "fcm-bridge/message.h"
#include "io/http.h"
#include "push/job.h"
#include "push/jose.h"
#include "push/outbox_db.h"
#include "vendor-bridge/codes.h"
#include "vendor-bridge/vendor.h"
#include "webpush-bridge/encrypt.h"
#include "webpush-bridge/webpush.h"
#include <arpa/inet.h>
#include <jansson.h>
#include <netinet/in.h>
#include <sodium.h>
#include <sqlite3.h>
#include <string.h>

#define NOW_MS 1800000000000
#define JOBS_MAX 16

static const char *const providers[] = { "fcm", "apns", "webpush", "huawei", "harmony", "xiaomi", "oppo", "vivo", "honor" };
#define PROVIDERS (sizeof(providers) / sizeof(providers[0]))

static void driver_of(size_t i, struct push_driver *out)
{
	static const struct push_driver *const own[] = { &fcm_driver, &apns_driver, &webpush_driver };

	if (i < 3)
		*out = *own[i];
	else
		must(vendor_driver(providers[i], out));
}

/* ---- files of the apps */

/* What each app's file may name is there: a secret and a file of the rest of the input. */
static void put_app(const char *provider, const void *conf, size_t conf_len, const void *file, size_t len)
{
	char name[64];

	folder_clear();
	(void)snprintf(name, sizeof(name), "%s.app.conf", provider);
	folder_put(name, conf, conf_len);
	folder_put("file", file, len);
}

static void app_file(struct input *in)
{
	size_t which = input_byte(in) % PROVIDERS, n = 0, len;
	struct push_driver d;
	struct push_app **apps = NULL;
	struct im_err err = { "" };
	const uint8_t *conf;

	driver_of(which, &d);
	len = input_bytes(in, &conf);
	put_app(providers[which], conf, len, in->data, in->size);
	if (push_apps_read(folder(), d.provider, d.keys, &apps, &n, &err) != IM_OK) {
		must(err.text[0]);
		return;
	}
	must(n == 1 && strcmp(push_app_name(apps[0]), "app") == 0);
	for (const struct push_key *k = d.keys; k->name; k++) {
		must(!k->required || push_app_text(apps[0], k->name)[0]);
		if (k->type == PUSH_KEY_NUMBER && push_app_has(apps[0], k->name))
			must(push_app_number(apps[0], k->name) >= k->min && push_app_number(apps[0], k->name) <= k->max);
	}
	push_apps_wipe(apps, n);
	push_apps_free(apps, n);
}

static void service_account(struct input *in)
{
	static const char conf[] = "service_account_file file\n";
	struct push_app **apps = NULL;
	struct account *a = NULL;
	struct im_err err = { "" };
	struct push_request r;
	size_t n = 0;

	put_app("fcm", conf, sizeof(conf) - 1, in->data, in->size);
	if (push_apps_read(folder(), "fcm", fcm_driver.keys, &apps, &n, &err) != IM_OK)
		return; /* too large */
	if (account_create(apps[0], &a, &err) == IM_OK) {
		must(account_project(a)[0] && !strpbrk(account_project(a), "/?#%\r\n ")); /* it goes into a path */
		push_request_init(&r);
		account_request(a, NOW_MS, &r);
		push_request_finish(&r);
		account_destroy(a);
	} else {
		must(err.text[0]);
	}
	push_apps_free(apps, n);
}

static void codes_file(struct input *in)
{
	const char *provider = providers[3 + input_byte(in) % (PROVIDERS - 3)];
	enum push_class class = PUSH_ACCEPTED;
	struct codes *c = NULL;
	struct im_err err = { "" };

	if (codes_read(provider, (const char *)in->data, in->size, &c, &err) != IM_OK) {
		must(err.text[0]);
		return;
	}
	(void)codes_find(c, "0", &class);
	must(class <= PUSH_BUG);
	codes_free(c);
}

/* ---- where a subscription leads */

/* The special ranges once more, as RFC 6890 writes them. */
static bool is_special(const char *text)
{
	static const char *const prefixes[] = { "0.", "10.", "127.", "169.254.", "192.0.0.", "192.0.2.", "192.88.99.", "192.168.", "198.18.", "198.19.",
						"198.51.100.", "203.0.113." };
	unsigned a = 0, b = 0;

	for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++)
		if (strncmp(text, prefixes[i], strlen(prefixes[i])) == 0)
			return true;
	must(sscanf(text, "%u.%u", &a, &b) == 2);
	return a >= 224 || (a == 100 && b >= 64 && b < 128) || (a == 172 && b >= 16 && b < 32);
}

static void address(struct input *in)
{
	struct sockaddr_in6 six = { .sin6_family = AF_INET6 };
	struct sockaddr_in four = { .sin_family = AF_INET };
	char text[INET_ADDRSTRLEN];
	const uint8_t *bytes;
	size_t len = input_some(in, 16, &bytes);
	bool public;

	memcpy(&four.sin_addr, bytes, len < 4 ? len : 4);
	must(inet_ntop(AF_INET, &four.sin_addr, text, sizeof(text)));
	public = im_http_is_public((const struct sockaddr *)&four);
	must(public == !is_special(text));
	memcpy(&six.sin6_addr, bytes, len);
	must(!im_http_is_public((const struct sockaddr *)&six) || (six.sin6_addr.s6_addr[0] & 0xe0) == 0x20);
	memset(&six.sin6_addr, 0, sizeof(six.sin6_addr)); /* ::ffff:a.b.c.d, and 6to4 of the same */
	memset(six.sin6_addr.s6_addr + 10, 0xff, 2);
	memcpy(six.sin6_addr.s6_addr + 12, &four.sin_addr, 4);
	must(!im_http_is_public((const struct sockaddr *)&six));
	memset(&six.sin6_addr, 0, sizeof(six.sin6_addr));
	memcpy(six.sin6_addr.s6_addr, "\x20\x02", 2);
	memcpy(six.sin6_addr.s6_addr + 2, &four.sin_addr, 4);
	must(im_http_is_public((const struct sockaddr *)&six) == public);
}

static void subscription(const Im__Push__Token *t)
{
	uint8_t point[WEBPUSH_POINT], auth[WEBPUSH_AUTH], body[WEBPUSH_BODY_MAX];
	size_t n = 0, m = 0, len = 0;

	for (size_t i = 0; i < PROVIDERS; i++)
		(void)push_token_problem(providers[i], t);
	if (push_token_problem("webpush", t))
		return;
	must(strncmp(t->token, "https://", 8) == 0 && strlen(t->token) <= 2048);
	must(push_base64url_read(t->p256dh, point, sizeof(point), &n) && n == sizeof(point));
	must(push_base64url_read(t->auth, auth, sizeof(auth), &m) && m == sizeof(auth));
	must(webpush_encrypt(point, auth, "text", 4, 512, NULL, body, &len) && len <= WEBPUSH_BODY_MAX);
}

/* ---- jobs, there and back */

static size_t read_jobs(struct input *in, struct push_job *jobs[JOBS_MAX])
{
	size_t n = 0, len;
	const uint8_t *bytes;

	while (in->size && n < JOBS_MAX) {
		Im__Push__Job *m;

		len = input_bytes(in, &bytes);
		m = im__push__job__unpack(NULL, len, bytes);
		if (m && !push_job_problem(m))
			must((jobs[n++] = push_job_create(m, 60000)));
		if (m)
			im__push__job__free_unpacked(m, NULL);
	}
	return n;
}

static void same(const struct push_job *a, const struct push_job *b)
{
	must(strcmp(a->key, b->key) == 0 && strcmp(a->user, b->user) == 0 && strcmp(a->device, b->device) == 0);
	must(strcmp(a->app, b->app) == 0 && strcmp(a->conv, b->conv) == 0);
	must(a->seq == b->seq && a->kind == b->kind && a->mention == b->mention);
	must(a->created_ms == b->created_ms && a->not_before_ms == b->not_before_ms);
}

/* An open job for each that got a row, in that order. */
static void check_start(struct outbox_start *s, struct push_job *const *jobs, size_t n)
{
	size_t at = 0;

	for (size_t i = 0; i < n; i++)
		if (jobs[i]->row) {
			must(at < s->n_jobs);
			same(s->jobs[at++], jobs[i]);
		}
	must(at == s->n_jobs);
	while (at)
		push_job_free(s->jobs[--at]);
	outbox_start_free(s);
}

static void outbox(struct input *in)
{
	struct outbox_db *db = NULL;
	struct push_job *jobs[JOBS_MAX];
	struct outbox_start start = {0};
	size_t n = read_jobs(in, jobs);
	struct outbox_op op = { .kind = OUTBOX_INSERT, .jobs = jobs, .n = n };
	struct im_err err;

	must(outbox_db_open(":memory:", &db, &err) == IM_OK);
	must(outbox_db_begin(db) && outbox_db_run(db, &op) && outbox_db_commit(db));
	must(outbox_db_load(db, &start, &err) == IM_OK);
	check_start(&start, jobs, n);
	outbox_db_close(db);
	while (n)
		push_job_free(jobs[--n]);
}

/* ---- what is shown */

static void json_of_apns(const struct push_send *s, bool minimal)
{
	struct payload_spec spec = { .job = s->job, .ticket = s->ticket, .thread = s->thread, .sound = "default", .loc_key = "", .minimal = minimal };
	struct im_buf out;
	json_t *o;

	im_buf_init(&out);
	(void)payload_write(&spec, &out);
	o = json_loadb(out.data, out.len, JSON_REJECT_DUPLICATES, NULL);
	must(out.len <= PAYLOAD_MAX && json_is_object(o));
	json_decref(o);
	im_buf_finish(&out);
}

static void notification(struct input *in)
{
	bool minimal = input_byte(in) & 1;
	const uint8_t *bytes;
	size_t len = input_bytes(in, &bytes);
	Im__Push__Job *job = im__push__job__unpack(NULL, len, bytes);
	Im__Push__Ticket *t = im__push__ticket__unpack(NULL, in->size, in->data);
	struct push_send s = { .row = 1, .attempt = 1, .job = job, .ticket = t, .uuid = "u", .collapse = "c", .thread = "t" };
	const struct fcm_style style = { .notification = minimal, .channel_id = "", .package = "" };

	if (job && t && t->token && !push_job_problem(job)) {
		subscription(t->token);
		json_of_apns(&s, minimal);
		json_decref(fcm_message(&s, &style, minimal, NOW_MS));
		json_decref(vendor_data(&s));
		must(vendor_ttl_s(&s, NOW_MS, 1, 86400) >= 1 && vendor_notify_id(&s) >= 1);
	}
	if (job)
		im__push__job__free_unpacked(job, NULL);
	if (t)
		im__push__ticket__free_unpacked(t, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	Im__Push__Token *t;

	must(sodium_init() >= 0);
	im_log_open("fuzz", IM_LOG_ERROR, NULL);
	switch (input_byte(&in) % 7) {
	case 0: app_file(&in); break;
	case 1: service_account(&in); break;
	case 2: codes_file(&in); break;
	case 3: address(&in); break;
	case 4:
		t = im__push__token__unpack(NULL, in.size, in.data);
		if (t) {
			subscription(t);
			im__push__token__free_unpacked(t, NULL);
		}
		break;
	case 5: outbox(&in); break;
	default: notification(&in); break;
	}
	return 0;
}
