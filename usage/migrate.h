/* migrate.h - numbered changes of the schema, embedded in the binary from sql/.
 *
 * Each runs in one transaction together with its row in schema_migrations (number, name, checksum,
 * applied_at). A database that is newer than the binary, or whose applied migrations differ from
 * the binary's, is refused. */
#ifndef XROUTER_USAGE_MIGRATE_H
#define XROUTER_USAGE_MIGRATE_H

#include <sqlite3.h>
#include <stddef.h>

#include "usage/database.h"

struct migration {
    int number; /* 1, 2, 3... */
    const char *name;
    const char *up;
    const char *down;
};

/* The binary's own, in order. */
const struct migration *migrate_list(size_t *count);

/* Applies what is missing. Returns 0, -EPROTO (newer or changed), or -errno as database_errno(),
 * with a sentence in why. What was applied before a failure stays applied. */
int migrate_up(sqlite3 *db, const struct migration *list, size_t count,
               char why[DATABASE_WHY_BYTES]);
/* Undoes those above number `to`, newest first. Errors as migrate_up(). */
int migrate_down(sqlite3 *db, const struct migration *list, size_t count, int to,
                 char why[DATABASE_WHY_BYTES]);
/* The highest number applied, 0 = none. 0 or -errno. */
int migrate_version(sqlite3 *db, int *number);

#endif
