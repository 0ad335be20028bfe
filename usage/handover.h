/* handover.h - answers on their way from a worker to the usage-writer (usage/answers.h), each in a
 * sealed memfd of its own: a packet of the socket would not hold them.
 *
 * An answer is kept until its entry (usage/idempotency.h) is no longer STORING, which is the
 * usage-writer's word that it is durable; after a lost connection all are sent again. What is kept
 * is bounded: beyond it the oldest is lost, and its entry becomes UNAVAILABLE. */
#ifndef XROUTER_USAGE_HANDOVER_H
#define XROUTER_USAGE_HANDOVER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/counters.h"
#include "usage/answers.h"
#include "usage/idempotency.h"

#define HANDOVER_MAX_BYTES (32 * (size_t)ANSWER_MAX_BYTES)
#define HANDOVER_MAX_ANSWERS 1024

struct handover; /* opaque */

/* All borrowed. NULL when out of memory. */
struct handover *handover_new(struct idempotency_region *table, struct counters *counters,
                              uint16_t slot, const uint8_t start_id[SHM_START_ID_BYTES]);
void handover_free(struct handover *h); /* NULL is fine */

struct handover_answer {
    struct idempotency_key key;
    struct usage_id id;
    int64_t ended_at_ms;
    unsigned status;
    enum answer_type type;
};
/* Takes the body's bytes over; its entry is STORING. Without memory it is lost. */
void handover_add(struct handover *h, const struct handover_answer *answer, struct buf *body);
/* Sends what has not been sent. 0 = all is, -EAGAIN = the socket is full, -ENOBUFS = no memory or
 * descriptor right now, else -errno: the connection is broken. */
int handover_send(struct handover *h, int socket);
bool handover_has_unsent(const struct handover *h);
/* A new connection: what the last one carried may never have arrived. */
void handover_rewind(struct handover *h);
/* Forgets what has been stored. */
void handover_tidy(struct handover *h);
size_t handover_count(const struct handover *h);

#endif
