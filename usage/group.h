/* group.h - usage records on their way into the ledger: received, not committed, not acked.
 *
 * Whatever the source (a packet, a ring without a worker, a spool file), records wait here in the
 * order they came. A commit takes some hundreds from the front in one transaction, and only then
 * moves the rings' committed cursors and unlinks the files. A failed commit changes nothing.
 *
 * How many are taken follows what the ledger can hold in one batch (LEDGER_BATCH_LOG_BYTES): events
 * of a few keys share its pages, those of thousands of keys do not. */
#ifndef XROUTER_USAGE_GROUP_H
#define XROUTER_USAGE_GROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/counters.h"
#include "usage/ledger.h"
#include "usage/outbox.h"

#define GROUP_COMMIT_RECORDS 2000          /* in a transaction at most; so many are due at once */
#define GROUP_FULL_BYTES (4 * 1024 * 1024) /* from here on nothing more should be added */

struct group; /* opaque */

struct group_setup { /* all borrowed */
    struct ledger *ledger;
    struct outbox_region *outbox;
    struct counters *counters;
    const char *dead_letters; /* path */
};
struct group *group_new(const struct group_setup *setup); /* NULL when out of memory */
void group_free(
    struct group *g); /* forgets what was not committed: rings and files still have it */

/* Records of a ring; next is the position to ack once they are committed. len may be 0: then only
 * the position is acked, in its turn. 0 or -ENOMEM with nothing added. */
int group_add(struct group *g, size_t slot, uint64_t next, const uint8_t *records, size_t len);
/* A record of a spool file, and the file's end: to be unlinked once all before it is committed, or,
 * if is_bad, renamed to PATH.bad. */
int group_add_spooled(struct group *g, const uint8_t *record, size_t len);
int group_add_file(struct group *g, const char *path, bool is_bad);

bool group_is_empty(const struct group *g);
bool group_is_full(const struct group *g);
size_t group_records(const struct group *g);
/* The ring position up to which everything is committed, spooled or held here. */
uint64_t group_position(const struct group *g, size_t slot);

/* Commits up to GROUP_COMMIT_RECORDS from the front and acks what is whole. A record that is none,
 * or that the ledger refuses, goes to the dead letters and counts as taken.
 * 0 or -errno: everything is still here, to be tried again later. */
int group_commit(struct group *g);

#endif
