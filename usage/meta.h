/* meta.h - what the database says about itself: whole numbers in the table meta. */
#ifndef XROUTER_USAGE_META_H
#define XROUTER_USAGE_META_H

#include <sqlite3.h>
#include <stdint.h>

/* Whether the last usage-writer closed the database in the ordinary way. */
#define META_CLEAN "clean"
/* Of the hours that begin before this moment rows of usage may have been deleted. */
#define META_USAGE_TRIMMED "usage_trimmed_until"
/* The same for rows of usage_hourly; always a midnight. */
#define META_HOURLY_TRIMMED "hourly_trimmed_until"
/* Up to this id 'usage' rows of credit_ledger are folded into one per key and day. */
#define META_CREDIT_FOLDED "credit_folded_id"

/* The number, or missing if there is no such row. 0 or -errno as database_errno(). */
int meta_get(sqlite3 *db, const char *name, int64_t missing, int64_t *value);
int meta_set(sqlite3 *db, const char *name, int64_t value); /* 0 or -errno */

#endif
