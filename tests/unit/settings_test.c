/* Settings: what a file says, what is refused and where, what SIGHUP changes, and that the printed forms are in step. */
#include "base/conf.h"

#include "base/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define BROKER                                                                                                                   \
	"set_tcp_nodelay true\nmax_queued_messages 1000000\nallow_duplicate_messages true\nlistener 1883\nlistener 0 /d/run/bus.sock\n"
#define OURS "plugin /x/mosquitto_im.so\nplugin_opt_im_dir /d\n"
#define GOOD BROKER OURS

#define PROBLEMS 16

struct answer {
	enum im_status st;
	struct im_settings s;
	struct im_conf_problem problems[PROBLEMS];
	size_t n;
};

static void parse(const char *text, struct answer *a)
{
	memset(a, 0, sizeof(*a));
	a->st = im_settings_parse("b.conf", text, strlen(text), &a->s, a->problems, PROBLEMS, &a->n);
}

static void good(const char *text, struct answer *a)
{
	parse(text, a);
	if (a->st != IM_OK)
		print_error("%s\n", a->problems[0].text);
	assert_int_equal(a->st, IM_OK);
}

static void defaults_fill_what_the_file_leaves_out(void **state)
{
	struct answer a;

	(void)state;
	good(GOOD, &a);
	assert_int_equal(a.n, 0);
	assert_string_equal(a.s.dir, "/d");
	assert_string_equal(a.s.bus, "/d/run/bus.sock");
	assert_string_equal(a.s.store, "sqlite:/d/store");
	assert_string_equal(a.s.sequences, "sqlite:/d/sequences.db");
	assert_string_equal(a.s.admins, "");
	assert_int_equal(a.s.node, 1);
	assert_int_equal(a.s.durability, IM_DURABILITY_PROCESS);
	assert_true(a.s.journal_limit == 1u << 30);
	assert_true(a.s.segment_bytes == 32u << 20);
	assert_true(a.s.max_message == 256u << 10);
	assert_int_equal(a.s.rate_user, 5000);
	assert_int_equal(a.s.plain_topics, IM_PLAIN_DENY);
	assert_int_equal(a.s.unsubscribed, IM_UNSUBSCRIBED_ERRORS);
	assert_true(a.s.read_on_send);
	assert_int_equal(a.s.hash_kib, 19456);
	assert_int_equal(a.s.login_interval_ms, 250);
	assert_int_equal(a.s.silent_messages, 200000);
	assert_true(a.s.silent_bytes == 64u << 20);
	assert_int_equal(a.s.log_level, 2);
	im_settings_finish(&a.s);
}

static void values_of_every_type_are_taken(void **state)
{
	struct answer a;

	(void)state;
	good(GOOD "plugin_opt_im_journal_limit  2G \r\nplugin_opt_im_durability disk\nplugin_opt_im_rate_user 0\n"
		  "plugin_opt_im_read_on_send off\nplugin_opt_im_admins alice, bob@x\nplugin_opt_im_store memory:\nplugin_opt_im_node 65535",
	     &a);
	assert_true(a.s.journal_limit == UINT64_C(2) << 30);
	assert_int_equal(a.s.durability, IM_DURABILITY_DISK);
	assert_int_equal(a.s.rate_user, 0);
	assert_false(a.s.read_on_send);
	assert_string_equal(a.s.admins, "alice, bob@x");
	assert_string_equal(a.s.store, "memory:");
	assert_int_equal(a.s.node, 65535);
	im_settings_finish(&a.s);
}

static void faults_are_told_with_line_and_reason(void **state)
{
	static const struct {
		const char *text, *begin, *has;
	} cases[] = {
		{GOOD "plugin_opt_im_rate_usr 1\n", "b.conf:8: ", "did you mean plugin_opt_im_rate_user?"},
		{GOOD "plugin_opt_rate_user 1\n", "b.conf:8: ", "did you mean plugin_opt_im_rate_user?"},
		{GOOD "plugin_opt_im_zzzzzzzzzzzz 1\n", "b.conf:8: ", "no setting of ours has a similar name"},
		{GOOD "im_rate_user 1\n", "b.conf:8: ", "write plugin_opt_im_rate_user"},
		{GOOD "im_rate_usr 1\n", "b.conf:8: ", "write plugin_opt_im_rate_user"},
		{GOOD "auth_opt_im_rate_user 1\n", "b.conf:8: ", "write plugin_opt_im_rate_user instead"},
		{GOOD "plugin_opt_im_rate_user\n", "b.conf:8: ", "has no value"},
		{GOOD "plugin_opt_im_rate_user -1\n", "b.conf:8: ", "is not a number"},
		{GOOD "plugin_opt_im_rate_user 10k\n", "b.conf:8: ", "is not a number"},
		{GOOD "plugin_opt_im_rate_user 99999999999999999999\n", "b.conf:8: ", "is not a number"},
		{GOOD "plugin_opt_im_rate_user 1000001\n", "b.conf:8: ", "0, or 1 to 1000000 messages/s"},
		{GOOD "plugin_opt_im_node 0\n", "b.conf:8: ", "out of range: 1 to 65535"},
		{GOOD "plugin_opt_im_node 65536\n", "b.conf:8: ", "out of range"},
		{GOOD "plugin_opt_im_max_message 2m\n", "b.conf:8: ", "out of range"},
		{GOOD "plugin_opt_im_journal_limit 1t\n", "b.conf:8: ", "not a number of bytes"},
		{GOOD "plugin_opt_im_journal_limit 99999999999999999g\n", "b.conf:8: ", "not a number of bytes"},
		{GOOD "plugin_opt_im_durability fast\n", "b.conf:8: ", "is none of process, disk"},
		{GOOD "plugin_opt_im_read_on_send maybe\n", "b.conf:8: ", "neither true nor false"},
		{GOOD "plugin_opt_im_store postgres:x\n", "b.conf:8: ", "must begin with sqlite:"},
		{GOOD "plugin_opt_im_store sqlite:here\n", "b.conf:8: ", "absolute"},
		{GOOD "plugin_opt_im_admins alice,,bob\n", "b.conf:8: ", "separated by commas"},
		{GOOD "plugin_opt_im_admins Alice\n", "b.conf:8: ", "separated by commas"},
		{GOOD "plugin_opt_im_node 1\nplugin_opt_im_node 2\n", "b.conf:9: ", "already at b.conf:8"},
		{GOOD "plugin /y/mosquitto_im.so\n", "b.conf:8: ", "loaded already at b.conf:6"},
		{GOOD "plugin /y/other.so\nplugin_opt_im_node 2\n", "b.conf:9: ", "below another plugin's line"},
		{BROKER "plugin_opt_im_dir /d\nplugin /x/mosquitto_im.so\n", "b.conf:6: ", "above the `plugin` line"},
		{GOOD "plugin_opt_im_segment_bytes 64m\nplugin_opt_im_journal_limit 64m\n", "b.conf: ", "at most half"},
		{GOOD "include_dir /nowhere/at/all\n", "b.conf:8: ", "cannot be opened"},
		{BROKER "plugin /x/mosquitto_im.so\n", "b.conf: ", "im_dir is missing"},
		{BROKER "plugin /x/mosquitto_im.so\nplugin_opt_im_dir d\n", "b.conf:7: ", "absolute path"},
		{BROKER, "b.conf: ", "im_dir is missing"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct answer a;

		parse(cases[i].text, &a);
		if (a.st == IM_OK || strncmp(a.problems[0].text, cases[i].begin, strlen(cases[i].begin)) != 0 ||
		    !strstr(a.problems[0].text, cases[i].has))
			fail_msg("case %zu: %s", i, a.st == IM_OK ? "accepted" : a.problems[0].text);
		assert_true(a.problems[0].fatal);
	}
}

static void broker_settings_that_break_a_promise_are_refused(void **state)
{
	static const struct {
		const char *text, *has;
		bool fatal;
	} cases[] = {
		{GOOD "per_listener_settings true\n", "b.conf:8: leave per_listener_settings out", true},
		{GOOD "set_tcp_nodelay false\n", "b.conf:8: set set_tcp_nodelay true", true},
		{GOOD "max_queued_messages 0\n", "b.conf:8: set max_queued_messages 1000000", true},
		{GOOD "max_queued_messages 1000\n", "b.conf:8: ", true},
		{GOOD "max_queued_bytes 1000\n", "b.conf:8: ", true},
		{GOOD "allow_duplicate_messages 0\n", "b.conf:8: ", true},
		{GOOD "memory_limit 100000000\n", "b.conf:8: ", true},
		{GOOD "use_username_as_clientid true\nlistener 1884\nuse_username_as_clientid false\n", "b.conf:8: ", true},
		{GOOD "retain_available false\n", "b.conf:8: ", true},
		{GOOD "mount_point a/\n", "b.conf:8: ", true},
		{GOOD "max_packet_size 65536\n", "b.conf:8: set max_packet_size to 1572864", true},
		{GOOD "message_size_limit 1000\n", "b.conf:8: ", true},
		{GOOD "max_keepalive 600\n", "b.conf:8: ", false},
		{GOOD "max_inflight_messages 0\n", "b.conf:8: ", false},
		{GOOD "max_inflight_messages 1\n", "b.conf:8: ", false},
		{GOOD "listener 8083 127.0.0.1\nprotocol websockets\nlistener 8084\n", "b.conf:8: add `socket_domain ipv4`", false},
		{GOOD "max_conections 5\n", "did you mean max_connections?", false},
		{GOOD "log_dest\tstderr\n", "not tabs", false},
		{OURS "listener 0 /d/run/bus.sock\nmax_queued_messages 1000000\nallow_duplicate_messages true\n",
		 "b.conf:1: set set_tcp_nodelay true (it is missing)", true},
		{OURS "set_tcp_nodelay true\nmax_queued_messages 1000000\nallow_duplicate_messages true\n", "no `listener 0 /d/run/bus.sock`", true},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct answer a;

		parse(cases[i].text, &a);
		if (a.n == 0 || !strstr(a.problems[0].text, cases[i].has))
			fail_msg("case %zu: %s", i, a.n ? a.problems[0].text : "accepted");
		assert_int_equal(a.problems[0].fatal, cases[i].fatal);
		assert_int_equal(a.st == IM_OK, !cases[i].fatal);
		if (a.st == IM_OK)
			im_settings_finish(&a.s);
	}
}

/* For the conformance suites, whose brokers have settings of their own. */
static void broker_settings_that_break_a_promise_may_only_warn(void **state)
{
	struct answer a;

	(void)state;
	parse("max_queued_messages 1\n" OURS, &a);
	assert_int_equal(a.st, IM_BAD_INPUT);
	good("max_queued_messages 1\n" OURS "plugin_opt_im_broker_settings warn\n", &a);
	assert_true(a.n >= 4); /* queue, nodelay, duplicates, no bus */
	for (size_t i = 0; i < a.n; i++)
		assert_false(a.problems[i].fatal);
	im_settings_finish(&a.s);
	parse(OURS "plugin_opt_im_broker_settings warn\nplugin_opt_im_node 0\n", &a);
	assert_int_equal(a.st, IM_BAD_INPUT);
}

/* As mosquitto has it: without a listener it serves this host only, and then strangers by default. */
static void strangers_are_let_in_as_the_bare_broker_would(void **state)
{
	static const struct {
		const char *text;
		bool in;
	} cases[] = {
		{"", true}, {"allow_anonymous false\n", false}, {"listener 1883\n", false}, {"port 1883\n", false},
		{"bind_address 127.0.0.1\n", false}, {"listener 1883\nallow_anonymous true\n", true},
	};
	char text[256];
	struct answer a;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		(void)snprintf(text, sizeof(text), "%s" OURS "plugin_opt_im_broker_settings warn\n", cases[i].text);
		good(text, &a);
		assert_int_equal(a.s.allow_anonymous, cases[i].in);
		im_settings_finish(&a.s);
	}
}

static void the_last_line_of_a_broker_setting_counts(void **state)
{
	struct answer a;

	(void)state;
	good("set_tcp_nodelay false\nmemory_limit 5\n" GOOD "memory_limit 0\nmax_packet_size 0\n", &a);
	assert_int_equal(a.n, 0);
	im_settings_finish(&a.s);
}

static void websockets_on_one_address_need_the_domain(void **state)
{
	struct answer a;

	(void)state;
	good(GOOD "listener 8083 127.0.0.1\nprotocol websockets\nsocket_domain ipv4\nlistener 8084 127.0.0.1\nlistener 8085\n"
		  "protocol websockets\n",
	     &a);
	assert_int_equal(a.n, 0);
	im_settings_finish(&a.s);
}

static void other_plugins_keep_their_options(void **state)
{
	struct answer a;

	(void)state;
	good(BROKER "plugin /y/dynsec.so\nplugin_opt_config_file /y/z\n" OURS "acl_file /a\npassword_file /p\nallow_anonymous true\n", &a);
	assert_int_equal(a.n, 0);
	assert_true(a.s.other_auth_plugins && a.s.has_acl_file && a.s.has_password_file && a.s.allow_anonymous);
	im_settings_finish(&a.s);
}

static void more_problems_than_asked_for_are_counted(void **state)
{
	static const char text[] = "plugin_opt_im_a 1\nplugin_opt_im_b 1\nplugin_opt_im_c 1\n";
	struct im_conf_problem one;
	struct im_settings s;
	size_t n = 0;

	(void)state;
	assert_int_equal(im_settings_parse("b.conf", text, strlen(text), &s, &one, 1, &n), IM_BAD_INPUT);
	assert_true(n > 3);
}

static void odd_bytes_are_survived(void **state)
{
	static const struct {
		const char *text;
		size_t len;
	} cases[] = {{"", 0}, {"\0", 1}, {"\n\n\r\n", 4}, {" ", 1}, {"#", 1}, {"listener", 8}, {"listener 0", 10}, {"include_dir", 11},
		     {"plugin", 6}, {"plugin_opt_", 11}, {"auth_opt_", 9}, {"im_", 3}, {"plugin \xff\xfe", 9}, {"max_queued_messages", 19}};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct im_conf_problem p[2];
		struct im_settings s;
		size_t n = 0;

		assert_int_equal(im_settings_parse("b.conf", cases[i].text, cases[i].len, &s, p, 2, &n), IM_BAD_INPUT);
	}
}

/* --- files ---------------------------------------------------------------------------------------------- */

static void write_file(const char *dir, const char *name, const char *text)
{
	char path[256];
	FILE *f;

	assert_true((size_t)snprintf(path, sizeof(path), "%s/%s", dir, name) < sizeof(path));
	f = fopen(path, "we");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static void read_dir(const char *dir, struct answer *a)
{
	char path[256];

	(void)snprintf(path, sizeof(path), "%s/main.conf", dir);
	memset(a, 0, sizeof(*a));
	a->st = im_settings_read(path, &a->s, a->problems, PROBLEMS, &a->n);
}

static void remove_dir(const char *dir)
{
	static const char *const names[] = {"main.conf", "i/a.conf", "i/B.conf", "i/c.txt", "i", ""};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		char path[256];

		(void)snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		(void)remove(path); /* not every test makes every file */
	}
}

static void included_files_come_in_mosquittos_order(void **state)
{
	char dir[] = "/tmp/settings-test-XXXXXX", inc[64], text[512];
	struct answer a;

	(void)state;
	assert_non_null(mkdtemp(dir));
	(void)snprintf(inc, sizeof(inc), "%s/i", dir);
	assert_int_equal(mkdir(inc, 0700), 0);
	(void)snprintf(text, sizeof(text), GOOD "include_dir %s\nplugin_opt_im_node 7\n", inc);
	write_file(dir, "main.conf", text);
	/* 'a' before 'B' although 'B' is the smaller byte: the last one, B.conf, wins. */
	write_file(inc, "B.conf", "set_tcp_nodelay true\ninclude_dir /nowhere\n");
	write_file(inc, "a.conf", "set_tcp_nodelay false\n");
	write_file(inc, "c.txt", "set_tcp_nodelay false\nplugin_opt_im_nonsense 1\n");
	read_dir(dir, &a);
	assert_int_equal(a.st, IM_OK);
	assert_int_equal(a.s.node, 7); /* options go on after the include, below the main file's plugin */
	assert_int_equal(a.n, 1);
	assert_non_null(strstr(a.problems[0].text, "B.conf:2: include_dir in an included file has no effect"));
	im_settings_finish(&a.s);
	remove_dir(dir);
}

static void our_options_in_an_included_file_are_explained(void **state)
{
	char dir[] = "/tmp/settings-test-XXXXXX", inc[64], text[512];
	struct answer a;

	(void)state;
	assert_non_null(mkdtemp(dir));
	(void)snprintf(inc, sizeof(inc), "%s/i", dir);
	assert_int_equal(mkdir(inc, 0700), 0);
	(void)snprintf(text, sizeof(text), GOOD "include_dir %s\n", inc);
	write_file(dir, "main.conf", text);
	write_file(inc, "a.conf", "\nplugin_opt_im_node 7\n");
	read_dir(dir, &a);
	assert_int_equal(a.st, IM_BAD_INPUT);
	assert_non_null(strstr(a.problems[0].text, "a.conf:2: plugin_opt_im_node stands in an included file"));
	remove_dir(dir);
}

static void a_missing_file_is_a_problem(void **state)
{
	struct answer a;

	(void)state;
	memset(&a, 0, sizeof(a));
	assert_int_equal(im_settings_read("/nowhere/b.conf", &a.s, a.problems, PROBLEMS, &a.n), IM_BAD_INPUT);
	assert_non_null(strstr(a.problems[0].text, "/nowhere/b.conf: cannot be opened"));
	assert_int_equal(im_settings_read("/tmp", &a.s, a.problems, PROBLEMS, &a.n), IM_BAD_INPUT);
	assert_non_null(strstr(a.problems[0].text, "is a directory"));
}

/* --- reload and print ----------------------------------------------------------------------------------- */

static void reload_takes_what_is_live_and_names_the_rest(void **state)
{
	struct answer a, b;
	char restart[64];

	(void)state;
	good(GOOD, &a);
	good(GOOD "plugin_opt_im_rate_user 9\nplugin_opt_im_admins alice\nplugin_opt_im_node 2\nplugin_opt_im_durability disk\n", &b);
	assert_int_equal(im_settings_reload(&a.s, &b.s, restart, sizeof(restart)), 2);
	assert_string_equal(restart, "im_node,im_durability");
	assert_int_equal(a.s.rate_user, 9);
	assert_string_equal(a.s.admins, "alice");
	assert_ptr_not_equal(a.s.admins, b.s.admins);
	assert_int_equal(a.s.node, 1);
	assert_int_equal(a.s.durability, IM_DURABILITY_PROCESS);
	assert_int_equal(im_settings_reload(&a.s, &b.s, restart, 4), 0); /* a small buffer is filled, not overrun */
	assert_string_equal(restart, "im_");
	im_settings_finish(&a.s);
	im_settings_finish(&b.s);
}

static void gather(void *arg, const char *text)
{
	im_buf_add_str(arg, text);
}

static char *source_file(const char *name)
{
	char path[4096], *text;
	size_t len;
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/%s", IM_SOURCE_DIR, name);
	f = fopen(path, "re");
	assert_non_null(f);
	text = calloc(1, 1u << 20);
	assert_non_null(text);
	len = fread(text, 1, (1u << 20) - 1, f);
	assert_true(len > 0);
	fclose(f);
	return text;
}

static void configuration_page_is_in_step_with_the_table(void **state)
{
	char *page = source_file("docs/configuration.md");
	struct im_buf b;

	(void)state;
	im_buf_init(&b);
	im_settings_print_markdown(gather, &b);
	if (strcmp(im_buf_text(&b), page) != 0)
		fail_msg("run: im-supervisor --print-reference > docs/configuration.md");
	im_buf_finish(&b);
	free(page);
}

static void sample_in_broker_conf_is_in_step_with_the_table(void **state)
{
	char *conf = source_file("broker.conf");
	struct im_buf b;

	(void)state;
	im_buf_init(&b);
	im_settings_print_sample(gather, &b);
	if (!strstr(conf, im_buf_text(&b)))
		fail_msg("replace the commented settings of broker.conf with: im-supervisor --print-sample");
	im_buf_finish(&b);
	free(conf);
}

/* With every '#' before a setting removed, the sample says what the defaults say. */
static void every_default_of_the_sample_is_valid(void **state)
{
	struct answer plain, sample;
	struct im_buf b, text;
	char restart[256], *line, *save = NULL, *copy;

	(void)state;
	im_buf_init(&b);
	im_buf_init(&text);
	im_settings_print_sample(gather, &b);
	im_buf_add_str(&text, GOOD);
	copy = strdup(im_buf_text(&b));
	assert_non_null(copy);
	for (line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *dir = strstr(line, "{dir}");

		if (strncmp(line, "#plugin_opt_", 12) != 0 || !strchr(line, ' '))
			continue; /* a comment, or an empty default, which nobody writes */
		if (dir)
			im_buf_printf(&text, "%.*s/d%s\n", (int)(dir - line - 1), line + 1, dir + 5);
		else
			im_buf_printf(&text, "%s\n", line + 1);
	}
	good(GOOD, &plain);
	good(im_buf_text(&text), &sample);
	assert_int_equal(im_settings_reload(&plain.s, &sample.s, restart, sizeof(restart)), 0);
	assert_string_equal(restart, "");
	im_settings_finish(&plain.s);
	im_settings_finish(&sample.s);
	im_buf_finish(&b);
	im_buf_finish(&text);
	free(copy);
}

/* What scripts/run makes of the template passes the check. */
static void the_template_is_right(void **state)
{
	char *conf = source_file("broker.conf"), *at = conf, *mark;
	struct im_buf text;
	struct answer a;

	(void)state;
	im_buf_init(&text);
	while ((mark = strchr(at, '@')) != NULL) {
		im_buf_add(&text, at, (size_t)(mark - at));
		if (strncmp(mark, "@DIR@", 5) == 0) {
			im_buf_add_str(&text, "/d");
			at = mark + 5;
		} else if (strncmp(mark, "@PLUGIN@", 8) == 0) {
			im_buf_add_str(&text, "/x/mosquitto_im.so");
			at = mark + 8;
		} else if (strncmp(mark, "@USER@", 6) == 0) {
			im_buf_add_str(&text, "user root");
			at = mark + 6;
		} else {
			im_buf_add_char(&text, '@');
			at = mark + 1;
		}
	}
	im_buf_add_str(&text, at);
	parse(im_buf_text(&text), &a);
	/* The folder and the listeners in it are made by scripts/run. */
	assert_int_equal(a.n, 2);
	assert_non_null(strstr(a.problems[0].text, "include_dir '/d/conf.d' cannot be opened"));
	assert_non_null(strstr(a.problems[1].text, "no `listener 0 /d/run/bus.sock`"));
	im_buf_finish(&text);
	free(conf);
}

/* Linked with --wrap=strdup. */
static bool runs_out;
static unsigned left; /* ... after so many */
char *__real_strdup(const char *text); // NOLINT(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp): the linker's
char *__wrap_strdup(const char *text); // NOLINT(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp)

char *__wrap_strdup(const char *text) // NOLINT(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp)
{
	if (!runs_out)
		return __real_strdup(text);
	if (left == 0)
		return NULL;
	left--;
	return __real_strdup(text);
}

/* A reload in a process that has reached its limit of memory. */
static void memory_that_fails_is_a_problem_and_no_more(void **state)
{
	struct answer a;
	unsigned n = 0;

	(void)state;
	for (runs_out = true; left == 0; n++) {
		left = n;
		parse(GOOD, &a);
		assert_int_equal(a.st, a.n > 0 ? IM_BAD_INPUT : IM_OK);
		im_settings_finish(&a.s);
	}
	runs_out = false;
	assert_true(n > 10);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults_fill_what_the_file_leaves_out),
		cmocka_unit_test(values_of_every_type_are_taken),
		cmocka_unit_test(faults_are_told_with_line_and_reason),
		cmocka_unit_test(broker_settings_that_break_a_promise_are_refused),
		cmocka_unit_test(broker_settings_that_break_a_promise_may_only_warn),
		cmocka_unit_test(strangers_are_let_in_as_the_bare_broker_would),
		cmocka_unit_test(the_last_line_of_a_broker_setting_counts),
		cmocka_unit_test(websockets_on_one_address_need_the_domain),
		cmocka_unit_test(other_plugins_keep_their_options),
		cmocka_unit_test(more_problems_than_asked_for_are_counted),
		cmocka_unit_test(odd_bytes_are_survived),
		cmocka_unit_test(included_files_come_in_mosquittos_order),
		cmocka_unit_test(our_options_in_an_included_file_are_explained),
		cmocka_unit_test(a_missing_file_is_a_problem),
		cmocka_unit_test(reload_takes_what_is_live_and_names_the_rest),
		cmocka_unit_test(configuration_page_is_in_step_with_the_table),
		cmocka_unit_test(sample_in_broker_conf_is_in_step_with_the_table),
		cmocka_unit_test(every_default_of_the_sample_is_valid),
		cmocka_unit_test(the_template_is_right),
		cmocka_unit_test(memory_that_fails_is_a_problem_and_no_more),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
