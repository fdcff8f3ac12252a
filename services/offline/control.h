/* $CONTROL/im/v1: lists of admin commands, executed in order, answered to the asker alone. */
#ifndef OFFLINE_CONTROL_H
#define OFFLINE_CONTROL_H

#include "command.h"

#define CONTROL_LISTS_MAX 64u /* under way at a time: imctl and a few admins; each holds at most 64 KiB in and out */
#define CONTROL_RESPONSE "$CONTROL/im/v1/response"

void control_run(struct command_env *env, const Im__Bus__Control *control);

#endif
