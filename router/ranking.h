/* ranking.h - the order among the candidates of one model. Private to the route. */
#ifndef XROUTER_ROUTER_RANKING_H
#define XROUTER_ROUTER_RANKING_H

#include "router/route.h"

/* Orders candidates of the same model, at most CONFIG_CANDIDATES_MAX. *random is used up. */
void ranking_order(const struct route_setup *setup, struct route_candidate *candidates,
                   size_t count, uint64_t *random);

#endif
