/* calibration.h - what one token of o200k_base is worth in a model whose own tokenizer is not
 * public: a ratio for each model, learned from what its provider reports.
 *
 * The ratio is the mean of reported to counted, each request weighing as many tokens as it has, and
 * older ones less and less: the last CALIBRATION_MEMORY_TOKENS or so decide. One word a model in
 * shared memory, changed by compare-and-swap; models have the indexes of common/counters.h. The
 * usage-writer keeps the ratios in the database and puts them back at the next start
 * (usage/calibration_store.h).
 *
 * No amount of money depends on a ratio where the provider reports its usage. */
#ifndef XROUTER_USAGE_CALIBRATION_H
#define XROUTER_USAGE_CALIBRATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/counters.h"
#include "common/shm.h"

#define CALIBRATION_REGION "calibration"
#define CALIBRATION_ONE 1000000u         /* a ratio of 1, in millionths */
#define CALIBRATION_MIN 50000u           /* no provider counts 20 times less ... */
#define CALIBRATION_MAX 20000000u        /* ... or more: the rest is a mistake */
#define CALIBRATION_MEMORY_TOKENS 65536u /* how many counted tokens weigh in a ratio at most */
#define CALIBRATION_REQUEST_TOKENS 4096u /* of one request at most */
#define CALIBRATION_SAMPLE 64u           /* one in so many is counted once the memory is full */

struct calibration {
    uint32_t ratio;  /* in millionths; CALIBRATION_ONE if nothing is known */
    uint32_t tokens; /* counted ones behind it, up to CALIBRATION_MEMORY_TOKENS; 0 = none */
};

struct calibration_region; /* in shared memory; opaque */

/* init expects zeroed memory: nothing is known. */
struct shm_region_spec calibration_region_spec(size_t models);
void calibration_region_init(struct calibration_region *r, size_t models);
/* From an attached object, NULL if it has none of this layout. */
struct calibration_region *calibration_region_get(const struct shm *shm);
size_t calibration_count(const struct calibration_region *r);

struct calibration calibration_get(const struct calibration_region *r, size_t model);
/* counted and reported tokens (> 0, else nothing happens) of one prompt. */
void calibration_learn(struct calibration_region *r, size_t model, int64_t counted,
                       int64_t reported);
/* Only where nothing is known yet; numbers that make no sense are left out. */
void calibration_restore(struct calibration_region *r, size_t model, struct calibration known);
/* Whether a prompt should be counted only to learn from it: always until the memory is full, then
 * for one in CALIBRATION_SAMPLE. random: any bits that differ between requests. */
bool calibration_wants(const struct calibration_region *r, size_t model, uint32_t random);

/* tokens (>= 0) times the ratio, rounded up; saturates. */
int64_t calibration_apply(uint32_t ratio, int64_t tokens);

/* The ratios for counters_render_...(). r may be NULL: no ratio is known. */
struct model_gauges calibration_gauges(const struct calibration_region *r);

#endif
