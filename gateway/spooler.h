/* spooler.h - the helper's thread that moves usage events from the rings to disk: while the
 * usage-writer does not keep up, and all that is left at the stop. */
#ifndef XROUTER_GATEWAY_SPOOLER_H
#define XROUTER_GATEWAY_SPOOLER_H

#include <stdbool.h>

#include "usage/outbox.h"

#define SPOOLER_LOOK_MS 100     /* between two looks at the rings */
#define SPOOLER_FILL_PERCENT 50 /* above it, or tight, twice: the writer does not keep up */

struct spooler; /* opaque */

/* Starts the thread. dir (made when absent) is copied, rings are borrowed. NULL on failure, see
 * errno. */
struct spooler *spooler_new(const char *dir, struct outbox_region *rings);
/* Spool everything, once, and end the thread. */
void spooler_finish(struct spooler *s);
bool spooler_is_done(const struct spooler *s);
/* Frees it when the thread has ended; one that waits for a stuck disk is left alone, with the
 * memory it uses. NULL is fine. */
void spooler_free(struct spooler *s);

#endif
