#include "router/uploads.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "router/side_call.h"

#define REMOVAL_MS 10000 /* of one file */

struct uploads {
    struct engine *engine;
    struct uploads *next, *prev; /* in engine->removals */
    struct uploads_setup setup;
    struct side_call *call; /* NULL: none runs */
    struct file_ids ids;
    struct queue_ticket ticket;
    struct error error;
    unsigned status;
    char request_id[64]; /* the removal's copy */
    bool is_removing;
};

/* ---- removal ---- */

static void uploads_free(struct uploads *u)
{
    side_call_free(u->call);
    queue_leave(u->engine->queues, &u->ticket);
    if (u->is_removing) {
        if (u->prev != NULL)
            u->prev->next = u->next;
        else
            u->engine->removals = u->next;
        if (u->next != NULL)
            u->next->prev = u->prev;
        config_unref(u->setup.config);
    }
    free(u);
}

static void note_left_behind(const struct uploads *u, const struct error *e)
{
    log_request_event(LOG_WARN, "file_not_removed", u->request_id,
                      "a request's file stays with %s: it could not be removed: %s",
                      u->setup.provider->name, e->message);
}

static int encode_removal(void *arg, const struct upstream_call *call, struct upstream_request *out,
                          struct error *e)
{
    struct uploads *u = arg;

    return u->setup.ops->encode_removal(u->setup.provider, u->ids.id[u->ids.count - 1], call, out,
                                        e);
}

static void remove_next(struct uploads *u);

static void on_removed(void *arg, int rc, const struct buf *body, const struct error *e)
{
    struct uploads *u = arg;

    if (rc < 0)
        note_left_behind(u, e);
    side_call_free(u->call); /* e goes with it */
    u->call = NULL;
    u->ids.count--;
    remove_next(u);
}

/* The last one first. */
static void remove_next(struct uploads *u)
{
    const struct side_call_setup setup = {.config = u->setup.config,
                                          .provider = u->setup.provider,
                                          .ops = u->setup.ops,
                                          .request_id = u->request_id,
                                          .timeout_ms = REMOVAL_MS,
                                          .encode = encode_removal,
                                          .on_end = on_removed,
                                          .arg = u};
    struct error e = {0};

    for (; u->ids.count > 0; u->ids.count--) {
        if (side_call_start(u->engine, &setup, &u->call, &e) == 0)
            return;
        note_left_behind(u, &e);
    }
    uploads_free(u);
}

/* ---- uploads ---- */

static int encode_upload(void *arg, const struct upstream_call *call, struct upstream_request *out,
                         struct error *e)
{
    struct uploads *u = arg;

    if (u->is_removing) /* the request is gone, and what was to be uploaded with it */
        return error_set(e, XR_EINTERNAL, NULL, NULL);
    return u->setup.ops->encode_upload(u->setup.provider, u->setup.request, u->ids.count, call, out,
                                       e);
}

static void on_uploaded(void *arg, int rc, const struct buf *body, const struct error *e);

static int upload_next(struct uploads *u, struct error *e)
{
    const struct side_call_setup setup = {.config = u->setup.config,
                                          .provider = u->setup.provider,
                                          .ops = u->setup.ops,
                                          .request_id = u->setup.request_id,
                                          .timeout_ms = u->setup.provider->total_ms,
                                          .encode = encode_upload,
                                          .on_end = on_uploaded,
                                          .arg = u};

    return side_call_start(u->engine, &setup, &u->call, e);
}

static void on_uploaded(void *arg, int rc, const struct buf *body, const struct error *e)
{
    struct uploads *u = arg;

    u->status = side_call_status(u->call);
    if (rc < 0)
        u->error = *e;
    else
        rc = u->setup.ops->decode_upload(body->data, body->len, u->ids.id[u->ids.count], &u->error);
    side_call_free(u->call); /* body and e go with it */
    u->call = NULL;
    if (rc == 0)
        u->ids.count++;
    if (u->is_removing) {
        remove_next(u);
        return;
    }
    if (rc == 0 && u->ids.count < u->setup.count) {
        rc = upload_next(u, &u->error);
        if (rc == 0)
            return;
        u->status = 0;
    }
    u->setup.on_end(u->setup.arg, rc, rc < 0 ? &u->error : NULL);
}

int uploads_start(struct engine *engine, const struct uploads_setup *setup, struct uploads **out,
                  struct error *e)
{
    struct uploads *u = calloc(1, sizeof(*u));
    int rc;

    *out = NULL;
    if (u == NULL)
        return error_set(e, -ENOMEM, NULL, NULL);
    u->engine = engine;
    u->setup = *setup;
    rc = upload_next(u, e);
    if (rc < 0)
        free(u);
    else
        *out = u;
    return rc;
}

const struct file_ids *uploads_ids(const struct uploads *u)
{
    return &u->ids;
}

unsigned uploads_status(const struct uploads *u)
{
    return u->status;
}

void uploads_remove(struct uploads *u, struct queue_ticket *ticket)
{
    if (u == NULL)
        return;
    queue_pass(ticket, &u->ticket);
    u->is_removing = true;
    u->setup.config = config_ref(u->setup.config);
    strncpy(u->request_id, u->setup.request_id, sizeof(u->request_id) - 1);
    u->setup.request_id = u->request_id;
    u->next = u->engine->removals;
    if (u->next != NULL)
        u->next->prev = u;
    u->engine->removals = u;
    if (u->call == NULL)
        remove_next(u); /* else when it is known what the running one is called */
}

void uploads_give_up(struct engine *engine)
{
    struct uploads *next;

    for (struct uploads *u = engine->removals; u != NULL; u = next) {
        next = u->next;
        uploads_free(u);
    }
}
