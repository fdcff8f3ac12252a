/* What a login by JWT costs the broker's thread, per algorithm: the signature, and the same token again from the cache. */
#include "plugin/jwt_login.h"
#include "unit/jwt_mint.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define RUNS 2000

static double now_us(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts); /* always there */
	return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static int by_size(const void *a, const void *b)
{
	return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

/* Median and 99th percentile of RUNS calls. */
static bool measure(struct jwt_login *j, struct im_settings *s, const char *token, const char *what, bool cold)
{
	static double took[RUNS];
	struct jwt_cold unrationed = { .allowed = true };
	struct jwt_claims c;
	struct im_err err;

	for (int i = 0; i < RUNS; i++) {
		double began;

		if (cold && jwt_login_load(j, s, &err) != IM_OK) /* empties the cache */
			return false;
		began = now_us();
		if (jwt_login_check(j, s, token, 1800000000, &unrationed, &c) != JWT_GOOD)
			return false;
		took[i] = now_us() - began;
	}
	qsort(took, RUNS, sizeof(took[0]), by_size);
	printf("%-6s %-6s %7.1f us   p99 %7.1f us\n", what, cold ? "cold" : "cached", took[RUNS / 2], took[RUNS * 99 / 100]);
	return true;
}

int main(void)
{
	char path[] = "/tmp/im-bench-jwt-XXXXXX", setting[64];
	struct im_settings s;
	struct jwt_login *j = jwt_login_create();
	int fd = mkstemp(path);
	bool good = true;

	if (sodium_init() < 0 || !j || fd < 0)
		return 1;
	mint_start();
	memset(&s, 0, sizeof(s));
	s.jwt_user_claim = (char *)"sub";
	s.jwt_issuer = s.jwt_audience = (char *)"";
	s.jwt_max_bytes = 8192;
	s.jwt_keys = setting;
	(void)snprintf(setting, sizeof(setting), "jwks:%s", path);
	for (int i = 0; good && i < MINT_ALGS; i++) {
		const char *token = mint_plain(mint_algs[i], "{\"sub\":\"alice\",\"exp\":1800000100,\"iat\":1799999999,\"iss\":\"https://id.example/\"}");
		char set[4096];
		int len = snprintf(set, sizeof(set), "{\"keys\":[%s]}", mint_jwk(mint_algs[i]));

		good = ftruncate(fd, 0) == 0 && pwrite(fd, set, (size_t)len, 0) == len && measure(j, &s, token, mint_algs[i], true) &&
		       (i % 4 || measure(j, &s, token, mint_algs[i], false));
	}
	(void)close(fd);
	(void)unlink(path);
	jwt_login_destroy(j);
	mint_stop();
	return good ? 0 : 1;
}
