/*
 * Runs schedules (schedule.c), one per seed, and tells how far they got. Whatever a schedule leaves undecided is decided
 * here, from its seed alone: the same seed is the same schedule, step for step.
 */
#include "sim.h"

#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

bool sim_tracing;
uint64_t sim_counts[SIM_N_COUNTS];
unsigned sim_step;

static uint64_t seed, state;

/* ---- chance */

uint64_t sim_random64(void)
{
	uint64_t z = (state += 0x9e3779b97f4a7c15u); /* splitmix64 */

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

unsigned sim_random(unsigned n)
{
	return n ? (unsigned)(sim_random64() >> 33) % n : 0;
}

bool sim_chance(unsigned percent)
{
	return sim_random(100) < percent;
}

/* ---- telling */

void sim_trace(const char *fmt, ...)
{
	va_list ap;

	if (!sim_tracing)
		return;
	printf("%4u %8lld  ", sim_step, (long long)(fake_now_ms - 1000000));
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

static void tell_seed(void)
{
	char line[128];
	int n = snprintf(line, sizeof(line), "sim: in step %u; again with: sim --seed %llu --trace\n", sim_step, (unsigned long long)seed);

	(void)!write(STDERR_FILENO, line, (size_t)n);
}

void sim_fail(const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	fprintf(stderr, "sim: FAILED: ");
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\n");
	tell_seed();
	_exit(1);
}

static void on_signal(int number)
{
	tell_seed();
	(void)signal(number, SIG_DFL);
	(void)raise(number);
}

void __asan_on_error(void);
void __asan_on_error(void)
{
	tell_seed();
}

/* ---- the program */

static void print_counts(uint64_t n)
{
	static const char *const names[] = {
#define X(name) #name,
		SIM_COUNTS(X)
#undef X
	};

	for (int i = 0; i < SIM_N_COUNTS; i++)
		printf("  %-26s %12llu %10.2f\n", names[i], (unsigned long long)sim_counts[i], (double)sim_counts[i] / (double)n);
}

/* Of this process alone: what else the machine does is no matter. */
static double seconds(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void run_one(uint64_t of)
{
	seed = state = of;
	disk_is_bad = of % 8 == 5; /* not drawn: the others stay the schedules they were */
	(void)sim_random64();
	schedule_run();
}

static void run(uint64_t first, uint64_t n)
{
	double began = seconds(), took;

	for (uint64_t i = 0; i < n; i++)
		run_one(first + i);
	took = seconds() - began;
	printf("sim: %llu schedules from seed %llu, all as promised; %.1f s of CPU, %.0f a second\n", (unsigned long long)n,
	       (unsigned long long)first, took, (double)n / (took > 0 ? took : 1));
	print_counts(n);
}

/* Those in which something was found once: a number in each line, or a comment. */
static int run_list(const char *path)
{
	FILE *f = fopen(path, "r");
	char line[256];
	unsigned n = 0;

	while (f && fgets(line, sizeof(line), f)) {
		if (line[0] < '0' || line[0] > '9')
			continue;
		run_one(strtoull(line, NULL, 10));
		n++;
	}
	if (!f || ferror(f) || n == 0) {
		fprintf(stderr, "sim: no seeds in %s\n", path);
		return 2;
	}
	(void)fclose(f); /* only read */
	printf("sim: %u schedules of %s, all as promised\n", n, path);
	return 0;
}

static void usage(void)
{
	puts("sim [--schedules N] [--seed S] [--seeds FILE] [--trace]\n"
	     "  --schedules N  how many, from seed S on (default: 1 with --seed, else 1000)\n"
	     "  --seed S       the first one's (default 1)\n"
	     "  --seeds FILE   those of a list instead\n"
	     "  --trace        say what happens");
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"schedules", required_argument, NULL, 'n'}, {"seed", required_argument, NULL, 's'}, {"seeds", required_argument, NULL, 'l'},
		{"trace", no_argument, NULL, 't'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0},
	};
	uint64_t first = 1, n = 0;
	const char *list = NULL;
	bool seed_given = false;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		switch (c) {
		case 'n': n = strtoull(optarg, NULL, 10); break;
		case 's': first = strtoull(optarg, NULL, 10); seed_given = true; break;
		case 'l': list = optarg; break;
		case 't': sim_tracing = true; break;
		case 'h': usage(); return 0;
		default: usage(); return 2;
		}
	}
	if (!n)
		n = seed_given ? 1 : 1000;
	(void)signal(SIGABRT, on_signal);
	(void)signal(SIGSEGV, on_signal);
	loop_log();
	if (sodium_init() < 0)
		return 1;
	(void)mallopt(M_MMAP_THRESHOLD, 16 << 20);
	(void)mallopt(M_TRIM_THRESHOLD, 64 << 20);
	if (list)
		return run_list(list);
	run(first, n);
	return 0;
}
