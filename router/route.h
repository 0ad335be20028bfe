/* route.h - model name -> candidates: which provider may answer, in which order. */
#ifndef XROUTER_ROUTER_ROUTE_H
#define XROUTER_ROUTER_ROUTE_H

#include "common/config.h"
#include "common/error.h"
#include "usage/keytable.h"

struct route {
    const struct model_config *model;          /* inside the config it was made from */
    const struct candidate_config *candidates; /* the model's own, lowest priority number first */
    size_t candidate_count;
};

/* Returns 0, XR_EMODEL (no such model or alias), XR_EMODELDENIED (the key may not use it),
 * XR_ENOPROVIDER. */
int route_find(const struct config *config, const char *model, const struct key *key,
               struct route *out, struct error *e);

#endif
