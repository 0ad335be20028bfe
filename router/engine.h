/* engine.h - what everything that calls providers shares in a worker. */
#ifndef XROUTER_ROUTER_ENGINE_H
#define XROUTER_ROUTER_ENGINE_H

#include "common/counters.h"
#include "common/loop.h"
#include "providers/token_source.h"
#include "providers/upstream.h"

struct queues;  /* router/queue.h */
struct uploads; /* router/uploads.h */

/* Embedded, all borrowed. */
struct engine {
    struct loop *loop;
    struct upstreams *upstreams;
    struct token_source *tokens;
    struct counters *counters;
    struct counters_region *region;
    size_t slot; /* the worker's */
    struct queues *queues;
    struct uploads *removals; /* owned: files that are being removed (router/uploads.h) */
};

#endif
