/* routing.h - a chat request's route, by what this worker knows of its candidates. */
#ifndef XROUTER_GATEWAY_ROUTING_H
#define XROUTER_GATEWAY_ROUTING_H

#include "gateway/worker.h"
#include "router/route.h"

/* Fails as route_make(). */
int routing_make(const struct worker *w, const struct http_request *request,
                 const struct model_request *parsed, struct route *out, struct error *e);

#endif
