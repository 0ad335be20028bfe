/* route.h - model name -> candidates: which provider may answer, in which order. */
#ifndef XROUTER_ROUTER_ROUTE_H
#define XROUTER_ROUTER_ROUTE_H

#include "common/config.h"
#include "common/error.h"
#include "usage/keytable.h"

#define ROUTE_CANDIDATES_MAX 32

struct route_candidate {              /* pointers into the config the route was made from */
    const struct model_config *model; /* whose candidate it is */
    const struct candidate_config *config;
    const struct provider_config *provider;
    struct price price; /* in force when the route was made */
};

struct route {
    const struct model_config *model;                        /* the one that was asked for */
    struct route_candidate candidates[ROUTE_CANDIDATES_MAX]; /* in the order of the tries */
    size_t candidate_count;
};

/* Returns 0, XR_EMODEL (no such model or alias), XR_EMODELDENIED (the key may not use it),
 * XR_ENOPROVIDER. */
int route_find(const struct config *config, const char *model, const struct key *key,
               int64_t now_at_ms, struct route *out, struct error *e);

uint32_t route_context(const struct route_candidate *candidate);
/* The shortest context among the candidates, in tokens. */
uint32_t route_shortest_context(const struct route *route);
/* Leaves the candidates whose context holds so many tokens (of the prompt and of the answer that it
 * asks for). 0, or XR_ECONTEXT if there is none. */
int route_require_context(struct route *route, int64_t tokens, struct error *e);

#endif
