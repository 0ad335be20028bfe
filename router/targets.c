#include "router/targets.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define AVERAGE_SHIFT 3 /* the last eight or so decide */

struct targets_region {
    uint32_t capacity;
    uint32_t provider_capacity;
    _Atomic uint32_t count;
    uint32_t reserved;
    struct target targets[];
    /* and behind them: _Atomic uint32_t[provider_capacity], enum provider_switch */
};

static uint64_t region_layout(void)
{
    static const uint64_t LAYOUT[] = {
        1, /* the meaning of the words */
        sizeof(struct targets_region),
        offsetof(struct targets_region, targets),
        sizeof(struct target),
        offsetof(struct target, breaker),
        offsetof(struct target, first_byte_us),
        offsetof(struct target, closed_until_ms),
        sizeof(struct breaker),
    };

    return shm_layout_hash(0, LAYOUT, sizeof(LAYOUT));
}

static _Atomic uint32_t *switch_at(struct targets_region *r, size_t provider)
{
    return (_Atomic uint32_t *)(void *)&r->targets[r->capacity] + provider;
}

struct shm_region_spec targets_region_spec(size_t targets, size_t providers)
{
    return (struct shm_region_spec){.name = TARGETS_REGION,
                                    .bytes = sizeof(struct targets_region) +
                                             targets * sizeof(struct target) +
                                             providers * sizeof(uint32_t),
                                    .layout = region_layout()};
}

void targets_region_init(struct targets_region *r, size_t targets, size_t providers)
{
    r->capacity = (uint32_t)targets;
    r->provider_capacity = (uint32_t)providers;
}

struct targets_region *targets_region_get(const struct shm *shm)
{
    size_t bytes;
    struct targets_region *r = shm_region(shm, TARGETS_REGION, region_layout(), &bytes);

    if (r == NULL || r->capacity > bytes / sizeof(struct target) ||
        targets_region_spec(r->capacity, r->provider_capacity).bytes > bytes ||
        atomic_load(&r->count) > r->capacity)
        return NULL;
    return r;
}

int targets_find(const struct targets_region *r, const char *provider, const char *model)
{
    uint32_t count = atomic_load_explicit(&r->count, memory_order_acquire);

    for (uint32_t i = 0; i < count; i++)
        if (strcmp(r->targets[i].model, model) == 0 &&
            strcmp(r->targets[i].provider, provider) == 0)
            return (int)i;
    return -ENOENT;
}

int targets_register(struct targets_region *r, const char *provider, const char *model)
{
    uint32_t count = atomic_load_explicit(&r->count, memory_order_relaxed);
    int index = targets_find(r, provider, model);

    if (index >= 0)
        return index;
    if (count == r->capacity)
        return -ENOSPC;
    snprintf(r->targets[count].provider, TARGET_NAME_BYTES, "%s", provider);
    snprintf(r->targets[count].model, TARGET_NAME_BYTES, "%s", model);
    atomic_store_explicit(&r->count, count + 1, memory_order_release);
    return (int)count;
}

struct target *target_at(struct targets_region *r, size_t index)
{
    return index < atomic_load_explicit(&r->count, memory_order_acquire) ? &r->targets[index]
                                                                         : NULL;
}

void target_note_first_byte(struct target *t, int64_t took_us)
{
    uint64_t sample = took_us > 0 ? (uint64_t)took_us : 1; /* 0 means that nothing is known */
    uint64_t seen = atomic_load_explicit(&t->first_byte_us, memory_order_relaxed);
    uint64_t next;

    do {
        if (seen == 0)
            next = sample;
        else
            next = seen - (seen >> AVERAGE_SHIFT) + (sample >> AVERAGE_SHIFT);
        if (next == 0)
            next = 1;
    } while (!atomic_compare_exchange_weak_explicit(&t->first_byte_us, &seen, next,
                                                    memory_order_relaxed, memory_order_relaxed));
}

void target_close_for(struct target *t, int64_t now_ms, int64_t wait_ms)
{
    int64_t until_ms = now_ms + wait_ms;
    int64_t seen = atomic_load_explicit(&t->closed_until_ms, memory_order_relaxed);

    while (seen < until_ms &&
           !atomic_compare_exchange_weak_explicit(&t->closed_until_ms, &seen, until_ms,
                                                  memory_order_relaxed, memory_order_relaxed))
        ;
}

enum provider_switch targets_switch(struct targets_region *r, size_t provider)
{
    if (provider >= r->provider_capacity)
        return PROVIDER_ENABLED;
    return (enum provider_switch)atomic_load_explicit(switch_at(r, provider), memory_order_relaxed);
}

void targets_set_switch(struct targets_region *r, size_t provider, enum provider_switch to)
{
    if (provider < r->provider_capacity)
        atomic_store_explicit(switch_at(r, provider), (uint32_t)to, memory_order_relaxed);
}

enum target_bar targets_bar(struct targets_region *r, int provider, const struct target *t,
                            const struct config *config, int64_t now_ms, int64_t *wait_ms)
{
    int64_t closed_ms;

    *wait_ms = 0;
    if (provider >= 0 && targets_switch(r, (size_t)provider) != PROVIDER_ENABLED)
        return TARGET_SWITCHED_OFF;
    if (t == NULL)
        return TARGET_FREE;
    closed_ms = atomic_load_explicit(&t->closed_until_ms, memory_order_relaxed) - now_ms;
    if (closed_ms > 0) {
        *wait_ms = closed_ms;
        return TARGET_LEFT_ALONE;
    }
    if (breaker_state_now(&t->breaker, config, now_ms) != BREAKER_OPEN)
        return TARGET_FREE;
    *wait_ms = breaker_wait_ms(&t->breaker, config, now_ms);
    return TARGET_BREAKER_OPEN;
}
