/* integrity.h - whether the database was closed in the ordinary way, and if not, whether it is
 * still sound from end to end.
 *
 * A start looks only at the tables that decide who gets in. After an unclean end the whole database
 * is checked while the server works, by a child process on a temporary copy in state_dir; until
 * that has been done, no end counts as a clean one. */
#ifndef XROUTER_USAGE_INTEGRITY_H
#define XROUTER_USAGE_INTEGRITY_H

#include <sqlite3.h>
#include <stdbool.h>

#include "usage/backup.h"

/* Reads the mark of the last writer and sets it to "unclean" for as long as this one lives. A
 * database that never had a mark is new. 0 or -errno as database_errno(); *is_due is set anyway. */
int integrity_begin(sqlite3 *db, bool *is_due);
/* The orderly end: 0 or -errno. Not to be called while a check is due. */
int integrity_end(sqlite3 *db);
/* Begins the check: as backup_start(), to be gone on with by backup_step(). -ENOSPC: the disk has
 * not the room for a copy. */
int integrity_start(struct ledger *ledger, const char *state_dir, struct backup **out,
                    char why[BACKUP_WHY_BYTES]);

#endif
