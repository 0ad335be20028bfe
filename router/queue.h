/* queue.h - how many requests a provider serves at once: slots in shared memory, exact over all
 * workers, and a bounded fair queue for who must wait.
 *
 * A slot is a word that names its worker, taken by compare-and-swap, so what a dead worker held can
 * be given back. Who waits has an entry with a tag: the number of the round in which its key's turn
 * comes (each key has one turn a round, however many requests it sends). The entry with the
 * smallest tag is first, and only the first may take a slot; nobody overtakes. Who frees a slot
 * wakes the worker of the first by its eventfd. No lock anywhere.
 *
 * A provider's accounts have the same number of slots each: slot i is account i modulo their
 * number's. A key gets slots of the same account while one is free there, because prompt caches are
 * an account's; an account that has failed rests. */
#ifndef XROUTER_ROUTER_QUEUE_H
#define XROUTER_ROUTER_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/config.h"
#include "common/loop.h"
#include "common/shm.h"

#define QUEUE_REGION "queue"
#define QUEUE_SLOTS_MAX CONFIG_SLOTS_MAX
#define QUEUE_ACCOUNTS_MAX CONFIG_ACCOUNTS_MAX
#define QUEUE_WAITERS_MAX 256 /* of one provider; queue.length is at most this */

struct queue_region; /* in shared memory; opaque */
struct queues;       /* a worker's view; opaque */

/* providers: with the counters' indexes. init expects zeroed memory. */
struct shm_region_spec queue_region_spec(size_t providers);
void queue_region_init(struct queue_region *r, size_t providers);
struct queue_region *queue_region_get(const struct shm *shm);
/* What a dead worker held and waited for; wake_fds[slot] of each worker. The master's alone. */
void queue_reap(struct queue_region *r, size_t worker_slot, const int *wake_fds);
/* For stat: slots taken, and entries waiting. */
void queue_look(const struct queue_region *r, size_t provider, uint32_t *taken, uint32_t *waiting);
/* How many accounts rest. */
uint32_t queue_resting(const struct queue_region *r, size_t provider);

/* wake_fds: one eventfd (non-blocking) for each worker slot, borrowed; worker_slot is this one's. 0
 * or -errno. */
int queues_new(struct loop *loop, struct queue_region *r, size_t worker_slot, const int *wake_fds,
               struct queues **out);
void queues_free(struct queues *q); /* nobody may wait any more. NULL is fine */

/* Where a slot is wanted: the provider's index in the counters, its accounts, and the slots of each
 * (QUEUE_SLOTS_MAX or more: no limit). */
struct queue_place {
    size_t provider;
    uint32_t accounts;
    uint32_t limit;
};
/* index < 0: it has none, and nothing is counted. */
struct queue_place queue_place_of(const struct provider_config *provider, int index);

struct queue_ticket { /* embedded; zero = nothing held */
    uint32_t account; /* whose slot is held */
    /* The wait is over: 0 = a slot is held; XR_EBUSY = the deadline came first. From the loop,
     * never from queue_enter(). */
    void (*on_turn)(struct queue_ticket *t, int rc);
    /* private */
    struct queue_ticket *next, *prev;
    int64_t deadline_ms;
    struct queue_place place;
    uint64_t key;
    uint32_t entry; /* + 1, 0 = not waiting */
    uint32_t slot;  /* + 1, 0 = none held */
};

/* A slot of the provider for a request of that key. 0 = held; 1 = waits for at most wait_ms (at
 * most length others wait before it is refused); XR_EBUSY = the queue is full. */
int queue_enter(struct queues *q, struct queue_ticket *t, const struct queue_place *place,
                uint64_t key, uint32_t length, int64_t wait_ms);
/* A slot of that very account, without waiting: 0 or XR_EBUSY. */
int queue_try_account(struct queues *q, struct queue_ticket *t, const struct queue_place *place,
                      uint32_t account);
/* The account of the slot that t holds gets no more requests for so long, if the provider has
 * another one that does. Else nothing happens, and false. */
bool queue_rest_account(struct queues *q, const struct queue_ticket *t, int64_t rest_ms);
/* How long until the first of the provider's accounts that rest is back; 0 = none rests. */
int64_t queue_rest_ms(const struct queues *q, const struct queue_ticket *t);
/* The slot that from holds, if it does, is to's from now on; to must hold nothing. Neither waits.
 */
void queue_pass(struct queue_ticket *from, struct queue_ticket *to);
/* Gives the slot back, or stops waiting. Neither is fine. */
void queue_leave(struct queues *q, struct queue_ticket *t);
/* How long somebody who was refused should wait, from how fast turns come: at least 1000 ms, at
 * most 60000. */
int64_t queue_retry_after_ms(const struct queues *q, size_t provider);

#endif
