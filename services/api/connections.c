#include "connections.h"

#include "base/log.h"
#include "server.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <utlist.h>

#define SWEEP_MS 1000

struct guest {
	struct guest *prev, *next;
	int fd;
	int64_t since_ms;
};

struct connections {
	struct im_loop *loop;
	struct im_timer *sweep;
	struct guest *guests; /* who has taken longest is first */
};

static void append(struct connections *all, struct guest *g)
{
	g->since_ms = im_loop_now_ms(all->loop);
	DL_APPEND(all->guests, g);
}

static void renew(struct connections *all, struct guest *g)
{
	DL_DELETE(all->guests, g);
	append(all, g);
}

/* The library finds the connection ended, and closes it; what came too late is read no more. */
static void end(int fd)
{
	(void)shutdown(fd, SHUT_RDWR); /* fails if the other end was quicker */
}

static void on_sweep(void *arg)
{
	struct connections *all = arg;
	int64_t before = im_loop_now_ms(all->loop) - (int64_t)SERVER_EXCHANGE_S * 1000;

	while (all->guests && all->guests->since_ms <= before) {
		im_log(IM_LOG_DEBUG, "evt=http why=\"too slow\"");
		end(all->guests->fd);
		renew(all, all->guests);
	}
	if (!all->guests)
		im_timer_stop(all->sweep);
}

static void arrive(struct connections *all, struct MHD_Connection *connection, void **mine)
{
	const union MHD_ConnectionInfo *i = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct guest *g = i ? calloc(1, sizeof(*g)) : NULL;

	if (!g) {
		if (i)
			end(i->connect_fd);
		return;
	}
	g->fd = i->connect_fd;
	if (!all->guests)
		im_timer_start(all->sweep, SWEEP_MS, SWEEP_MS);
	append(all, g);
	*mine = g;
}

void connections_notify(void *arg, struct MHD_Connection *connection, void **mine, enum MHD_ConnectionNotificationCode code)
{
	struct connections *all = arg;

	if (code == MHD_CONNECTION_NOTIFY_STARTED) {
		arrive(all, connection, mine);
	} else if (*mine) {
		struct guest *g = *mine;

		DL_DELETE(all->guests, g);
		free(g);
		*mine = NULL;
	}
}

void connections_renew(struct connections *all, struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *i = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

	if (i && i->socket_context)
		renew(all, i->socket_context);
}

struct connections *connections_create(struct im_loop *loop)
{
	struct connections *all = calloc(1, sizeof(*all));

	if (!all)
		return NULL;
	all->loop = loop;
	all->sweep = im_timer_create(loop, on_sweep, all);
	if (all->sweep)
		return all;
	free(all);
	return NULL;
}

void connections_destroy(struct connections *all)
{
	if (!all)
		return;
	im_timer_destroy(all->sweep);
	free(all);
}
