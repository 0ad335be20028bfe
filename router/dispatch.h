/* dispatch.h - one client request on its way along its route: a candidate is chosen, waits for a
 * slot of its provider, is tried; what fails goes on to the next one, or is repeated after a wait,
 * until one answers, or none is left, or a byte of an answer is on its way to the client.
 *
 * - A candidate is passed over while its provider is switched off, its breaker open, or the
 *   provider has asked to be left alone (Retry-After).
 * - What was one account's failure (its limit, its quota, its secrets) is tried again at once with
 *   another account of the same provider, if it has one.
 * - If one fails the next begins at once. When all have been tried, the first that may be repeated
 *   is, after a backoff with full jitter (or the provider's Retry-After), as long as
 * retry.attempts, the worker's budget of repeats and the request's deadline allow it.
 * - Where all slots are taken and no other candidate has a free one, the request waits in turn
 *   (router/queue.h).
 * - What a client did wrong, and what the gateway cannot do, is final. */
#ifndef XROUTER_ROUTER_DISPATCH_H
#define XROUTER_ROUTER_DISPATCH_H

#include "router/attempt.h"
#include "router/queue.h"
#include "router/route.h"
#include "router/targets.h"

#define DISPATCH_BUDGET_MAX 1000 /* ten repeats: what a quiet time saves up */

/* What all dispatches of a worker share; embedded, all borrowed. */
struct dispatcher {
    struct engine *engine;
    struct targets_region *targets;
    uint32_t budget; /* repeats that may be made, in hundredths; DISPATCH_BUDGET_MAX at first */
};

struct dispatch_callbacks {
    /* A try begins, with the meter at zero. NULL is fine. Also from dispatch_start(). */
    void (*on_try)(void *arg, const struct route_candidate *candidate);
    /* As attempt_callbacks: bytes were appended to out; they may go to the client, and from now on
     * the answer is this candidate's. Must not free the dispatch. */
    void (*on_output)(void *arg);
    /* As attempt_callbacks; e is the last failure's, unless an earlier one tells more. Never called
     * from dispatch_start(). */
    void (*on_end)(void *arg, int rc, const struct error *e);
};

struct dispatch_setup { /* all borrowed until dispatch_free() */
    struct config *config;
    const struct route *route;
    const struct model_request *request;
    const struct answer_identity *identity;
    const char *request_id;
    uint64_t key_id;     /* turns in a queue are by key */
    int64_t deadline_ms; /* monotonic: everything ends then with XR_ETIMEOUT; 0 = none */
    struct buf *out;
    struct buf *ignored;
    struct token_meter *meter;
    struct usage_event *event; /* its provider, price and attempts[] are filled here */
    _Atomic uint32_t *has_answer;
    const struct dispatch_callbacks *callbacks;
    void *arg;
};

struct dispatch; /* opaque */

/* 0, or XR_E... with e when no candidate could be begun: then there is no dispatch, and no on_end.
 * When to try again is in *retry_after_ms, 0 = nothing is known. */
int dispatch_start(struct dispatcher *dispatcher, const struct dispatch_setup *setup,
                   struct dispatch **out, int64_t *retry_after_ms, struct error *e);
/* Cancels what runs and waits. NULL is fine. */
void dispatch_free(struct dispatch *d);
/* Backpressure: the client is slow. */
void dispatch_pause(struct dispatch *d);
void dispatch_resume(struct dispatch *d);
/* Tokens so far; *final = the provider's own word. */
const struct token_usage *dispatch_usage(const struct dispatch *d, bool *final);
/* Whether the whole answer is in out. */
bool dispatch_is_complete(const struct dispatch *d);
/* Microseconds spent waiting for providers, and in queues for them, so far. */
int64_t dispatch_waited_us(const struct dispatch *d);
/* What of it the last attempt's connection took; 0 = one was kept alive. */
int64_t dispatch_connect_us(const struct dispatch *d);
int64_t dispatch_queued_us(const struct dispatch *d);
/* The candidate that is tried, or was last; NULL = none yet. *attempts: how many tries, it
 * included. */
const struct route_candidate *dispatch_candidate(const struct dispatch *d, unsigned *attempts);
/* After a failure: when a client should try again, in ms; 0 = nothing is known. */
int64_t dispatch_retry_after_ms(const struct dispatch *d);

#endif
