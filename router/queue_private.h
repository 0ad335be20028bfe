/* queue_private.h - what the files queue*.c share: the region's structs, and taking a slot. */
#ifndef XROUTER_ROUTER_QUEUE_PRIVATE_H
#define XROUTER_ROUTER_QUEUE_PRIVATE_H

#include <stdatomic.h>

#include "router/queue.h"

/* Who waits. An entry is its worker's from the moment that it has taken it to the moment that it
 * lets go of it; others read it. */
struct entry {
    _Atomic uint32_t worker; /* worker slot + 1, 0 = free */
    _Atomic uint64_t tag;    /* the round, then the order of arrival: the smallest is first */
    _Atomic uint64_t key;
};

#define WAITING_WORDS (QUEUE_WAITERS_MAX / 64)

struct provider_queue {
    _Atomic uint32_t slots[QUEUE_SLOTS_MAX]; /* worker slot + 1, 0 = free */
    _Atomic uint64_t waiting[WAITING_WORDS]; /* a bit an entry: its tag and key hold */
    _Atomic uint32_t round;                  /* of the entry that was first last */
    _Atomic uint32_t arrivals;
    _Atomic int64_t turned_ms;                            /* when a turn came last */
    _Atomic int64_t pace_ms;                              /* between two turns, a moving average */
    _Atomic int64_t resting_until_ms[QUEUE_ACCOUNTS_MAX]; /* monotonic */
    struct entry entries[QUEUE_WAITERS_MAX];
};

struct queue_region {
    uint64_t providers;
    struct provider_queue queues[];
};

struct queues {
    struct loop *loop;
    struct queue_region *region;
    size_t worker;
    const int *wake_fds;
    struct event_source wake;
    struct timer timer;
    struct queue_ticket *first, *last; /* that wait here */
};

static inline struct provider_queue *queue_of(const struct queues *q, const struct queue_ticket *t)
{
    return &q->region->queues[t->place.provider];
}

/* queue_slots.c */
/* Whether t has a slot now: of its key's account if there is one, else of another that is awake. */
bool slot_take(struct provider_queue *q, size_t worker, struct queue_ticket *t);
/* The index of a slot of that account that is ours now, or -EAGAIN. */
int slot_take_of(struct provider_queue *q, size_t worker, const struct queue_place *place,
                 uint32_t account);
/* Without slots: the key's account, or the next one that is awake. */
uint32_t slot_choose_account(const struct provider_queue *q, const struct queue_place *place,
                             uint64_t key);

#endif
