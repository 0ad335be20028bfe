/* backup.h - a copy of the database, made while events are committed.
 *
 * Pages are copied in slices over the writer's own connection, so that SQLite itself carries over
 * what is committed between two of them, into FILE.part; a child process then checks the copy from
 * end to end (usage/copy_check.h), and only a sound one gets the name FILE. key.secret is copied
 * beside it as FILE.key.secret, because without it no key can be recognized. */
#ifndef XROUTER_USAGE_BACKUP_H
#define XROUTER_USAGE_BACKUP_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "usage/ledger.h"

#define BACKUP_WHY_BYTES (PATH_MAX + 512)
#define BACKUP_SECRET_SUFFIX ".key.secret"

struct backup; /* opaque */

struct backup_setup { /* all borrowed, ledger until backup_free(), the rest during the call */
    struct ledger *ledger;
    const char *file;      /* absolute */
    const char *secret;    /* path of key.secret; NULL: the copy is only checked, and removed */
    const char *state_dir; /* where a backup must not be put */
    bool force;            /* replace an older backup */
};

/* 0, or with a sentence in why: -EINVAL (the path), -EEXIST (the file is there), -EBUSY (another
 * backup writes it), -ENOSPC, -errno. */
int backup_start(const struct backup_setup *setup, struct backup **out, char why[BACKUP_WHY_BYTES]);
/* Removes what is not complete. NULL is fine. */
void backup_free(struct backup *b);
/* A slice of some milliseconds; times are monotonic. 1 = there is more, 0 = the backup is there,
 * checked and on the disk; -EBADMSG (the copy is damaged, so the database is) or another -errno:
 * backup_why(). */
int backup_step(struct backup *b, int64_t now_ms);
const char *backup_why(const struct backup *b);
int64_t backup_next_ms(const struct backup *b); /* before it a slice has nothing to do */

struct backup_progress {
    int64_t pages, pages_done; /* as of the last slice; the database may grow */
    int64_t bytes;             /* of the whole copy, once it is made */
    bool is_checking;
};
struct backup_progress backup_progress(const struct backup *b);

#endif
