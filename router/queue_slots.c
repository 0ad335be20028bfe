/* The region, and the slots of each provider's accounts. */
#include "router/queue_private.h"

#include <errno.h>

#include "common/clock.h"
#include "common/error.h"

static uint64_t region_layout(void)
{
    static const uint64_t LAYOUT[] = {
        1, /* the meaning of the words */
        sizeof(struct queue_region),
        offsetof(struct queue_region, queues),
        sizeof(struct provider_queue),
        offsetof(struct provider_queue, entries),
        sizeof(struct entry),
        QUEUE_SLOTS_MAX,
        QUEUE_WAITERS_MAX,
        QUEUE_ACCOUNTS_MAX,
    };

    return shm_layout_hash(0, LAYOUT, sizeof(LAYOUT));
}

struct shm_region_spec queue_region_spec(size_t providers)
{
    return (struct shm_region_spec){.name = QUEUE_REGION,
                                    .bytes = sizeof(struct queue_region) +
                                             providers * sizeof(struct provider_queue),
                                    .layout = region_layout()};
}

void queue_region_init(struct queue_region *r, size_t providers)
{
    r->providers = providers;
}

struct queue_region *queue_region_get(const struct shm *shm)
{
    size_t bytes;
    struct queue_region *r = shm_region(shm, QUEUE_REGION, region_layout(), &bytes);

    if (r == NULL || r->providers > bytes / sizeof(struct provider_queue) ||
        queue_region_spec(r->providers).bytes > bytes)
        return NULL;
    return r;
}

struct queue_place queue_place_of(const struct provider_config *provider, int index)
{
    return (struct queue_place){.provider = index < 0 ? SIZE_MAX : (size_t)index,
                                .accounts = (uint32_t)provider->account_count + 1,
                                .limit = provider->max_concurrent};
}

static bool is_resting(const struct provider_queue *q, uint32_t account, int64_t now_ms)
{
    return atomic_load_explicit(&q->resting_until_ms[account], memory_order_relaxed) > now_ms;
}

/* Those that get requests: bit by bit. Should all rest, they all do. */
static uint32_t awake(const struct provider_queue *q, uint32_t accounts)
{
    int64_t now_ms = accounts > 1 ? clock_monotonic_ms() : 0;
    uint32_t all = accounts < 32 ? (UINT32_C(1) << accounts) - 1 : UINT32_MAX;
    uint32_t bits = all;

    for (uint32_t i = 0; accounts > 1 && i < accounts; i++)
        if (is_resting(q, i, now_ms))
            bits &= ~(UINT32_C(1) << i);
    return bits != 0 ? bits : all;
}

/* Where a key's search begins. */
static uint32_t home_of(uint64_t key, uint32_t accounts)
{
    return (uint32_t)((key * UINT64_C(0x9E3779B97F4A7C15)) >> 32) % accounts;
}

int slot_take_of(struct provider_queue *q, size_t worker, const struct queue_place *place,
                 uint32_t account)
{
    for (uint32_t i = account; i < place->limit * place->accounts; i += place->accounts) {
        uint32_t nobody = 0;

        if (atomic_load_explicit(&q->slots[i], memory_order_relaxed) == 0 &&
            atomic_compare_exchange_strong(&q->slots[i], &nobody, (uint32_t)worker + 1))
            return (int)i;
    }
    return -EAGAIN;
}

bool slot_take(struct provider_queue *q, size_t worker, struct queue_ticket *t)
{
    uint32_t accounts = t->place.accounts, bits = awake(q, accounts);
    uint32_t home = home_of(t->key, accounts);

    for (uint32_t i = 0; i < accounts; i++) {
        uint32_t account = (home + i) % accounts;
        int slot = -EAGAIN;

        if ((bits >> account & 1) != 0)
            slot = slot_take_of(q, worker, &t->place, account);
        if (slot < 0)
            continue;
        t->account = account;
        t->slot = (uint32_t)slot + 1;
        return true;
    }
    return false;
}

uint32_t slot_choose_account(const struct provider_queue *q, const struct queue_place *place,
                             uint64_t key)
{
    uint32_t account = home_of(key, place->accounts), bits = awake(q, place->accounts);

    while ((bits >> account & 1) == 0)
        account = (account + 1) % place->accounts;
    return account;
}

bool queue_rest_account(struct queues *q, const struct queue_ticket *t, int64_t rest_ms)
{
    uint32_t others = t->place.accounts > 1 ? ~(UINT32_C(1) << t->account) : 0;
    struct provider_queue *pq;
    int64_t until_ms, seen;

    if (t->place.provider >= q->region->providers)
        return false;
    pq = queue_of(q, t);
    if ((awake(pq, t->place.accounts) & others) == 0)
        return false;
    until_ms = clock_monotonic_ms() + rest_ms;
    seen = atomic_load(&pq->resting_until_ms[t->account]);
    while (seen < until_ms &&
           !atomic_compare_exchange_weak(&pq->resting_until_ms[t->account], &seen, until_ms))
        ;
    return true;
}

int64_t queue_rest_ms(const struct queues *q, const struct queue_ticket *t)
{
    int64_t now_ms = clock_monotonic_ms(), first_ms = 0;

    if (t->place.provider >= q->region->providers)
        return 0;
    for (uint32_t i = 0; i < t->place.accounts; i++) {
        int64_t left_ms = atomic_load(&queue_of(q, t)->resting_until_ms[i]) - now_ms;

        if (left_ms > 0 && (first_ms == 0 || left_ms < first_ms))
            first_ms = left_ms;
    }
    return first_ms;
}

uint32_t queue_resting(const struct queue_region *r, size_t provider)
{
    int64_t now_ms = clock_monotonic_ms();
    uint32_t count = 0;

    for (uint32_t i = 0; provider < r->providers && i < QUEUE_ACCOUNTS_MAX; i++)
        count += is_resting(&r->queues[provider], i, now_ms);
    return count;
}
