/* idempotency.h - which requests with an Idempotency-Key run or have run: a table in shared memory,
 * claimed by the workers without a lock.
 *
 * A claim is exclusive: of all requests that bring the same key, at whatever instant and in
 * whatever process, at most one gets it, and if none has it yet, one does. The proof is in
 * idempotency.c.
 *
 * States of an entry, in order:
 *   WRITING      a process is filling it in; nobody looks at it
 *   CLAIMING     its process looks whether others want the same key
 *   RUNNING      the request runs
 *   STORING      it is over, its answer is on its way to the usage-writer
 *   STORED       the answer is in the ledger
 *   UNAVAILABLE  it is over and cost something, its answer is not kept: never to be run again
 * The last two end after a while; the entry's place is then free. An entry before them belongs to a
 * worker's slot, and the reaper decides about it when that worker dies. */
#ifndef XROUTER_USAGE_IDEMPOTENCY_H
#define XROUTER_USAGE_IDEMPOTENCY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/shm.h"
#include "usage/event.h"

#define IDEMPOTENCY_REGION "idempotency"
/* An entry's time ends so long after its row's in the ledger, which takes the entry with it. */
#define IDEMPOTENCY_GRACE_MS 60000

/* The key: of the API key and the header's text. The request: of method, path and body. */
struct idempotency_key {
    uint8_t key[USAGE_DIGEST_BYTES];
    uint8_t request[USAGE_DIGEST_BYTES];
};

enum idempotency_state {
    IDEMPOTENCY_ABSENT,
    IDEMPOTENCY_CLAIMED, /* it is the caller's now: RUNNING */
    IDEMPOTENCY_RUNNING, /* somebody runs it, or is about to */
    IDEMPOTENCY_STORING,
    IDEMPOTENCY_STORED,
    IDEMPOTENCY_UNAVAILABLE,
    IDEMPOTENCY_REUSED, /* the key is there with another request */
    IDEMPOTENCY_FULL    /* no place: the request must not run */
};

struct idempotency_region; /* in shared memory; opaque */

/* init expects zeroed memory. capacity: keys remembered at once. */
struct shm_region_spec idempotency_region_spec(size_t capacity);
void idempotency_region_init(struct idempotency_region *r, size_t capacity);
struct idempotency_region *idempotency_region_get(const struct shm *shm);

/* ---- for workers ---- */

struct idempotency_claim {
    size_t place;
    uint64_t word; /* of the entry while it is RUNNING */
};

/* CLAIMED with *out, RUNNING, STORING, STORED, UNAVAILABLE, REUSED or FULL. id is the request's:
 * under it the entry is found later. */
enum idempotency_state idempotency_claim(struct idempotency_region *r,
                                         const struct idempotency_key *key, size_t slot,
                                         const struct usage_id *id, int64_t now_at_ms,
                                         struct idempotency_claim *out);
/* What the table says now, with no claim: ABSENT, RUNNING, STORING, STORED, UNAVAILABLE, REUSED. */
enum idempotency_state idempotency_look(const struct idempotency_region *r,
                                        const struct idempotency_key *key, int64_t now_at_ms);
/* The end of the claimed request. expires_at_ms is when it will be forgotten. */
void idempotency_release(struct idempotency_region *r, const struct idempotency_claim *claim);
void idempotency_begin_storing(struct idempotency_region *r, const struct idempotency_claim *claim,
                               int64_t expires_at_ms);
void idempotency_give_up(struct idempotency_region *r, const struct idempotency_claim *claim,
                         int64_t expires_at_ms); /* UNAVAILABLE */

/* ---- by key and id: for the reaper and whoever has the answer ---- */

/* RUNNING -> UNAVAILABLE: the worker is dead, and its request cost something. */
void idempotency_keep(struct idempotency_region *r, const uint8_t key[USAGE_DIGEST_BYTES],
                      const struct usage_id *id, int64_t expires_at_ms);
/* Then what is left of the dead worker's: STORING becomes UNAVAILABLE (STORED, if its answer is
 * with the usage-writer already), everything else free. */
void idempotency_reap(struct idempotency_region *r, size_t slot);
/* STORING or STORED -> UNAVAILABLE: the answer is lost. */
void idempotency_lose(struct idempotency_region *r, const uint8_t key[USAGE_DIGEST_BYTES],
                      const struct usage_id *id);
/* STORING, of this very request: whoever holds its answer should go on holding it. */
bool idempotency_is_storing(const struct idempotency_region *r,
                            const uint8_t key[USAGE_DIGEST_BYTES], const struct usage_id *id);

/* ---- for the usage-writer alone ---- */

/* The ledger has the request, with its answer (stored) or without. An entry of that id that is past
 * RUNNING becomes STORED if stored; one that runs, or belongs to a later request, stays; without an
 * entry one is made. 0 or -ENOSPC. */
int idempotency_put(struct idempotency_region *r, const struct idempotency_key *key,
                    const struct usage_id *id, bool stored, int64_t now_at_ms,
                    int64_t expires_at_ms);
/* The ledger has forgotten it: STORED and UNAVAILABLE become free. */
void idempotency_forget(struct idempotency_region *r, const uint8_t key[USAGE_DIGEST_BYTES],
                        const struct usage_id *id);
/* What an earlier usage-writer left half made. */
void idempotency_reap_writer(struct idempotency_region *r);

#endif
