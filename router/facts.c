#include "router/facts.h"

#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

#include "common/versioned.h"

#define ACCOUNT_WORDS VERSIONED_WORDS(sizeof(struct facts_account))
#define MODELS_WORDS VERSIONED_WORDS(sizeof(struct facts_models))

_Static_assert(sizeof(struct facts_account) % 8 == 0, "copied by words");
_Static_assert(sizeof(struct facts_models) % 8 == 0, "copied by words");

struct account_facts {
    _Atomic int64_t due_ms; /* monotonic: when somebody may ask next */
    _Atomic uint64_t version;
    _Atomic uint64_t copies[2 * ACCOUNT_WORDS];
};

struct provider_facts {
    struct account_facts accounts[CONFIG_ACCOUNTS_MAX];
    _Atomic uint64_t version;
    _Atomic uint64_t copies[2 * MODELS_WORDS];
};

struct facts_region {
    uint64_t providers;
    struct provider_facts of[];
};

static uint64_t region_layout(void)
{
    static const uint64_t LAYOUT[] = {
        1, /* the meaning of the words */
        sizeof(struct facts_region),
        sizeof(struct provider_facts),
        sizeof(struct account_facts),
        offsetof(struct provider_facts, version),
        sizeof(struct account_balance),
        offsetof(struct facts_models, list),
        offsetof(struct models_list, names),
        CONFIG_ACCOUNTS_MAX,
        BALANCES_MAX,
    };

    return shm_layout_hash(0, LAYOUT, sizeof(LAYOUT));
}

struct shm_region_spec facts_region_spec(size_t providers)
{
    return (struct shm_region_spec){.name = FACTS_REGION,
                                    .bytes = sizeof(struct facts_region) +
                                             providers * sizeof(struct provider_facts),
                                    .layout = region_layout()};
}

void facts_region_init(struct facts_region *r, size_t providers)
{
    r->providers = providers;
}

struct facts_region *facts_region_get(const struct shm *shm)
{
    size_t bytes;
    struct facts_region *r = shm_region(shm, FACTS_REGION, region_layout(), &bytes);

    if (r == NULL || r->providers > bytes / sizeof(struct provider_facts) ||
        facts_region_spec(r->providers).bytes > bytes)
        return NULL;
    return r;
}

static bool is_inside(const struct facts_region *r, size_t provider, uint32_t account)
{
    return provider < r->providers && account < CONFIG_ACCOUNTS_MAX;
}

bool facts_take(struct facts_region *r, size_t provider, uint32_t account, int64_t now_ms,
                int64_t lease_ms)
{
    _Atomic int64_t *due_ms;
    int64_t seen;

    if (!is_inside(r, provider, account))
        return false;
    due_ms = &r->of[provider].accounts[account].due_ms;
    seen = atomic_load(due_ms);
    return seen <= now_ms && atomic_compare_exchange_strong(due_ms, &seen, now_ms + lease_ms);
}

void facts_plan(struct facts_region *r, size_t provider, uint32_t account, int64_t due_ms)
{
    if (is_inside(r, provider, account))
        atomic_store(&r->of[provider].accounts[account].due_ms, due_ms);
}

void facts_store_account(struct facts_region *r, size_t provider, uint32_t account,
                         const struct facts_account *value)
{
    struct account_facts *a;

    if (!is_inside(r, provider, account))
        return;
    a = &r->of[provider].accounts[account];
    versioned_store(&a->version, a->copies, ACCOUNT_WORDS, value, sizeof(*value));
}

void facts_store_models(struct facts_region *r, size_t provider, const struct facts_models *value)
{
    if (is_inside(r, provider, 0))
        versioned_store(&r->of[provider].version, r->of[provider].copies, MODELS_WORDS, value,
                        sizeof(*value));
}

void facts_load_account(const struct facts_region *r, size_t provider, uint32_t account,
                        struct facts_account *out)
{
    const struct account_facts *a;

    memset(out, 0, sizeof(*out));
    if (!is_inside(r, provider, account))
        return;
    a = &r->of[provider].accounts[account];
    versioned_load(&a->version, a->copies, ACCOUNT_WORDS, out, sizeof(*out));
    if (out->balances.count > BALANCES_MAX)
        out->balances.count = 0;
    for (size_t i = 0; i < out->balances.count; i++)
        out->balances.of[i].model[sizeof(out->balances.of[i].model) - 1] = '\0';
}

void facts_load_models(const struct facts_region *r, size_t provider, struct facts_models *out)
{
    memset(out, 0, sizeof(*out));
    if (is_inside(r, provider, 0))
        versioned_load(&r->of[provider].version, r->of[provider].copies, MODELS_WORDS, out,
                       sizeof(*out));
}
