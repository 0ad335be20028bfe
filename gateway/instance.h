/* instance.h - the shared memory of one instance: made by a starting master, found again after a
 * crash, filled with the names that the config brings. */
#ifndef XROUTER_GATEWAY_INSTANCE_H
#define XROUTER_GATEWAY_INSTANCE_H

#include "common/buf.h"
#include "common/config.h"
#include "gateway/child.h"

/* How many workers the config means: 0 in it is one per CPU that we may use. */
size_t instance_worker_count(const struct config *config);

/* Makes both objects anew, with all regions, and fills the instance row.
 * 0 or -errno with the reason appended to why (nothing is left then). */
int instance_create(struct instance *out, const struct config *config,
                    const uint8_t pepper[KEY_PEPPER_BYTES], uint32_t node, struct buf *why);
/* Attaches what a crashed instance left of the public object, for recovery: shm, counters,
 * processes, inflight and outbox; the rest is NULL. 0, -ENOENT, or -EPROTO with *fault, a literal.
 */
int instance_attach(struct instance *out, const char *runtime_dir, const char **fault);
void instance_close(struct instance *in); /* unmaps; all zero is fine */

/* Takes the names of both objects away. 0 or -errno (the first one). */
int instance_unlink(const char *runtime_dir);
/* Sets the public object aside as NAME.broken-TIME; the new name is appended to new_name. */
int instance_set_aside(const char *runtime_dir, int64_t now_at_ms, struct buf *new_name);

/* Registers the config's models, providers and provider hosts. -ENOSPC and others, with a sentence
 * appended to why; names registered before stay. */
int instance_register(struct instance *in, const struct config *config, struct buf *why);

/* Whether every request has been settled and every ring committed or spooled. */
bool instance_is_drained(const struct instance *in);

#endif
