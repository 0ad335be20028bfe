/* status.h - breakers, queues and switches as stat, /metrics and people see them. */
#ifndef XROUTER_ROUTER_STATUS_H
#define XROUTER_ROUTER_STATUS_H

#include "common/buf.h"
#include "common/counters.h"
#include "common/shm.h"

extern const char *const PROVIDER_SWITCH_NAMES[]; /* "enabled", "disabled", "draining" */

/* The members "queues":[] (one of each provider) and "targets":[] of `stat --json`, with a leading
 * comma; nothing from an object without these regions. names has the providers' names. */
int status_render_json(const struct shm *shm, const struct counters_region *names, struct buf *out);
/* The same as gauges, with labels provider and model. */
int status_render_prometheus(const struct shm *shm, const struct counters_region *names,
                             struct buf *out);

#endif
