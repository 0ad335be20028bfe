/* inflight.h - every request that is running, one row in shared memory: what `xrouterctl requests`
 * shows, `kill` marks, and the reaper settles when the worker dies.
 *
 * Row states, in order; only the row's worker stores them, or the reaper once the worker is dead:
 *   FREE       nobody's
 *   RESERVING  the key's account is changing (usage/accounts.h)
 *   RUNNING    admitted: an event is owed. event.tokens_* are what has been received so far
 *   FINAL      the event's numbers are final, and it is on its way into the ring
 *   SETTLING   the event is in the ring; the key's account is changing
 *   SETTLED    nothing is owed any more; the answer's last bytes may still be on their way
 * kill -9 at any instruction neither loses nor doubles: FINAL bills the row's numbers, RUNNING
 * bills prompt + received if a byte of the answer had come, else nothing; the event's id is fixed
 * at admission, so an event that is already in the ring or the ledger is simply a duplicate. A row
 * that waits for a recount is FINAL with its event in the ring, which the row says. */
#ifndef XROUTER_GATEWAY_INFLIGHT_H
#define XROUTER_GATEWAY_INFLIGHT_H

#include <stdatomic.h>
#include <stdbool.h>

#include "common/counters.h"
#include "common/shm.h"
#include "usage/accounts.h"
#include "usage/event.h"
#include "usage/outbox.h"
#include "usage/recount.h"

#define INFLIGHT_REGION "inflight"

enum inflight_state {
    INFLIGHT_FREE,
    INFLIGHT_RESERVING,
    INFLIGHT_RUNNING,
    INFLIGHT_FINAL,
    INFLIGHT_SETTLING,
    INFLIGHT_SETTLED
};

struct inflight_row {
    _Atomic uint32_t state;
    _Atomic uint32_t kill;       /* set to 1 by the master on `xrouterctl kill`; the worker obeys */
    int64_t started_ms;          /* monotonic */
    _Atomic uint32_t has_answer; /* 1 = a byte of the answer came from the provider */
    _Atomic uint32_t is_queued;  /* 1 = the event is in the ring */
    _Atomic uint32_t uses;       /* private: rises with each use of the row */
    uint32_t index;              /* private: its own index */
    struct reservation reservation;
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
/* Takes a free row and zeroes its event and reservation; NULL when all are taken. */
struct inflight_row *inflight_take(struct inflight_region *r, size_t slot);
/* FREE -> RUNNING by way of RESERVING: reserves what row->reservation says; before that the caller
 * has filled the event's id, key, model, time, price and prompt. From here on the row is the
 * reaper's business. 0, or as account_reserve(): the row is as before, for another try or
 * inflight_free(). */
int inflight_admit(struct inflight_row *row, struct accounts_region *accounts,
                   enum account_word *short_of);
/* RUNNING -> FINAL. From here on nothing in the event changes: the copy in the ring and the one
 * that a reaper may append again must be the same bytes. */
void inflight_finish(struct inflight_row *row);
/* FINAL, its event appended -> SETTLED by way of SETTLING: the account gets the reservation back
 * and pays the cost. 0, or -EAGAIN (a recount is due): the row stays FINAL, call again later. */
int inflight_settle(struct inflight_row *row, struct accounts_region *accounts);
/* SETTLED (or a row that was never admitted) -> FREE. */
void inflight_free(struct inflight_region *r, size_t slot, struct inflight_row *row);

/* The reaper: settles every row of a slot whose worker is dead (appends to its ring under the
 * reservations the worker had; marks the accounts), frees them, zeroes the slot's gauges, resets
 * the ring's owner and reservations. accounts is NULL in recovery, where balances are counted anew
 * anyway, and so may counters be. Returns how many events it appended. Safe to run again when the
 * reaper itself died in the middle. A row whose event finds no room (only after several such
 * deaths) stays for the next run. */
size_t inflight_reap(struct inflight_region *r, size_t slot, struct outbox *ob,
                     struct accounts_region *accounts, struct counters_region *counters,
                     int64_t now_at_ms);

/* For the recount: visits every row that is not FREE or SETTLED; arg is the struct inflight_region.
 * A row is visited with what it owes, as it is at that moment; one that begins or ends meanwhile
 * may be left out. */
void inflight_each_open(void *arg, open_request_fn visit, void *visit_arg);

#endif
