#include "common/counters.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define LINE_BYTES 64 /* of the cache */

/* Behind it: the models' names, the providers' names, then the slots. A slot is a struct counters,
 * then a struct model_counters a model, then a struct provider_counters a provider. */
struct counters_region {
    uint64_t slots;
    uint64_t models_max;
    uint64_t providers_max;
    uint64_t slots_offset;
    uint64_t slot_bytes;
    _Atomic uint64_t model_count;
    _Atomic uint64_t provider_count;
} __attribute__((aligned(LINE_BYTES)));

typedef _Atomic uint64_t word;

const uint32_t HISTOGRAM_BOUNDS_MS[HISTOGRAM_BUCKETS - 1] = {
    1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 10000, 30000, 120000};

#define X(field, kind, unit, help) \
    {#field, KIND_##kind, unit, help, offsetof(struct counters, field)},
const struct counter_desc COUNTER_DESCS[] = {COUNTERS(X)};
#undef X
#define X(field, kind, unit, help) \
    {#field, KIND_##kind, unit, help, offsetof(struct model_counters, field)},
const struct counter_desc MODEL_COUNTER_DESCS[] = {MODEL_COUNTERS(X)};
#undef X
#define X(field, kind, unit, help) \
    {#field, KIND_##kind, unit, help, offsetof(struct provider_counters, field)},
const struct counter_desc PROVIDER_COUNTER_DESCS[] = {PROVIDER_COUNTERS(X)};
#undef X
#define X(field, help) {#field, help, offsetof(struct counters, field)},
const struct histogram_desc HISTOGRAM_DESCS[] = {HISTOGRAMS(X)};
#undef X

const size_t COUNTER_COUNT = sizeof(COUNTER_DESCS) / sizeof(COUNTER_DESCS[0]);
const size_t MODEL_COUNTER_COUNT = sizeof(MODEL_COUNTER_DESCS) / sizeof(MODEL_COUNTER_DESCS[0]);
const size_t PROVIDER_COUNTER_COUNT =
    sizeof(PROVIDER_COUNTER_DESCS) / sizeof(PROVIDER_COUNTER_DESCS[0]);
const size_t HISTOGRAM_COUNT = sizeof(HISTOGRAM_DESCS) / sizeof(HISTOGRAM_DESCS[0]);

static size_t align_line(size_t bytes)
{
    return (bytes + LINE_BYTES - 1) & ~(size_t)(LINE_BYTES - 1);
}

static size_t slot_size(size_t models, size_t providers)
{
    return align_line(sizeof(struct counters) + models * sizeof(struct model_counters) +
                      providers * sizeof(struct provider_counters));
}

static size_t slots_begin(size_t models, size_t providers)
{
    return align_line(sizeof(struct counters_region) + (models + providers) * COUNTERS_NAME_BYTES);
}

static char *model_names(const struct counters_region *r)
{
    return (char *)(uintptr_t)r + sizeof(*r);
}

static char *provider_names(const struct counters_region *r)
{
    return model_names(r) + r->models_max * COUNTERS_NAME_BYTES;
}

static struct counters *slot_at(const struct counters_region *r, size_t slot)
{
    assert(slot < r->slots);
    return (struct counters *)((char *)(uintptr_t)r + r->slots_offset + slot * r->slot_bytes);
}

static struct model_counters *model_at(const struct counters_region *r, size_t slot, size_t model)
{
    assert(model < r->models_max);
    return (struct model_counters *)(slot_at(r, slot) + 1) + model;
}

static struct provider_counters *provider_at(const struct counters_region *r, size_t slot,
                                             size_t provider)
{
    assert(provider < r->providers_max);
    return (struct provider_counters *)((struct model_counters *)(slot_at(r, slot) + 1) +
                                        r->models_max) +
           provider;
}

static int find_name(const char *names, uint64_t count, const char *name)
{
    for (uint64_t i = 0; i < count; i++)
        if (strcmp(names + i * COUNTERS_NAME_BYTES, name) == 0)
            return (int)i;
    return -ENOENT;
}

static int register_name(char *names, word *count, uint64_t max, const char *name)
{
    uint64_t n = atomic_load_explicit(count, memory_order_relaxed);
    size_t len = strlen(name);
    int found = find_name(names, n, name);

    if (found >= 0)
        return found;
    if (len >= COUNTERS_NAME_BYTES)
        return -ENAMETOOLONG;
    if (n == max)
        return -ENOSPC;
    memcpy(names + n * COUNTERS_NAME_BYTES, name, len + 1);
    /* The name before the count: a reader that sees the row sees its name. */
    atomic_store_explicit(count, n + 1, memory_order_release);
    return (int)n;
}

static void zero_gauges(void *base, const struct counter_desc *descs, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (descs[i].kind == KIND_GAUGE)
            atomic_store_explicit((word *)((char *)base + descs[i].offset), 0,
                                  memory_order_relaxed);
}

/* Every struct here is words and nothing else, so sums need no list of fields. */
static void add_words(void *sum, const void *part, size_t bytes)
{
    word *to = sum;
    const word *from = part;

    for (size_t i = 0; i < bytes / sizeof(word); i++)
        counter_add(&to[i], atomic_load_explicit(&from[i], memory_order_relaxed));
}

static uint64_t hash_descs(uint64_t hash, const struct counter_desc *descs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        hash = shm_layout_hash(hash, descs[i].name, strlen(descs[i].name) + 1);
        hash = shm_layout_hash(hash, &descs[i].offset, sizeof(descs[i].offset));
    }
    return hash;
}

void histogram_observe_us(struct histogram *h, int64_t us)
{
    size_t i = 0;

    if (us < 0)
        us = 0;
    while (i < HISTOGRAM_BUCKETS - 1 && us > (int64_t)HISTOGRAM_BOUNDS_MS[i] * 1000)
        i++;
    counter_inc(&h->bucket[i]);
    counter_add(&h->sum_us, (uint64_t)us);
}

struct shm_region_spec counters_region_spec(size_t slots, size_t models, size_t providers)
{
    struct shm_region_spec spec = {
        .name = COUNTERS_REGION,
        .bytes = slots_begin(models, providers) + slots * slot_size(models, providers),
        .layout = counters_layout(),
    };

    return spec;
}

void counters_region_init(struct counters_region *r, size_t slots, size_t models, size_t providers)
{
    r->slots = slots;
    r->models_max = models;
    r->providers_max = providers;
    r->slots_offset = slots_begin(models, providers);
    r->slot_bytes = slot_size(models, providers);
}

uint64_t counters_layout(void)
{
    const uint64_t sizes[] = {
        1,
        sizeof(struct counters_region),
        sizeof(struct counters),
        sizeof(struct model_counters),
        sizeof(struct provider_counters),
        COUNTERS_NAME_BYTES,
    };
    uint64_t hash = shm_layout_hash(0, sizes, sizeof(sizes));

    hash = hash_descs(hash, COUNTER_DESCS, COUNTER_COUNT);
    hash = hash_descs(hash, MODEL_COUNTER_DESCS, MODEL_COUNTER_COUNT);
    hash = hash_descs(hash, PROVIDER_COUNTER_DESCS, PROVIDER_COUNTER_COUNT);
    for (size_t i = 0; i < HISTOGRAM_COUNT; i++)
        hash = shm_layout_hash(hash, HISTOGRAM_DESCS[i].name, strlen(HISTOGRAM_DESCS[i].name) + 1);
    return shm_layout_hash(hash, HISTOGRAM_BOUNDS_MS, sizeof(HISTOGRAM_BOUNDS_MS));
}

struct counters_region *counters_region_get(const struct shm *shm)
{
    size_t bytes, need;
    struct counters_region *r = shm_region(shm, COUNTERS_REGION, counters_layout(), &bytes);

    /* A crashed instance's object is read too: its numbers must fit what is mapped. */
    if (r == NULL || bytes < sizeof(*r) || r->models_max > bytes || r->providers_max > bytes ||
        r->slots_offset != slots_begin(r->models_max, r->providers_max) ||
        r->slot_bytes != slot_size(r->models_max, r->providers_max) ||
        __builtin_mul_overflow(r->slots, r->slot_bytes, &need) || r->slots_offset > bytes ||
        need > bytes - r->slots_offset || r->model_count > r->models_max ||
        r->provider_count > r->providers_max)
        return NULL;
    return r;
}

size_t counters_slot_count(const struct counters_region *r)
{
    return r->slots;
}

struct counters *counters_slot(struct counters_region *r, size_t slot)
{
    return slot_at(r, slot);
}

struct model_counters *counters_model(struct counters_region *r, size_t slot, size_t model)
{
    return model_at(r, slot, model);
}

struct provider_counters *counters_provider(struct counters_region *r, size_t slot, size_t provider)
{
    return provider_at(r, slot, provider);
}

void counters_zero_gauges(struct counters_region *r, size_t slot)
{
    zero_gauges(slot_at(r, slot), COUNTER_DESCS, COUNTER_COUNT);
    for (size_t i = 0; i < r->models_max; i++)
        zero_gauges(model_at(r, slot, i), MODEL_COUNTER_DESCS, MODEL_COUNTER_COUNT);
    for (size_t i = 0; i < r->providers_max; i++)
        zero_gauges(provider_at(r, slot, i), PROVIDER_COUNTER_DESCS, PROVIDER_COUNTER_COUNT);
}

int counters_register_model(struct counters_region *r, const char *name)
{
    return register_name(model_names(r), &r->model_count, r->models_max, name);
}

int counters_register_provider(struct counters_region *r, const char *name)
{
    return register_name(provider_names(r), &r->provider_count, r->providers_max, name);
}

int counters_find_model(const struct counters_region *r, const char *name)
{
    return find_name(model_names(r), atomic_load_explicit(&r->model_count, memory_order_acquire),
                     name);
}

int counters_find_provider(const struct counters_region *r, const char *name)
{
    return find_name(provider_names(r),
                     atomic_load_explicit(&r->provider_count, memory_order_acquire), name);
}

const char *counters_model_name(const struct counters_region *r, size_t model)
{
    if (model >= atomic_load_explicit(&r->model_count, memory_order_acquire))
        return NULL;
    return model_names(r) + model * COUNTERS_NAME_BYTES;
}

const char *counters_provider_name(const struct counters_region *r, size_t provider)
{
    if (provider >= atomic_load_explicit(&r->provider_count, memory_order_acquire))
        return NULL;
    return provider_names(r) + provider * COUNTERS_NAME_BYTES;
}

void counters_sum(const struct counters_region *r, struct counters *out)
{
    memset(out, 0, sizeof(*out));
    for (size_t slot = 0; slot < r->slots; slot++)
        add_words(out, slot_at(r, slot), sizeof(*out));
}

void counters_sum_model(const struct counters_region *r, size_t model, struct model_counters *out)
{
    memset(out, 0, sizeof(*out));
    for (size_t slot = 0; slot < r->slots; slot++)
        add_words(out, model_at(r, slot, model), sizeof(*out));
}

void counters_sum_provider(const struct counters_region *r, size_t provider,
                           struct provider_counters *out)
{
    memset(out, 0, sizeof(*out));
    for (size_t slot = 0; slot < r->slots; slot++)
        add_words(out, provider_at(r, slot, provider), sizeof(*out));
}
