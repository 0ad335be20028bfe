/* inflight.h - every request that is running, one row in shared memory: what `xrouterctl requests`
 * shows, `kill` marks, and the reaper settles when the worker dies.
 *
 * Row states, in order; only the row's worker stores them, or the reaper once the worker is dead:
 *   FREE      nobody's
 *   RUNNING   admitted: an event is owed. event.tokens_* are what has been received so far
 *   FINAL     the event's numbers are final; its bytes may be on their way to the client
 * kill -9 at any instruction neither loses nor doubles: FINAL bills the row's numbers, RUNNING
 * bills prompt + received if a byte of the answer had come, else nothing; the event's id is fixed
 * at admission, so an event that is already in the ring or the ledger is simply a duplicate. */
#ifndef XROUTER_GATEWAY_INFLIGHT_H
#define XROUTER_GATEWAY_INFLIGHT_H

#include <stdatomic.h>
#include <stdbool.h>

#include "common/counters.h"
#include "common/shm.h"
#include "usage/event.h"
#include "usage/outbox.h"

#define INFLIGHT_REGION "inflight"

enum inflight_state { INFLIGHT_FREE, INFLIGHT_RUNNING, INFLIGHT_FINAL };

struct inflight_row {
    _Atomic uint32_t state;
    _Atomic uint32_t kill;       /* set to 1 by the master on `xrouterctl kill`; the worker obeys */
    int64_t started_ms;          /* monotonic */
    _Atomic uint32_t has_answer; /* 1 = a byte of the answer came from the provider */
    uint32_t index;              /* private: its own index */
    struct usage_event event;
};

struct inflight_region; /* in shared memory; opaque */

/* init expects zeroed memory; node is the one in the events' ids. */
struct shm_region_spec inflight_region_spec(size_t slots, size_t rows);
void inflight_region_init(struct inflight_region *r, size_t slots, size_t rows, uint32_t node);
struct inflight_region *inflight_region_get(const struct shm *shm);
size_t inflight_slot_count(const struct inflight_region *r);
size_t inflight_row_count(const struct inflight_region *r); /* per slot */
struct inflight_row *inflight_row_at(struct inflight_region *r, size_t slot, size_t row);
struct usage_id_state *inflight_ids(struct inflight_region *r, size_t slot);

/* Rewrites the free list of a slot from the row states: a worker does this once when it starts. */
void inflight_slot_open(struct inflight_region *r, size_t slot);
/* Takes a free row and zeroes its event; NULL when all are taken. The row becomes RUNNING (and is
 * the reaper's business) with inflight_admit(), after the caller has filled id, key, model, price.
 */
struct inflight_row *inflight_take(struct inflight_region *r, size_t slot);
void inflight_admit(struct inflight_row *row);
/* RUNNING -> FINAL. From here on nothing in the event changes: the copy in the ring and the one
 * that a reaper may append again must be the same bytes. */
void inflight_finish(struct inflight_row *row);
/* FINAL, its event appended (or a row that was never admitted) -> FREE. */
void inflight_free(struct inflight_region *r, size_t slot, struct inflight_row *row);

/* The reaper: settles every row of a slot whose worker is dead (appends to its ring under the
 * reservations the worker had), frees them, zeroes the slot's gauges (counters may be NULL), resets
 * the ring's owner and reservations. Returns how many events it appended. Safe to run again when
 * the reaper itself died in the middle. A row whose event finds no room (only after several such
 * deaths) stays for the next run. */
size_t inflight_reap(struct inflight_region *r, size_t slot, struct outbox *ob,
                     struct counters_region *counters, int64_t now_at_ms);

#endif
