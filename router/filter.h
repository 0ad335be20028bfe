/* filter.h - which candidates may serve a request at all. Private to the route. */
#ifndef XROUTER_ROUTER_FILTER_H
#define XROUTER_ROUTER_FILTER_H

#include "router/route.h"

/* The providers that the request names exist. 0 or XR_EINVALID. */
int filter_check_wishes(const struct config *config, const struct chat_wishes *wishes,
                        struct error *e);
/* Leaves the candidates that can serve the request, and of those the ones that it wants. 0,
 * XR_EUNSUPPORTED or XR_EINVALID when a condition leaves none. */
int filter_apply(const struct model_request *request, struct route *route, struct error *e);

#endif
