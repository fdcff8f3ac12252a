/* What must hold, whoever asks (check.c): told by the store what is durable, by clients what they see. */
#ifndef TESTS_SIM_CHECK_H
#define TESTS_SIM_CHECK_H

#include "store_entry.h"

extern const char *const sim_conv_names[];     /* canonical; SIM_CONVS of them */
extern const char *const sim_users[];
int sim_conv_of(const char *canonical);        /* -1: none of ours */

void check_durable(const struct append *a);    /* before anybody may hear of it */
void check_rolled_back(struct append *const *log, size_t n);
void check_told(uint64_t handle, const char *topic, const char *payload, size_t len); /* leaves the service */

#endif
