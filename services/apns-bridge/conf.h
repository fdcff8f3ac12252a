/* One app, as its file describes it: checked, and made into what a connection needs. */
#ifndef APNS_CONF_H
#define APNS_CONF_H

#include "push/app.h"

#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

#define CONF_ENVS 2
#define CONF_ID_LEN 10        /* of a key and of a team */
#define CONF_IDENTITY_SIZE 65 /* SHA-256 in hex */

extern const struct push_key conf_keys[];
extern const char *const conf_envs[CONF_ENVS + 1]; /* production, sandbox */

struct conf_host {
	char name[256];
	unsigned port;
	char identity[CONF_IDENTITY_SIZE]; /* same identity: same host, same authorities, same key or certificate */
};

struct conf {
	char name[PUSH_APP_NAME_MAX + 1];
	char topic[256], sound[64], loc_key[64];
	bool serves[CONF_ENVS];
	struct conf_host hosts[CONF_ENVS];
	unsigned max_conns;
	SSL_CTX *tls;                 /* with the certificate, if it is that */
	EVP_PKEY *key;                /* NULL: the certificate */
	char team[CONF_ID_LEN + 1], kid[CONF_ID_LEN + 1];
	char label[80];               /* the key's id, or the certificate's hash: for logs and metrics */
	int64_t cert_expires_ms;      /* 0: a key */
};

/* IM_BAD_INPUT: the sentence says what to fix. The app's secret bytes are not needed any more after it. */
enum im_status conf_read(const struct push_app *app, struct conf *out, struct im_err *err);
void conf_finish(struct conf *c); /* wipes; fine for zeroes */

#endif
