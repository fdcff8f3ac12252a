/* im-api: requests over HTTP (docs/http.md). This file only joins the server to the bus. */
#include "api.h"
#include "base/log.h"
#include "service/service.h"

struct parts {
	struct api *api;
	struct server *server;
};

static enum im_status start(struct service *s, struct im_err *err)
{
	const struct im_settings *set = &s->settings;
	const struct server_options o = {set->http_listen, set->http_cert, set->http_key};
	struct parts *p = s->state;

	if (!*set->http_listen)
		return im_fail(err, IM_BAD_INPUT, "im_http_listen is empty: there is nothing to do");
	p->api = api_create(s->loop);
	if (!p->api)
		return im_fail(err, IM_FAILED, "out of memory");
	return server_create(s->loop, &o, api_request, p->api, &p->server, err);
}

static void bus_up(struct service *s)
{
	api_bus(((struct parts *)s->state)->api, s->bus);
}

static void bus_down(struct service *s, const char *why)
{
	im_log(IM_LOG_WARNING, "evt=bus_down reason=\"%s\"", why);
	api_bus(((struct parts *)s->state)->api, NULL);
}

static void message(struct service *s, const char *topic, const void *payload, size_t len)
{
	(void)topic;
	api_answer(((struct parts *)s->state)->api, payload, len);
}

static void stop(struct service *s)
{
	struct parts *p = s->state;

	api_destroy(p->api);
	server_destroy(p->server);
}

int main(int argc, char **argv)
{
	static const char *const filters[] = {"$im/api/res", NULL};
	static struct parts parts;
	static const struct service_spec spec = {
		.name = "im-api",
		.client_id = "$im-api",
		.filters = filters,
		.qos = 1,
		.state = &parts,
		.start = start,
		.bus_up = bus_up,
		.bus_down = bus_down,
		.message = message,
		.stop = stop,
	};

	return service_main(&spec, argc, argv);
}
