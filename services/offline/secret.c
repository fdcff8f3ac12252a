/* argon2id on pool threads, a few at a time; tokens are random, so a plain BLAKE2b-256 of them is enough. */
#include "secret.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(SECRET_HASH_SIZE >= crypto_pwhash_STRBYTES, "a PHC string must fit");

struct job {
	struct secret_queue *queue;
	struct job *next;
	char *password;
	unsigned long long passes;
	size_t memory;
	bool hashed;
	char hash[SECRET_HASH_SIZE];
	secret_fn *done;
	void *arg;
};

struct secret_queue {
	struct im_loop *loop;
	struct job *first, *last; /* bounded by CALLS_MAX times what one command may hold: see command.h */
	unsigned running;
};

struct secret_queue *secret_queue_create(struct im_loop *loop)
{
	struct secret_queue *q = calloc(1, sizeof(*q));

	if (q == NULL || sodium_init() < 0) {
		free(q);
		return NULL;
	}
	q->loop = loop;
	return q;
}

void secret_queue_destroy(struct secret_queue *q)
{
	free(q);
}

static void job_free(struct job *job)
{
	if (job->password != NULL)
		sodium_memzero(job->password, strlen(job->password));
	free(job->password);
	free(job);
}

void secret_queue_stop(struct secret_queue *q)
{
	struct job *job = q->first;

	q->first = q->last = NULL;
	while (job != NULL) {
		struct job *next = job->next;

		job->done(job->arg, NULL);
		job_free(job);
		job = next;
	}
}

static void work(void *arg)
{
	struct job *job = arg;

	job->hashed = crypto_pwhash_str_alg(job->hash, job->password, strlen(job->password), job->passes, job->memory,
					    crypto_pwhash_ALG_ARGON2ID13) == 0;
}

static void start_more(struct secret_queue *q);

static void after(void *arg)
{
	struct job *job = arg;
	struct secret_queue *q = job->queue;

	q->running--;
	start_more(q); /* before `done`, which may be the last to hold the queue */
	job->done(job->arg, job->hashed ? job->hash : NULL);
	job_free(job);
}

static void start_more(struct secret_queue *q)
{
	while (q->first != NULL && q->running < SECRET_THREADS) {
		struct job *job = q->first;

		if (im_loop_work(q->loop, work, after, job) != IM_OK)
			return; /* the next end of a job tries again */
		q->first = job->next;
		if (q->first == NULL)
			q->last = NULL;
		q->running++;
	}
}

enum im_status secret_hash_password(struct secret_queue *q, const char *password, const struct im_settings *settings,
				    secret_fn *done, void *arg)
{
	struct job *job = calloc(1, sizeof(*job));

	if (job == NULL || (job->password = strdup(password)) == NULL) {
		free(job);
		return IM_FAILED;
	}
	job->queue = q;
	job->passes = settings->hash_passes;
	job->memory = (size_t)settings->hash_kib * 1024;
	job->done = done;
	job->arg = arg;
	if (q->running == 0 && q->first == NULL) {
		/* Alone: if even this one cannot be started, nobody would start it later. */
		if (im_loop_work(q->loop, work, after, job) != IM_OK) {
			job_free(job);
			return IM_FAILED;
		}
		q->running++;
		return IM_OK;
	}
	if (q->last != NULL)
		q->last->next = job;
	else
		q->first = job;
	q->last = job;
	start_more(q);
	return IM_OK;
}

void secret_make_token(char text[SECRET_TOKEN_SIZE], char id[SECRET_TOKEN_ID_SIZE], unsigned char hash[SECRET_TOKEN_HASH])
{
	unsigned char bytes[32], id_bytes[(SECRET_TOKEN_ID_SIZE - 1) / 2];

	randombytes_buf(bytes, sizeof(bytes));
	randombytes_buf(id_bytes, sizeof(id_bytes));
	memcpy(text, "imt_", 4);
	sodium_bin2base64(text + 4, SECRET_TOKEN_SIZE - 4, bytes, sizeof(bytes), sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	sodium_bin2hex(id, SECRET_TOKEN_ID_SIZE, id_bytes, sizeof(id_bytes));
	crypto_generichash(hash, SECRET_TOKEN_HASH, (const unsigned char *)text, strlen(text), NULL, 0);
	sodium_memzero(bytes, sizeof(bytes));
}
