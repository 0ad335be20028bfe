/* status.h - breakers, queues and switches as stat, /metrics, xrouterctl and people see them. */
#ifndef XROUTER_ROUTER_STATUS_H
#define XROUTER_ROUTER_STATUS_H

#include "common/buf.h"
#include "common/config.h"
#include "common/counters.h"
#include "common/shm.h"

extern const char *const PROVIDER_SWITCH_NAMES[]; /* "enabled", "disabled", "draining" */

/* The members "queues":[] (one of each provider) and "targets":[] of `stat --json`, with a leading
 * comma; nothing from an object without these regions. names has the providers' names. */
int status_render_json(const struct shm *shm, const struct counters_region *names, struct buf *out);
/* The same as gauges, with labels provider and model. */
int status_render_prometheus(const struct shm *shm, const struct counters_region *names,
                             struct buf *out);
/* One array of the providers, each with its switch ("drained" once nothing is left at one that
 * drains), accounts, slots, requests, balances and models: what `provider list --json` prints. The
 * limit of a provider's slots is the config's: null without one, or for a provider that the config
 * has no more. Returns out->err, or -EPROTO if the object has not these regions. */
int status_render_providers(const struct shm *shm, const struct counters_region *names,
                            const struct config *config, struct buf *out);

#endif
