/* answers.h - what is kept for requests with an Idempotency-Key: the rows of the table idempotency
 * and, with them, the entries of the table in shared memory (usage/idempotency.h).
 *
 * A row is made when the request's event is committed, or when its answer comes, whichever is
 * first. Rows live for answer_ttl_ms; the answers in them together take at most answers_bytes, the
 * oldest are dropped first and leave rows that still forbid to run the request again.
 *
 * Usage-writer only, but for the packet, which a worker sends (usage/handover.h). A database that
 * is busy, full or failing only delays: answers wait in bounded memory. */
#ifndef XROUTER_USAGE_ANSWERS_H
#define XROUTER_USAGE_ANSWERS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/config.h"
#include "common/counters.h"
#include "usage/idempotency.h"
#include "usage/ledger.h"

#define ANSWER_MAX_BYTES 524288 /* the most that ledger.answer_bytes can be */

/* The content types that can be kept. Stored as text, sent as a number. */
enum answer_type { ANSWER_JSON, ANSWER_EVENT_STREAM, ANSWER_TYPES };
const char *answer_type_text(enum answer_type type);            /* a literal */
int answer_type_parse(const char *text, enum answer_type *out); /* 0 or -EINVAL */

/* The other packet on usage.sock: an answer. The header alone; with it comes one descriptor
 * (SCM_RIGHTS) of a memfd of `length` bytes that is sealed against every change. */
struct answer_packet {
    uint32_t magic; /* ANSWER_PACKET_MAGIC */
    uint16_t version;
    uint16_t slot;
    uint8_t start_id[SHM_START_ID_BYTES];
    struct idempotency_key key;
    struct usage_id id;
    int64_t ended_at_ms;
    uint32_t length;
    uint16_t status;
    uint16_t type; /* enum answer_type */
};
#define ANSWER_PACKET_MAGIC UINT32_C(0x58525541)
#define ANSWER_PACKET_VERSION 1

struct answers; /* opaque */

struct answers_setup { /* all borrowed */
    struct ledger *ledger;
    struct idempotency_region *table;
    struct counters *counters;
    const struct config *config;
};
/* Hears from the ledger of each event that is remembered. NULL when out of memory. */
struct answers *answers_new(const struct answers_setup *setup);
void answers_free(struct answers *a); /* what waits is forgotten; NULL is fine */
void answers_set_config(struct answers *a, const struct config *config);

/* Puts all rows that are not over into the table: before any worker serves, or again, when it was
 * the usage-writer that died. 0 or -errno as database_errno(). */
int answers_load(struct answers *a, int64_t now_at_ms);

/* An answer has come. Reads it from fd, which stays the caller's. The header's magic, version, slot
 * and start id have been checked. 0; -EPROTO: the descriptor or header is not what a worker of ours
 * sends. An answer that finds no memory is lost, and 0. */
int answers_take(struct answers *a, const struct answer_packet *packet, int fd, int64_t now_ms);

/* Commits what has waited commit_ms, some of it a call; forgets what is over; drops what is too
 * much. Not inside a batch of the ledger. True if it committed something. */
bool answers_turn(struct answers *a, int64_t now_ms, int64_t now_at_ms);
int64_t answers_next_ms(const struct answers *a); /* monotonic time of the next due turn */
/* Whether answers wait that could be committed right now: not while the database fails. */
bool answers_are_waiting(const struct answers *a, int64_t now_ms);

/* Appends {"done":true,"status","content_type","answer"} with the answer in base64. 0, -ENOENT (no
 * such request, or its answer is not there), or -errno. */
int answers_get(struct ledger *l, const struct idempotency_key *key, struct buf *json);

#endif
