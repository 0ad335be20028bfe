/* takeover.h - events that no worker sends any more: rings without a live owner, spool files. */
#ifndef XROUTER_USAGE_TAKEOVER_H
#define XROUTER_USAGE_TAKEOVER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/counters.h"
#include "usage/group.h"
#include "usage/outbox.h"

struct takeover { /* all borrowed */
    struct outbox_region *outbox;
    struct group *group;
    struct counters *counters;
    const char *spool_dir;
    /* Commits from the group's front: group_commit() with what belongs around it. 0 or -errno. */
    int (*commit)(void *arg);
    void *arg;
};

/* Reads the rings without an owner (all of them with `all`) behind what the group has already,
 * until it is full. Skips rings whose cursors make no sense. */
void takeover_rings(struct takeover *t, bool all);
/* Whether every ring is committed or spooled to its end (rings without sense not counted). */
bool takeover_is_done(const struct takeover *t);
/* Takes the oldest spool file, committing as it goes, until it is unlinked (or, if something in it
 * was damaged, renamed to NAME.bad); one that stays in spite of that is passed over. 1 = there may
 * be more, 0 = none was there, -errno (then the file is read again later; the ids tell what was
 * committed).
 */
int takeover_spool(struct takeover *t);

#endif
