/* chores.h - what the usage-writer does with the database besides committing, a slice at a time:
 * provider_status, the models' token ratios, retention, the daily check of the ledger, the check of
 * the whole database after an unclean stop.
 *
 * A chore that fails is logged once and tried again later; it never touches what is committed. Not
 * to be called while the ledger fails, or inside a batch. */
#ifndef XROUTER_USAGE_CHORES_H
#define XROUTER_USAGE_CHORES_H

#include <stdbool.h>
#include <stdint.h>

#include "common/config.h"
#include "common/counters.h"
#include "usage/calibration.h"
#include "usage/ledger.h"
#include "usage/verify.h"

struct chores; /* opaque */

struct chores_setup { /* all borrowed */
    struct ledger *ledger;
    const struct config *config;
    struct counters *counters;
    /* All processes' counters; NULL: no provider_status is written, and no ratio. */
    const struct counters_region *region;
    struct calibration_region *calibration; /* NULL: no ratio is kept */
    int64_t now_ms;                         /* monotonic */
};

/* Marks the database as open, loads the ratios; what is due first is decided here. NULL when out of
 * memory. */
struct chores *chores_new(const struct chores_setup *setup);
/* Before the ledger is closed: breaks off what is under way, writes the ratios, and marks the
 * database as closed in the ordinary way. NULL is fine. */
void chores_free(struct chores *c);
void chores_set_config(struct chores *c, const struct config *config);
/* The ledger's database is another one than before. */
void chores_begin_anew(struct chores *c);
/* At most one slice of one chore, some milliseconds. True if it committed something. */
bool chores_turn(struct chores *c, int64_t now_ms, int64_t now_at_ms);
int64_t chores_next_ms(const struct chores *c); /* monotonic time of the next due turn */

/* A check of the ledger is complete: its result as log lines and metrics. */
void chores_tell_verified(const struct verify *v, struct counters *counters, int64_t now_at_ms);

#endif
