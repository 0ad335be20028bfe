/* facts.h - what providers say of themselves: the models that they have, and what each account has
 * left. In shared memory: one worker asks (router/inquiry.h), all processes read. */
#ifndef XROUTER_ROUTER_FACTS_H
#define XROUTER_ROUTER_FACTS_H

#include "common/config.h"
#include "common/shm.h"
#include "providers/models_list.h"
#include "providers/provider.h"

#define FACTS_REGION "facts"

struct facts_models {
    int64_t at_ms; /* Unix time, 0 = not known */
    struct models_list list;
};

struct facts_account {
    int64_t at_ms; /* Unix time, 0 = not known, or the provider does not tell */
    struct account_balances balances;
};

struct facts_region; /* in shared memory; opaque */

/* providers: with the counters' indexes. init expects zeroed memory. */
struct shm_region_spec facts_region_spec(size_t providers);
void facts_region_init(struct facts_region *r, size_t providers);
struct facts_region *facts_region_get(const struct shm *shm);

/* Whether it is time to ask for the account, and nobody else does: then it is the caller's to ask
 * until lease_ms are over. */
bool facts_take(struct facts_region *r, size_t provider, uint32_t account, int64_t now_ms,
                int64_t lease_ms);
/* When it is time again, on the monotonic clock. */
void facts_plan(struct facts_region *r, size_t provider, uint32_t account, int64_t due_ms);

/* By whoever took the account (the models: account 0). */
void facts_store_account(struct facts_region *r, size_t provider, uint32_t account,
                         const struct facts_account *value);
void facts_store_models(struct facts_region *r, size_t provider, const struct facts_models *value);
/* Zeroes for a provider or an account that there is not. */
void facts_load_account(const struct facts_region *r, size_t provider, uint32_t account,
                        struct facts_account *out);
void facts_load_models(const struct facts_region *r, size_t provider, struct facts_models *out);

#endif
