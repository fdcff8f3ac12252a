/*
 * The broker's own settings that would break a promise of ours. Each has the reason it is refused for, so
 * that an admin who meets the message can judge. Private to lib/base.
 */
#ifndef IM_BASE_CONF_BROKER_H
#define IM_BASE_CONF_BROKER_H

#include "base/conf_file.h"

#define CONF_BROKER_RULES 32 /* room for the rules of conf_broker.c */

struct conf_broker {
	/* The value in force of each rule's key: as in mosquitto the last line wins. */
	struct {
		bool set;
		int64_t value;
		char file[256];
		unsigned number;
	} seen[CONF_BROKER_RULES];
	struct {
		bool ipv4_address;    /* bound to one IPv4 address */
		bool websockets, domain;
		char file[256];
		unsigned number;
	} listener;               /* the one whose lines are being read */
	char sockets[8][112];     /* Unix sockets of listeners, to find the bus among them */
	size_t socket_count;
	bool has_acl_file, has_password_file;
	bool has_listener;        /* without any, mosquitto serves this host only, and by default anonymous clients too */
	enum { CONF_ANONYMOUS_UNSET, CONF_ANONYMOUS_NO, CONF_ANONYMOUS_YES } anonymous;
	bool persistence;
	char location[256], persistence_file[128];
};

void conf_broker_init(struct conf_broker *b);
void conf_broker_line(struct conf_broker *b, struct conf_report *report, const struct conf_line *line);
/* Judges the whole; writes what we must know into `s`. file:number is where to point for what is missing. */
void conf_broker_finish(struct conf_broker *b, struct conf_report *report, struct im_settings *s, const char *file, unsigned number);

#endif
