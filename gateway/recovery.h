/* recovery.h - what a crashed instance left: its children, its requests, its usage events.
 *
 * In order: wait for its children (they drain by themselves) or end them, settle every request
 * row, drain every ring into the ledger in a child of its own. Only then may the objects be made
 * anew. What cannot be read is set aside and reported, never deleted. */
#ifndef XROUTER_GATEWAY_RECOVERY_H
#define XROUTER_GATEWAY_RECOVERY_H

#include "common/buf.h"
#include "common/config.h"
#include "gateway/child.h"

/* Ends the children of an earlier master with SIGKILL; returns how many it signalled, or -errno. */
int recovery_end_orphans(const char *runtime_dir);

/* Attaches the old instance and settles its rows. 1: *old is open and its rings may hold events
 * (also when all have been drained: the caller need not tell); 0: nothing was left that recovery
 * can use (what was unreadable has been set aside); -errno with the reason appended to why. */
int recovery_attach(const struct config *config, struct instance *old, struct buf *why);

/* In a forked process: drains rings and spool into the database; returns the exit status. */
int recovery_main(const struct config *config, struct instance *old);

#endif
