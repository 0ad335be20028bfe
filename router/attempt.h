/* attempt.h - one try of a client's request at one candidate: its files uploaded, token,
 * connection, request, answer decoded, every step without waiting. It ends in exactly one on_end.
 * Which candidate, and what after a failure, is router/dispatch.h's. */
#ifndef XROUTER_ROUTER_ATTEMPT_H
#define XROUTER_ROUTER_ATTEMPT_H

#include "common/buf.h"
#include "common/config.h"
#include "common/error.h"
#include "providers/provider.h"
#include "router/engine.h"
#include "router/queue.h"
#include "usage/event.h"

struct attempt_callbacks {
    /* Bytes of the answer were appended to out (a stream; never called for a plain answer). If
     * attempt_is_complete(), they are the last ones, and event and usage are final. Must not free
     * the attempt. */
    void (*on_output)(void *arg);
    /* 0: the answer in out is complete. Else why not; what is in out was complete events. The
     * attempt stays valid for attempt_usage() until attempt_free(), which may be called here; e is
     * the attempt's own and goes with it. Never called from attempt_start(). */
    void (*on_end)(void *arg, int rc, const struct error *e);
};

struct attempt_setup { /* all borrowed until attempt_free() */
    struct config *config;
    const struct provider_config *provider;
    const struct candidate_config *candidate;
    const struct model_request *request;
    const struct answer_identity *identity;
    const char *request_id;
    struct buf *out;     /* gets OpenAI's bytes: the body, or the stream's events */
    struct buf *ignored; /* names of parameters the provider lacks */
    struct token_meter *meter;
    struct usage_event *event;    /* its attempts[] and provider are filled here */
    struct queue_ticket *ticket;  /* its slot; stays with files that have to be removed */
    _Atomic uint32_t *has_answer; /* set to 1 with the provider's first useful byte */
    const struct attempt_callbacks *callbacks;
    void *arg;
};

struct attempt; /* opaque */

/* Returns 0, or XR_E... or -ENOMEM with e when nothing could be begun (a parameter the provider
 * lacks): then there is no attempt, and no on_end. */
int attempt_start(struct engine *engine, const struct attempt_setup *setup, struct attempt **out,
                  struct error *e);
/* Cancels what runs (the provider's connection is closed at once) and frees; files that were
 * uploaded for it are removed behind it. NULL is fine. */
void attempt_free(struct attempt *a);
/* Backpressure: the client is slow. */
void attempt_pause(struct attempt *a);
void attempt_resume(struct attempt *a);
/* Tokens so far; *final = the provider's own word. */
const struct token_usage *attempt_usage(const struct attempt *a, bool *final);
/* Whether the whole answer is in out. */
bool attempt_is_complete(const struct attempt *a);
/* Microseconds spent waiting for the provider, so far. */
int64_t attempt_waited_us(const struct attempt *a);
/* Whether the request itself was sent: not if it ended while it waited for a token. */
bool attempt_was_sent(const struct attempt *a);
/* From the request sent to the answer's first byte; 0 = none has come. */
int64_t attempt_first_byte_us(const struct attempt *a);
/* What of it went by until there was a connection; 0 = one was kept alive, or no answer has come.
 */
int64_t attempt_connect_us(const struct attempt *a);
/* What the provider's Retry-After asked for, at most ATTEMPT_RETRY_AFTER_MAX_MS; 0 = nothing. */
#define ATTEMPT_RETRY_AFTER_MAX_MS 60000
int64_t attempt_retry_after_ms(const struct attempt *a);

#endif
