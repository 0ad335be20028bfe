#include "router/queue_private.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/container.h"
#include "common/error.h"

#define NOBODY UINT32_MAX
#define RETRY_MIN_MS 1000
#define RETRY_MAX_MS 60000
#define LOOK_EVERY_MS 50 /* at those that wait, should a wake-up be lost with its sender */
#define PACE_SHIFT 3

/* ---- entries ---- */

static bool is_waiting(const struct provider_queue *q, uint32_t index)
{
    return (atomic_load(&q->waiting[index / 64]) >> index % 64 & 1) != 0;
}

static bool has_waiting(const struct provider_queue *q)
{
    for (size_t i = 0; i < WAITING_WORDS; i++)
        if (atomic_load(&q->waiting[i]) != 0)
            return true;
    return false;
}

static uint32_t count_waiting(const struct provider_queue *q)
{
    int count = 0;

    for (size_t i = 0; i < WAITING_WORDS; i++)
        count += __builtin_popcountll(atomic_load(&q->waiting[i]));
    return (uint32_t)count;
}

/* The one whose turn it is; NOBODY if none waits. */
static uint32_t first_of(const struct provider_queue *q)
{
    uint32_t first = NOBODY;
    uint64_t least = UINT64_MAX;

    for (uint32_t i = 0; i < QUEUE_WAITERS_MAX; i++) {
        uint64_t tag;

        if (!is_waiting(q, i))
            continue;
        tag = atomic_load(&q->entries[i].tag);
        if (tag < least) {
            least = tag;
            first = i;
        }
    }
    return first;
}

/* Behind those of its key that wait already: each of them is a round further. */
static uint64_t next_tag(struct provider_queue *q, uint64_t key)
{
    uint64_t round = atomic_load(&q->round);

    for (uint32_t i = 0; i < QUEUE_WAITERS_MAX; i++) {
        const struct entry *e = &q->entries[i];

        if (is_waiting(q, i) && atomic_load(&e->key) == key && atomic_load(&e->tag) >> 32 >= round)
            round = (atomic_load(&e->tag) >> 32) + 1;
    }
    return round << 32 | atomic_fetch_add(&q->arrivals, 1);
}

/* The index of an entry that is ours now, or -EAGAIN. */
static int add_entry(struct provider_queue *q, size_t worker, uint64_t key, uint32_t length)
{
    if (count_waiting(q) >= length)
        return -EAGAIN;
    for (uint32_t i = 0; i < QUEUE_WAITERS_MAX; i++) {
        struct entry *e = &q->entries[i];
        uint32_t nobody = 0;

        if (!atomic_compare_exchange_strong(&e->worker, &nobody, (uint32_t)worker + 1))
            continue;
        atomic_store(&e->key, key);
        atomic_store(&e->tag, next_tag(q, key));
        atomic_fetch_or(&q->waiting[i / 64], UINT64_C(1) << i % 64);
        return (int)i;
    }
    return -EAGAIN;
}

static void drop_entry(struct provider_queue *q, uint32_t index)
{
    atomic_fetch_and(&q->waiting[index / 64], ~(UINT64_C(1) << index % 64));
    atomic_store(&q->entries[index].worker, 0);
}

static void wake(const int *wake_fds, uint32_t worker)
{
    const uint64_t one = 1;

    /* A full counter is a wake-up on its way; anything else the look every so often makes good. */
    if (wake_fds[worker] >= 0 && write(wake_fds[worker], &one, sizeof(one)) < 0)
        return;
}

static void wake_first(struct provider_queue *q, const int *wake_fds)
{
    uint32_t first;
    uint32_t worker;

    if (!has_waiting(q))
        return;
    first = first_of(q);
    if (first == NOBODY)
        return;
    worker = atomic_load(&q->entries[first].worker);
    if (worker > 0)
        wake(wake_fds, worker - 1);
}

static void note_turn(struct provider_queue *q, int64_t now_ms)
{
    int64_t before_ms = atomic_exchange(&q->turned_ms, now_ms);
    int64_t pace_ms = atomic_load(&q->pace_ms);
    int64_t took_ms =
        before_ms == 0 || now_ms - before_ms > RETRY_MAX_MS ? pace_ms : now_ms - before_ms;

    atomic_store(&q->pace_ms, pace_ms + ((took_ms - pace_ms) >> PACE_SHIFT));
}

/* ---- what waits in this worker ---- */

static void link_ticket(struct queues *q, struct queue_ticket *t)
{
    t->prev = q->last;
    t->next = NULL;
    if (q->last != NULL)
        q->last->next = t;
    else
        q->first = t;
    q->last = t;
}

static void unlink_ticket(struct queues *q, struct queue_ticket *t)
{
    if (t->prev != NULL)
        t->prev->next = t->next;
    else
        q->first = t->next;
    if (t->next != NULL)
        t->next->prev = t->prev;
    else
        q->last = t->prev;
    t->next = t->prev = NULL;
}

static void stop_waiting(struct queues *q, struct queue_ticket *t)
{
    drop_entry(queue_of(q, t), t->entry - 1);
    t->entry = 0;
    unlink_ticket(q, t);
}

/* Whether its wait is over: it holds a slot now, or its deadline has come. */
static bool try_turn(struct queues *q, struct queue_ticket *t, int *rc)
{
    struct provider_queue *pq = queue_of(q, t);
    int64_t now_ms = clock_monotonic_ms();
    bool has_slot = first_of(pq) == t->entry - 1 && slot_take(pq, q->worker, t);

    if (!has_slot && now_ms < t->deadline_ms)
        return false;
    if (has_slot) {
        atomic_store(&pq->round, (uint32_t)(atomic_load(&pq->entries[t->entry - 1].tag) >> 32));
        note_turn(pq, now_ms);
    }
    stop_waiting(q, t);
    wake_first(pq, q->wake_fds); /* there may be a slot for the next one, too */
    *rc = has_slot ? 0 : XR_EBUSY;
    return true;
}

static void plan_look(struct queues *q)
{
    int64_t wait_ms = LOOK_EVERY_MS, now_ms = loop_now_ms(q->loop);

    if (q->first == NULL)
        return;
    for (const struct queue_ticket *t = q->first; t != NULL; t = t->next)
        if (t->deadline_ms - now_ms < wait_ms)
            wait_ms = t->deadline_ms - now_ms;
    /* Without memory for a timer the wake-ups have to do. */
    (void)loop_timer_set(q->loop, &q->timer, wait_ms);
}

/* Callbacks may add and take away tickets: each time from the beginning. */
static void look(struct queues *q)
{
    bool is_changed;

    do {
        is_changed = false;
        for (struct queue_ticket *t = q->first; t != NULL; t = t->next) {
            int rc = 0;

            if (!try_turn(q, t, &rc))
                continue;
            t->on_turn(t, rc);
            is_changed = true;
            break;
        }
    } while (is_changed);
    plan_look(q);
}

static void on_wake(struct event_source *src, uint32_t events)
{
    struct queues *q = container_of(src, struct queues, wake);
    uint64_t count;

    if (read(q->wake_fds[q->worker], &count, sizeof(count)) < 0)
        return; /* somebody else's wake-up was counted with it already */
    look(q);
}

static void on_timer(struct timer *t)
{
    look(container_of(t, struct queues, timer));
}

int queues_new(struct loop *loop, struct queue_region *r, size_t worker_slot, const int *wake_fds,
               struct queues **out)
{
    struct queues *q = calloc(1, sizeof(*q));
    int rc;

    *out = NULL;
    if (q == NULL)
        return -ENOMEM;
    *q = (struct queues){.loop = loop,
                         .region = r,
                         .worker = worker_slot,
                         .wake_fds = wake_fds,
                         .wake = {.on_event = on_wake},
                         .timer = {.on_timer = on_timer}};
    rc = loop_add(loop, wake_fds[worker_slot], EPOLLIN, &q->wake);
    if (rc < 0) {
        free(q);
        return rc;
    }
    *out = q;
    return 0;
}

void queues_free(struct queues *q)
{
    if (q == NULL)
        return;
    assert(q->first == NULL);
    loop_timer_cancel(q->loop, &q->timer);
    loop_remove(q->loop, q->wake_fds[q->worker], &q->wake);
    free(q);
}

int queue_enter(struct queues *q, struct queue_ticket *t, const struct queue_place *place,
                uint64_t key, uint32_t length, int64_t wait_ms)
{
    struct provider_queue *pq;
    int index;

    t->account = t->slot = t->entry = 0;
    t->place = *place;
    t->key = key;
    if (place->provider >= q->region->providers)
        return 0; /* nothing is counted */
    pq = queue_of(q, t);
    if (place->limit >= QUEUE_SLOTS_MAX) {
        t->account = slot_choose_account(pq, place, key);
        return 0;
    }
    /* Nobody overtakes those that wait. */
    if (!has_waiting(pq) && slot_take(pq, q->worker, t))
        return 0;
    index = add_entry(pq, q->worker, key, length);
    if (index < 0)
        return XR_EBUSY;
    t->entry = (uint32_t)index + 1;
    t->deadline_ms = loop_now_ms(q->loop) + wait_ms;
    link_ticket(q, t);
    /* A slot may have become free between the two looks, and its wake-up gone to nobody. */
    if (loop_timer_set(q->loop, &q->timer, 0) < 0) {
        stop_waiting(q, t);
        return XR_EBUSY;
    }
    return 1;
}

int queue_try_account(struct queues *q, struct queue_ticket *t, const struct queue_place *place,
                      uint32_t account)
{
    struct provider_queue *pq;
    int slot;

    t->slot = t->entry = 0;
    t->account = account;
    t->place = *place;
    if (place->limit >= QUEUE_SLOTS_MAX || place->provider >= q->region->providers)
        return 0;
    pq = queue_of(q, t);
    slot = has_waiting(pq) ? -EAGAIN : slot_take_of(pq, q->worker, place, account);
    if (slot < 0)
        return XR_EBUSY;
    t->slot = (uint32_t)slot + 1;
    return 0;
}

void queue_pass(struct queue_ticket *from, struct queue_ticket *to)
{
    assert(from->entry == 0 && to->entry == 0 && to->slot == 0);
    to->place = from->place;
    to->account = from->account;
    to->slot = from->slot;
    from->slot = 0;
}

void queue_leave(struct queues *q, struct queue_ticket *t)
{
    struct provider_queue *pq;

    if (t->slot == 0 && t->entry == 0)
        return;
    pq = queue_of(q, t);
    if (t->slot > 0) {
        atomic_store(&pq->slots[t->slot - 1], 0);
        t->slot = 0;
    }
    if (t->entry > 0)
        stop_waiting(q, t);
    wake_first(pq, q->wake_fds);
}

int64_t queue_retry_after_ms(const struct queues *q, size_t provider)
{
    const struct provider_queue *pq;
    int64_t wait_ms;

    if (provider >= q->region->providers)
        return RETRY_MIN_MS;
    pq = &q->region->queues[provider];
    wait_ms = atomic_load(&pq->pace_ms) * (1 + (int64_t)count_waiting(pq));
    return wait_ms < RETRY_MIN_MS ? RETRY_MIN_MS : wait_ms > RETRY_MAX_MS ? RETRY_MAX_MS : wait_ms;
}

/* ---- the master ---- */

static void reap(struct provider_queue *q, uint32_t owner)
{
    for (uint32_t i = 0; i < QUEUE_WAITERS_MAX; i++)
        if (atomic_load(&q->entries[i].worker) == owner)
            drop_entry(q, i);
    for (uint32_t i = 0; i < QUEUE_SLOTS_MAX; i++) {
        uint32_t mine = owner;

        (void)atomic_compare_exchange_strong(&q->slots[i], &mine, 0);
    }
}

void queue_reap(struct queue_region *r, size_t worker_slot, const int *wake_fds)
{
    for (uint64_t i = 0; i < r->providers; i++) {
        reap(&r->queues[i], (uint32_t)worker_slot + 1);
        wake_first(&r->queues[i], wake_fds);
    }
}

void queue_look(const struct queue_region *r, size_t provider, uint32_t *taken, uint32_t *waiting)
{
    *taken = *waiting = 0;
    if (provider >= r->providers)
        return;
    for (uint32_t i = 0; i < QUEUE_SLOTS_MAX; i++)
        *taken += atomic_load(&r->queues[provider].slots[i]) != 0;
    *waiting = count_waiting(&r->queues[provider]);
}
