/* spool.h - events on disk while the ledger cannot take them: state_dir/spool/SLOT.N.
 *
 * The helper writes SLOT.N.part, syncs, renames to SLOT.N, then moves the ring's spooled cursor.
 * The usage-writer reads only SLOT.N files and unlinks each after its records are committed. */
#ifndef XROUTER_USAGE_SPOOL_H
#define XROUTER_USAGE_SPOOL_H

#include "usage/outbox.h"

/* Blocking (helper's own thread, or recovery): writes all the ring holds, syncs, moves the cursor.
 * One writer a slot at a time. The directory is made if it is missing.
 * Returns the number of bytes spooled, 0 = ring empty, -errno with the ring unchanged. */
ssize_t spool_write(const char *dir, size_t slot, struct outbox *ob);
/* Calls on_record for each good record of each complete file, slot by slot and in the order of
 * writing; after a file's last record calls on_file with its path (the writer unlinks it after
 * COMMIT), or, if something in it was torn or foreign, on_bad with the reason (the writer moves it
 * out of the way after COMMIT: its good records were given to on_record). Names that are not SLOT.N
 * are left alone. Returns 0 (also when the directory is missing), what a callback stopped with, or
 * -errno. */
struct spool_visitor {
    int (*on_record)(void *arg, const uint8_t *record, size_t len); /* non-zero stops */
    int (*on_file)(void *arg, const char *path);                    /* non-zero stops */
    void (*on_bad)(void *arg, const char *path, const char *reason);
    void *arg;
};
int spool_scan(const char *dir, const struct spool_visitor *visitor);
/* Whether no complete file waits (a missing directory is empty). 1, 0 or -errno. */
int spool_is_empty(const char *dir);

#endif
