/* side_call.h - a small request to a provider beside the calls that clients make: a file uploaded
 * or removed, tokens counted, a list read. Token, connection, request, whole answer; a token that
 * the provider refuses is renewed once. */
#ifndef XROUTER_ROUTER_SIDE_CALL_H
#define XROUTER_ROUTER_SIDE_CALL_H

#include "common/config.h"
#include "common/error.h"
#include "providers/provider.h"
#include "router/engine.h"

struct side_call_setup { /* all borrowed until side_call_free() */
    struct config *config;
    const struct provider_config *provider;
    const struct provider_ops *ops;
    const char *request_id;
    int64_t timeout_ms; /* for all of it */
    /* Writes the request into an empty out; again when the token had to be renewed. 0 or XR_E... */
    int (*encode)(void *arg, const struct upstream_call *call, struct upstream_request *out,
                  struct error *e);
    /* Exactly once, last, never from side_call_start(). 0: the provider said 200, with this body;
     * else why not. side_call_free() may be called here. */
    void (*on_end)(void *arg, int rc, const struct buf *body, const struct error *e);
    void *arg;
};

struct side_call; /* opaque */

/* 0, or XR_E... or -ENOMEM with e when nothing could be begun: then there is no call, no on_end. */
int side_call_start(struct engine *engine, const struct side_call_setup *setup,
                    struct side_call **out, struct error *e);
void side_call_free(struct side_call *c); /* cancels what runs; NULL is fine */
/* The provider's status; 0 = none has come. */
unsigned side_call_status(const struct side_call *c);

#endif
