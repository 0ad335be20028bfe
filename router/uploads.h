/* uploads.h - the files of a request, for providers that want them before the call: uploaded one
 * after the other, and removed once the call is over, whatever became of it.
 *
 * The removal belongs to the worker: it outlives the request, and keeps the request's slot of the
 * provider until it is done. */
#ifndef XROUTER_ROUTER_UPLOADS_H
#define XROUTER_ROUTER_UPLOADS_H

#include "common/config.h"
#include "common/error.h"
#include "providers/provider.h"
#include "router/engine.h"
#include "router/queue.h"

struct uploads_setup { /* borrowed until uploads_remove(), which leaves config alone */
    struct config *config;
    const struct provider_config *provider;
    const struct provider_ops *ops;
    const struct model_request *request;
    const char *request_id;
    size_t count; /* what ops->count_uploads() said; > 0 */
    /* 0: all are there. Else the first failure. Once, never from uploads_start() or after
     * uploads_remove(). */
    void (*on_end)(void *arg, int rc, const struct error *e);
    void *arg;
};

struct uploads; /* opaque */

/* 0, or XR_E... or -ENOMEM with e when nothing could be begun: then there is nothing to remove. */
int uploads_start(struct engine *engine, const struct uploads_setup *setup, struct uploads **out,
                  struct error *e);
const struct file_ids *uploads_ids(const struct uploads *u);
/* The status of the upload that failed; 0 = none came. */
unsigned uploads_status(const struct uploads *u);
/* u is the worker's now: what has been uploaded, or is on its way, is removed. ticket's slot goes
 * with it. NULL is fine. */
void uploads_remove(struct uploads *u, struct queue_ticket *ticket);
/* The worker ends: removals that still run are given up. */
void uploads_give_up(struct engine *engine);

#endif
