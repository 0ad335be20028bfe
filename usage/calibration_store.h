/* calibration_store.h - the table model_calibration: ratios that outlive the shared memory.
 *
 * Rows of models that the config does not name stay: their models may come back. */
#ifndef XROUTER_USAGE_CALIBRATION_STORE_H
#define XROUTER_USAGE_CALIBRATION_STORE_H

#include <sqlite3.h>
#include <stdint.h>

#include "common/counters.h"
#include "usage/calibration.h"

struct calibration_store; /* opaque */

/* Both are borrowed; names has the models' names. NULL when out of memory. */
struct calibration_store *calibration_store_new(struct calibration_region *ratios,
                                                const struct counters_region *names);
void calibration_store_free(struct calibration_store *s); /* NULL is fine */
/* Reads the rows of the models that have none read yet, into shared memory where nothing is known
 * there. At the start, before anybody can learn. 0 or -errno as database_errno(). */
int calibration_store_load(struct calibration_store *s, sqlite3 *db);
/* The database is another one than before: all is to be read again. */
void calibration_store_begin_anew(struct calibration_store *s);
/* Loads what is left to load, and writes the ratios that are not what the database has, in one
 * transaction. 1 = written, 0 = there are none, -errno as database_errno(): the next call tries
 * again. */
int calibration_store_write(struct calibration_store *s, sqlite3 *db, int64_t now_at_ms);

#endif
