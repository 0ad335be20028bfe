/* verify_private.h - what the parts of the ledger's check share. A part is a phase: it reads its
 * table in units, each inside a transaction of its own. */
#ifndef XROUTER_USAGE_VERIFY_PRIVATE_H
#define XROUTER_USAGE_VERIFY_PRIVATE_H

#include <stdbool.h>

#include "common/text.h"
#include "usage/drift.h"
#include "usage/ledger.h"

#define VERIFY_UNIT_ROWS 200 /* read between two looks at the clock */

struct model_sums {
    char model[USAGE_NAME_BYTES];
    struct sums sums;
    bool compared;
};

/* The rows of one key in one hour. */
struct hour {
    bool open;
    char key[KEY_ID_TEXT_BYTES];
    int64_t at_ms;
    struct model_sums *models;
    size_t count, capacity;
    size_t last; /* found last: the next is often the same */
};

struct verify {
    struct ledger *ledger;
    int phase;
    unsigned late; /* collects late rows; 0 = none does */
    /* What begins before these moments is not compared any more. */
    int64_t usage_trimmed_ms, hourly_trimmed_ms;

    /* Where the phase is: behind this row of its table. */
    char key[KEY_ID_TEXT_BYTES];
    char model[USAGE_NAME_BYTES];
    int64_t at_ms;
    uint8_t id[USAGE_ID_BYTES];

    /* A balance in the making. */
    bool in_key;
    bool has_history;
    int64_t entry, balance; /* the last id that was added, and the sum */

    struct hour hour;

    struct drifts drifts;
    uint64_t keys, hours, days;
    struct sums total;
};

/* One unit. 1 = the phase is over, 0 = there is more, -errno. */
int verify_balances(struct verify *v, sqlite3 *db);
int verify_rows(struct verify *v, sqlite3 *db);  /* against usage_hourly */
int verify_hours(struct verify *v, sqlite3 *db); /* that have no rows, or no day */
int verify_days(struct verify *v, sqlite3 *db);  /* against usage_hourly */
void verify_rows_end(struct verify *v);          /* collects no more late rows */

const char *verify_text(sqlite3_stmt *stmt, int column);

#endif
