/* replay.h - requests with an Idempotency-Key: each runs once, and who asks again gets the same
 * answer.
 *
 * A request that may run has a claim (usage/idempotency.h) from before its admission until its
 * event is in the ring; while it runs, the bytes of its answer are collected up to answer_bytes. At
 * the end the claim is released (nothing was used: it may run again), or the answer is handed to
 * the usage-writer, or the key is marked as one whose answer is not kept. */
#ifndef XROUTER_GATEWAY_REPLAY_H
#define XROUTER_GATEWAY_REPLAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gateway/worker.h"

#define REPLAY_KEY_MAX 255 /* bytes of the header */
/* Bytes of answers that a worker collects at once; beyond it an answer is not kept. */
#define REPLAY_COLLECTED_MAX (128 * (size_t)ANSWER_MAX_BYTES)

struct replay; /* opaque: a claim, and the answer so far */

/* Call once the request is known to be good, before anything is reserved for it.
 * 0: run it; *out is NULL if it brought no key. 1: the answer is there, or about to be: the request
 * is not the caller's any more, it will be answered. XR_EINVALID, XR_EINPROGRESS (with retry-after
 * added), XR_EKEYREUSED, XR_ENOREPLAY, XR_EOVERLOADED or XR_EINTERNAL in *e: refuse it. */
int replay_begin(struct replay **out, struct worker *w, struct http_request *request,
                 struct error *e);
/* All of these take NULL for a request without a key. */

/* Writes the key into the event of the request's row: before inflight_admit(). */
void replay_mark(const struct replay *r, struct usage_event *event);
/* Bytes of the answer's body, in order. */
void replay_note(struct replay *r, const void *bytes, size_t len);
/* The request is over: its event is final (NULL = it was never admitted), and its row not yet free.
 * is_complete: all bytes of the answer have been noted. Frees r. content_type: a literal. */
void replay_end(struct replay *r, const struct usage_event *event, bool is_complete,
                unsigned status, const char *content_type);

/* The master's, when the worker of that slot has died and before its rows are reaped: frees the
 * claims of what used nothing, marks the others as answers that are not kept. */
void replay_reap(struct instance *instance, size_t slot, int64_t expires_at_ms);

#endif
