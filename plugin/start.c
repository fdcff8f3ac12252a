/*
 * Starting, reloading and stopping. Everything is made in the order in which the parts need one another and
 * freed in reverse; plugin_stop takes half-built plugins. The broker opens its listeners only after init, so
 * the bus secret is in place before a service can ask for it.
 */
#include "acl.h"
#include "base/clock.h"
#include "base/log.h"
#include "plugin.h"
#include "why.h"
#include "wire/name.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uthash.h>

#define PROBLEMS_MAX 64          /* shown at once; the rest is counted */
#define SWEEP_US 10000000

/* ---- settings ---- */

static enum im_status read_settings(const char *path, struct im_settings *out)
{
	struct im_conf_problem *problems = calloc(PROBLEMS_MAX, sizeof(*problems));
	enum im_status st;
	size_t n = 0;

	if (!problems)
		return IM_FAILED;
	st = im_settings_read(path, out, problems, PROBLEMS_MAX, &n);
	for (size_t i = 0; i < n && i < PROBLEMS_MAX; i++)
		im_log(problems[i].fatal ? IM_LOG_ERROR : IM_LOG_WARNING, "%s", problems[i].text);
	if (n > PROBLEMS_MAX)
		im_log(IM_LOG_WARNING, "evt=settings more=%zu problems not shown", n - PROBLEMS_MAX);
	free(problems);
	return st;
}

/* ---- files ---- */

static enum im_status make_dir(const char *path, struct im_err *err)
{
	if (mkdir(path, 0700) != 0 && errno != EEXIST)
		return im_fail(err, IM_FAILED, "cannot make %.180s: %s", path, strerror(errno));
	if (access(path, R_OK | W_OK | X_OK) != 0)
		return im_fail(err, IM_FAILED, "cannot write in %.180s: %s", path, strerror(errno));
	return IM_OK;
}

static enum im_status write_secret_file(const char *path, const char *path_new, const char *secret, struct im_err *err)
{
	int fd;
	bool ok;

	(void)unlink(path_new); /* left by a crash, if at all */
	fd = open(path_new, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return im_fail(err, IM_FAILED, "cannot write %.180s: %s", path_new, strerror(errno));
	ok = write(fd, secret, 64) == 64;
	ok = close(fd) == 0 && ok;
	if (!ok || rename(path_new, path) != 0)
		return im_fail(err, IM_FAILED, "cannot write %.180s: %s", path, strerror(errno));
	return IM_OK;
}

static enum im_status write_secret(const char *dir, char secret[65], struct im_err *err)
{
	uint8_t bytes[32];
	char *path = NULL, *path_new = NULL;
	enum im_status st;

	randombytes_buf(bytes, sizeof(bytes));
	(void)sodium_bin2hex(secret, 65, bytes, sizeof(bytes)); /* 64 digits and a NUL */
	if (asprintf(&path, "%s/run/bus.secret", dir) < 0)
		path = NULL;
	if (asprintf(&path_new, "%s/run/bus.secret.new", dir) < 0)
		path_new = NULL;
	st = path && path_new ? write_secret_file(path, path_new, secret, err) : im_fail(err, IM_FAILED, "out of memory");
	free(path);
	free(path_new);
	return st;
}

static enum im_status make_dirs(const char *dir, struct im_err *err)
{
	char *run;
	enum im_status st = make_dir(dir, err);

	if (st != IM_OK)
		return st;
	if (asprintf(&run, "%s/run", dir) < 0)
		return im_fail(err, IM_FAILED, "out of memory");
	st = make_dir(run, err);
	free(run);
	return st;
}

/* ---- start and stop ---- */

/*
 * Cached verdicts are keyed by the user's version, so a change makes them void. Sessions are looked through once
 * in a turn, not once for each user, since a snapshot brings all of them. By name, not by what the roster says
 * then: who was removed and added again in one turn is somebody else.
 */
struct gone_user {
	char name[IM_NAME_MAX + 1];
	UT_hash_handle hh;
};

static void kick_if_gone(void *arg, struct session *s)
{
	struct plugin *p = arg;
	struct gone_user *g;

	HASH_FIND_STR(p->users_gone, s->user, g);
	if (g)
		session_kick(p->sessions, s, "user removed or disabled");
}

static void kick_gone(struct plugin *p)
{
	struct gone_user *g, *next;

	if (!p->users_gone)
		return;
	session_each(p->sessions, kick_if_gone, p);
	HASH_ITER(hh, p->users_gone, g, next) {
		HASH_DEL(p->users_gone, g);
		free(g);
	}
}

static void on_roster(void *arg, const Im__Bus__RosterItem *item)
{
	struct plugin *p = arg;
	struct gone_user *g;

	if (!item->user || !(item->user->removed || item->user->disabled) || strlen(item->user->name) > IM_NAME_MAX)
		return;
	HASH_FIND_STR(p->users_gone, item->user->name, g);
	if (g)
		return;
	g = calloc(1, sizeof(*g));
	if (!g) {
		im_log(IM_LOG_ERROR, "evt=no_memory what=kick user=%s note=\"still connected; repeat the command\"", item->user->name);
		return;
	}
	memcpy(g->name, item->user->name, strlen(item->user->name));
	HASH_ADD_STR(p->users_gone, name, g);
}

static enum im_status start_parts(struct plugin *p, struct im_err *err)
{
	char secret[65];
	enum im_status st = make_dirs(p->settings.dir, err);

	if (st == IM_OK)
		st = write_secret(p->settings.dir, secret, err);
	if (st != IM_OK)
		return st;
	p->auth = auth_create(secret);
	sodium_memzero(secret, sizeof(secret));
	p->roster = roster_create();
	p->limits = limits_create();
	p->refusals = refusals_create();
	p->sealing = sealing_create(&p->settings);
	if (!p->auth || !p->roster || !p->limits || !p->refusals || !p->sealing)
		return im_fail(err, IM_FAILED, "out of memory");
	st = auth_load(p->auth, &p->settings, err);
	if (st != IM_OK)
		return st;
	st = journal_open(&p->settings, &p->journal, err);
	if (st == IM_OK)
		st = session_table_create(p->settings.dir, journal_epoch(p->journal), &p->sessions, err);
	if (st == IM_OK && p->settings.sessions_file[0])
		session_table_read_others(p->sessions, p->settings.sessions_file);
	if (st == IM_OK)
		st = link_create(&p->settings, p->journal, p->sessions, p->roster, &p->link, err);
	if (st != IM_OK)
		return st;
	link_on_roster(p->link, on_roster, p);
	link_on_query(p->link, why_query, p);
	return IM_OK;
}

static void log_sink(enum im_log_level level, const char *line)
{
	broker_log((int)level, line);
}

enum im_status plugin_start(struct plugin **out)
{
	struct plugin *p = calloc(1, sizeof(*p));
	struct im_err err = { "" };
	enum im_status st;

	im_log_open("im", IM_LOG_INFO, log_sink);
	if (!p || sodium_init() < 0) {
		im_log(IM_LOG_ERROR, "evt=start error=\"no memory or no random numbers\"");
		free(p);
		return IM_FAILED;
	}
	im_arena_init(&p->arena);
	im_buf_init(&p->record);
	p->conf_path = im_conf_path_of_broker();
	if (!p->conf_path) {
		im_log(IM_LOG_ERROR, "evt=start error=\"the broker was started without -c: settings are read from that file\"");
		plugin_stop(p);
		return IM_BAD_INPUT;
	}
	st = read_settings(p->conf_path, &p->settings);
	if (st == IM_OK) {
		im_log_level((enum im_log_level)p->settings.log_level);
		st = start_parts(p, &err);
		if (st != IM_OK)
			im_log(IM_LOG_ERROR, "evt=start error=\"%s\"", err.text);
	}
	if (st != IM_OK) {
		plugin_stop(p);
		return st;
	}
	im_log(IM_LOG_NOTICE, "evt=start version=%s dir=%s users=%zu epoch=%llu", IM_VERSION, p->settings.dir,
	       roster_count_users(p->roster), (unsigned long long)journal_epoch(p->journal));
	*out = p;
	return IM_OK;
}

static void close_limit(void *arg, struct session *s)
{
	(void)arg;
	limit_close(s->limit);
	s->limit = NULL;
}

void plugin_stop(struct plugin *p)
{
	if (!p)
		return;
	broker_finish();
	link_destroy(p->link);
	sealing_destroy(p->sealing);
	if (p->sessions)
		session_each(p->sessions, close_limit, NULL);
	session_table_destroy(p->sessions);
	journal_close(p->journal);
	refusals_destroy(p->refusals);
	limits_destroy(p->limits);
	roster_destroy(p->roster);
	auth_destroy(p->auth);
	im_buf_finish(&p->record);
	im_arena_finish(&p->arena);
	im_settings_finish(&p->settings);
	free(p->conf_path);
	free(p);
}

/* ---- while running ---- */

void plugin_reload(struct plugin *p)
{
	struct im_settings fresh;
	struct im_err err = { "" };
	char restart[512] = "";
	size_t n;

	p->reloading = true;
	memset(&fresh, 0, sizeof(fresh));
	if (read_settings(p->conf_path, &fresh) != IM_OK) {
		im_log(IM_LOG_ERROR, "evt=reload error=\"settings are wrong: the old ones stay\"");
		return;
	}
	n = im_settings_reload(&p->settings, &fresh, restart, sizeof(restart));
	im_settings_finish(&fresh);
	if (auth_load(p->auth, &p->settings, &err) != IM_OK)
		im_log(IM_LOG_ERROR, "evt=reload error=\"%s: the old keys stay\"", err.text);
	journal_set_limit(p->journal, p->settings.journal_limit);
	im_log_level((enum im_log_level)p->settings.log_level);
	im_log(IM_LOG_NOTICE, "evt=reload changed=%zu restart_needed_for=\"%s\"", n, restart);
}

void plugin_tick(struct plugin *p)
{
	int64_t now = im_clock_mono_us();

	p->reloading = false;
	broker_turn();
	journal_tick(p->journal);
	link_tick(p->link);
	kick_gone(p);
	session_tick(p->sessions); /* behind the link: what it wants kicked goes in the same turn */
	refuse_tick(p->refusals, &p->settings, p->sessions);
	if (now - p->swept_us > SWEEP_US) {
		p->swept_us = now;
		limits_sweep(p->limits, now);
	}
}
