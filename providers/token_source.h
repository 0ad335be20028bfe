/* token_source.h - a worker's way to a provider's access token: reads the shared lease, fetches a
 * new token when the lease falls to this worker, and lets callers wait for either.
 *
 * A fetch belongs to the worker, not to the request that caused it: a client that leaves does not
 * stop it. The old token serves while it is valid. */
#ifndef XROUTER_PROVIDERS_TOKEN_SOURCE_H
#define XROUTER_PROVIDERS_TOKEN_SOURCE_H

#include "common/config.h"
#include "common/counters.h"
#include "common/error.h"
#include "common/loop.h"
#include "providers/provider.h"
#include "providers/token_lease.h"
#include "providers/upstream.h"

struct token_source; /* one worker's; opaque */

/* Embedded by whoever waits; zero = not waiting. */
struct token_wait {
    /* rc 0: *token is usable (until the callback returns; wiped after it). Else XR_EUPSTREAMAUTH,
     * XR_EUPSTREAM, XR_ETIMEOUT with e. */
    void (*on_token)(struct token_wait *wait, int rc, const struct token *token,
                     const struct error *e);
    /* private */
    struct token_wait *next;
    struct config *config;
    const struct provider_config *provider;
    const struct provider_ops *ops;
    int index; /* of the lease */
    int64_t deadline_ms;
    unsigned round;
    unsigned failures; /* fetches that failed meanwhile */
    bool waiting;
};

/* All borrowed. NULL when out of memory. */
struct token_source *token_source_new(struct loop *loop, struct upstreams *upstreams,
                                      struct token_lease_region *leases, struct counters *counters);
void token_source_free(struct token_source *s); /* waiters are dropped silently */

/* Calls wait->on_token, at once when a token is at hand, else later (within timeout_ms). config is
 * borrowed until then (a fetch takes a reference); p is one of its providers. */
void token_source_get(struct token_source *s, struct config *config,
                      const struct provider_config *p, const struct provider_ops *ops,
                      int64_t timeout_ms, struct token_wait *wait);
void token_source_cancel(struct token_source *s, struct token_wait *wait); /* not waiting is fine */
/* The API refused the token of that generation. */
void token_source_invalidate(struct token_source *s, const struct config *config,
                             const struct provider_config *p, uint32_t generation);

#endif
