/* provider_count.h - the tokens of texts, counted by a model's own provider: by its first candidate
 * whose provider counts, is not barred and has a free slot, which is held meanwhile. */
#ifndef XROUTER_ROUTER_PROVIDER_COUNT_H
#define XROUTER_ROUTER_PROVIDER_COUNT_H

#include "router/dispatch.h"

struct provider_count_setup { /* all borrowed until provider_count_free() */
    struct config *config;
    const struct route *route;
    const cJSON *input; /* a string or strings */
    const char *request_id;
    uint64_t key_id;
    /* Exactly once, never from provider_count_start(). 0 with their sum, or why it is not known.
     * provider_count_free() may be called here. */
    void (*on_end)(void *arg, int rc, int64_t tokens);
    void *arg;
};

struct provider_count; /* opaque */

/* 0, XR_ENOPROVIDER (nobody counts now) or another XR_E...: then there is no count. */
int provider_count_start(struct dispatcher *dispatcher, const struct provider_count_setup *setup,
                         struct provider_count **out);
void provider_count_free(struct provider_count *c); /* cancels what runs; NULL is fine */

#endif
