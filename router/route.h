/* route.h - model name -> candidates: which provider may answer, in which order.
 *
 * 1. The request's `model`, then its `models`; where it names none, the config's default_model.
 * 2. Of each, its candidates by `priority`, the lower number first.
 * 3. Those of one priority by the model's strategy:
 *      priority   as they stand in the file
 *      weighted   at random, by weight; those of weight 0 behind the others
 *      latency    the shortest average time to a first byte first; one without, to measure it
 *      cost       the lowest price of 1,000 prompt tokens, 1,000 completion tokens and a request
 *      busy       the smallest share of max_concurrent slots taken (or waited for) first
 *    Equal ones stay as they stand in the file.
 * 4. Left out is what cannot serve the request (tools, images, json_schema), and what the request
 *    itself does not want (providers/chat_wishes.h). Its `sort` takes the place of priority and
 *    strategy; its `order` goes before both. */
#ifndef XROUTER_ROUTER_ROUTE_H
#define XROUTER_ROUTER_ROUTE_H

#include "common/config.h"
#include "common/counters.h"
#include "common/error.h"
#include "providers/model_request.h"
#include "router/queue.h"
#include "router/targets.h"
#include "usage/keytable.h"

#define ROUTE_CANDIDATES_MAX ((1 + CHAT_MODELS_MAX) * CONFIG_CANDIDATES_MAX)

struct route_candidate {              /* pointers into the config the route was made from */
    const struct model_config *model; /* whose candidate it is */
    const struct candidate_config *config;
    const struct provider_config *provider;
    struct price price; /* in force when the route was made */
};

struct route {
    const struct model_config *model;                        /* the first that was asked for */
    struct route_candidate candidates[ROUTE_CANDIDATES_MAX]; /* in the order of the tries */
    size_t candidate_count;
};

/* All borrowed. */
struct route_setup {
    const struct config *config;
    const struct model_request *request;
    const struct key *key;
    int64_t now_at_ms;
    uint64_t random; /* weighted: the dice */
    /* What is known of the candidates; NULL = nothing. */
    struct targets_region *targets;
    const struct queue_region *queue;
    const struct counters_region *counters; /* providers' indexes */
};

/* The candidates of a chat request. Returns 0, XR_EINVALID (no model is named, a provider that does
 * not exist, none that is wanted), XR_EMODEL (no such model or alias), XR_EMODELDENIED (the key may
 * not use it), XR_EUNSUPPORTED (tools, images or a schema that no candidate takes),
 * XR_ENOPROVIDER. */
int route_make(const struct route_setup *setup, struct route *out, struct error *e);

/* The candidates of one model as they stand in the file; "" = the default model. Fails as
 * route_make(). */
int route_find(const struct config *config, const char *model, const struct key *key,
               int64_t now_at_ms, struct route *out, struct error *e);

uint32_t route_context(const struct route_candidate *candidate);
/* The shortest context among the candidates, in tokens. */
uint32_t route_shortest_context(const struct route *route);
/* Leaves the candidates whose context holds so many tokens (of the prompt and of the answer that it
 * asks for). 0, or XR_ECONTEXT if there is none. */
int route_require_context(struct route *route, int64_t tokens, struct error *e);

#endif
