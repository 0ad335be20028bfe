/* limits.h - rate limits: requests and tokens in a minute and in a day, and requests at once; of
 * each key, of each model and of the whole gateway. Words in shared memory, exact over all workers,
 * with no lock and no system call.
 *
 * A window is one word, its start and what was used in it. A minute begins with its first request
 * and lasts 60 s on the monotonic clock; a day is the UTC day, and never goes back. A request takes
 * one of the requests and as many tokens as it will probably need; what it did need is put right at
 * its end, in the window that it was taken from.
 *
 * Requests at once are a word, too; beside it each worker keeps how many of them are its own, so
 * that the reaper can give back what a dead one held. */
#ifndef XROUTER_USAGE_LIMITS_H
#define XROUTER_USAGE_LIMITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/shm.h"

#define LIMITS_REGION "limits"
#define LIMIT_SCOPES_MAX 3 /* a key's, a model's and the gateway's */

enum limit_kind {
    LIMIT_RPM,
    LIMIT_RPD,
    LIMIT_TPM,
    LIMIT_TPD,
    LIMIT_WINDOWS,
    LIMIT_PARALLEL = LIMIT_WINDOWS,
    LIMIT_KINDS
};

/* By enum limit_kind; 0 = none. */
struct limit_values {
    uint32_t of[LIMIT_KINDS];
};

struct limits_region; /* in shared memory; opaque */

/* init expects zeroed memory. keys: as many as accounts; models: with the counters' indexes. */
struct shm_region_spec limits_region_spec(size_t keys, size_t models, size_t slots);
void limits_region_init(struct limits_region *r, size_t keys, size_t models, size_t slots);
struct limits_region *limits_region_get(const struct shm *shm);

/* Whose words. */
uint32_t limits_row_of_gateway(void);
uint32_t limits_row_of_model(const struct limits_region *r, size_t model);
uint32_t limits_row_of_key(const struct limits_region *r, uint32_t account);

struct limit_scope {
    uint32_t row;
    struct limit_values values;
};

struct limit_moment {
    int64_t now_ms;    /* monotonic */
    int64_t now_at_ms; /* Unix time */
};

/* What a request holds; embedded. All zero: nothing. */
struct limit_claim {
    size_t count;
    struct {
        uint32_t row;
        uint32_t taken; /* bits by enum limit_kind */
        uint32_t starts[LIMIT_WINDOWS], amounts[LIMIT_WINDOWS];
    } scopes[LIMIT_SCOPES_MAX];
};

/* Which limit refused. */
struct limit_refusal {
    size_t scope; /* index of the caller's scopes */
    enum limit_kind kind;
    uint32_t limit;
    int64_t wait_ms; /* until its window ends; 0 = nobody knows; -1 = the request is too large for
                        it, now and later */
};

/* One request of so many prompt tokens, and of output that is guessed: all scopes or none. slot is
 * the worker's. 0 or XR_ERATELIMIT. */
int limits_claim(struct limits_region *r, size_t slot, const struct limit_scope *scopes,
                 size_t count, uint32_t prompt_tokens, uint32_t output_tokens,
                 const struct limit_moment *now, struct limit_claim *claim,
                 struct limit_refusal *refusal);
/* The request is over, and has used so many tokens in all; the claim holds nothing any more. */
void limits_settle(struct limits_region *r, size_t slot, struct limit_claim *claim, int64_t tokens);
/* It has never begun: it counts as none. */
void limits_give_back(struct limits_region *r, size_t slot, struct limit_claim *claim);

/* What a model's answers are typically long, in tokens: a moving average of those before. */
uint32_t limits_typical_output(const struct limits_region *r, size_t model);
void limits_note_output(struct limits_region *r, size_t model, int64_t tokens);

/* What is left in a window, and when it begins anew (0 = it is unused). */
uint32_t limits_left(const struct limits_region *r, const struct limit_scope *scope,
                     enum limit_kind kind, const struct limit_moment *now, int64_t *reset_ms);
/* Requests at once, of a scope with such a limit. */
uint32_t limits_running(const struct limits_region *r, uint32_t row);

/* What a dead worker held. The master's alone. */
void limits_reap(struct limits_region *r, size_t slot);

#endif
