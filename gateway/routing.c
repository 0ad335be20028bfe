#include "gateway/routing.h"

#include <string.h>

#include "common/clock.h"

int routing_make(const struct worker *w, const struct http_request *request,
                 const struct model_request *parsed, struct route *out, struct error *e)
{
    struct route_setup setup = {.config = request->config,
                                .request = parsed,
                                .key = &request->key,
                                .now_at_ms = clock_now_at_ms(),
                                .targets = w->dispatcher.targets,
                                .queue = w->setup->instance->queue,
                                .counters = w->engine.region};

    /* The random end of the id: good enough for dice, and at hand. */
    memcpy(&setup.random, request->id.bytes + USAGE_ID_BYTES - sizeof(setup.random),
           sizeof(setup.random));
    return route_make(&setup, out, e);
}
