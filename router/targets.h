/* targets.h - what candidates lead to: one row in shared memory for each provider's model, with
 * what all workers know of it together. And one for each provider: what an operator has said.
 *
 * The master registers (at start and at each reload); rows stay until the instance ends. */
#ifndef XROUTER_ROUTER_TARGETS_H
#define XROUTER_ROUTER_TARGETS_H

#include "common/config.h"
#include "common/shm.h"
#include "router/breaker.h"

#define TARGETS_REGION "targets"
#define TARGET_NAME_BYTES 96

struct target {
    char provider[TARGET_NAME_BYTES];
    char model[TARGET_NAME_BYTES]; /* as the provider names it */
    struct breaker breaker;
    _Atomic uint64_t first_byte_us; /* from request to first useful byte, a moving average; 0 = none
                                       yet */
    _Atomic int64_t closed_until_ms; /* monotonic: the provider's Retry-After; 0 = open */
};

enum provider_switch { PROVIDER_ENABLED, PROVIDER_DISABLED, PROVIDER_DRAINING };

/* What keeps new requests from a target. */
enum target_bar { TARGET_FREE, TARGET_SWITCHED_OFF, TARGET_LEFT_ALONE, TARGET_BREAKER_OPEN };

struct targets_region; /* in shared memory; opaque */

/* providers: as many as the counters have, with the same indexes. init expects zeroed memory. */
struct shm_region_spec targets_region_spec(size_t targets, size_t providers);
void targets_region_init(struct targets_region *r, size_t targets, size_t providers);
struct targets_region *targets_region_get(const struct shm *shm);

/* Finds or adds: its index, or -ENOSPC. The master's alone. */
int targets_register(struct targets_region *r, const char *provider, const char *model);
int targets_find(const struct targets_region *r, const char *provider, const char *model);
struct target *target_at(struct targets_region *r, size_t index); /* NULL past the last */

void target_note_first_byte(struct target *t, int64_t took_us);
/* The provider asked to be left alone for so long. */
void target_close_for(struct target *t, int64_t now_ms, int64_t wait_ms);

/* provider: its index in the counters, < 0 = it has none; t: NULL = it has no row. Where that is so
 * nothing is known against them. *wait_ms: how long it lasts, 0 = nobody knows. */
enum target_bar targets_bar(struct targets_region *r, int provider, const struct target *t,
                            const struct config *config, int64_t now_ms, int64_t *wait_ms);

/* By the provider's index in the counters. Disabled and draining ones get no new requests. */
enum provider_switch targets_switch(struct targets_region *r, size_t provider);
void targets_set_switch(struct targets_region *r, size_t provider, enum provider_switch to);

#endif
