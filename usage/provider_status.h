/* provider_status.h - the table provider_status, written from the counters in shared memory.
 *
 * One row for each provider and model of it that the config names. What is measured is the
 * provider: its rows have the same numbers, those of the last interval in which it had requests.
 *     ok        less than 1 in 20 failed
 *     degraded  more
 *     down      all of them
 *     unused    none was sent since the start */
#ifndef XROUTER_USAGE_PROVIDER_STATUS_H
#define XROUTER_USAGE_PROVIDER_STATUS_H

#include <sqlite3.h>

#include "common/config.h"
#include "common/counters.h"

struct provider_status; /* opaque */

/* region is borrowed. NULL when out of memory. */
struct provider_status *provider_status_new(const struct counters_region *region);
void provider_status_free(struct provider_status *p); /* NULL is fine */
/* To be called at the end of each interval: takes the counters, and writes the rows if something
 * has changed, or once a minute. 1 = written, 0 = not necessary, -errno as database_errno(): the
 * rows are written the next time. */
int provider_status_write(struct provider_status *p, sqlite3 *db, const struct config *config,
                          int64_t now_at_ms);

#endif
