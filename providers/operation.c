#include "providers/operation.h"

#include <errno.h>

#include "providers/completion_answer.h"

static bool is_completion(const struct model_request *req)
{
    return req->operation == OPERATION_COMPLETION;
}

/* What an adapter wrote to chat goes to out in the older shape; rc is the adapter's. */
static int turn(const struct model_request *req, struct buf *chat, struct buf *out, int rc,
                struct error *e)
{
    int turned = chat->err;

    if (turned == 0)
        turned = req->stream ? completion_answer_put_events(chat->data, chat->len, out)
                             : completion_answer_put(chat->data, chat->len, out);
    buf_clear(chat);
    return turned < 0 && rc >= 0 ? error_set(e, turned, NULL, NULL) : rc;
}

int operation_encode(const struct provider_ops *ops, const struct provider_config *p,
                     const char *upstream_model, const struct model_request *req,
                     const struct upstream_call *call, struct upstream_request *out,
                     struct buf *ignored, struct error *e)
{
    if (req->operation != OPERATION_EMBEDDINGS)
        return ops->encode_chat(p, upstream_model, req, call, out, ignored, e);
    if (ops->encode_embeddings == NULL)
        return error_set(e, XR_EUNSUPPORTED, "model", "The model's provider makes no embeddings.");
    return ops->encode_embeddings(p, upstream_model, req, call, out, ignored, e);
}

int operation_decode_event(const struct provider_ops *ops, const struct model_request *req,
                           void *stream, const struct event *ev, struct buf *out,
                           struct token_usage *usage, bool *usage_final, struct error *e)
{
    struct buf chat;
    int rc;

    if (!is_completion(req))
        return ops->decode_event(stream, ev, out, usage, usage_final, e);
    buf_init(&chat, out->max);
    rc = ops->decode_event(stream, ev, &chat, usage, usage_final, e);
    return turn(req, &chat, out, rc, e);
}

int operation_decode_end(const struct provider_ops *ops, const struct model_request *req,
                         void *stream, struct buf *out, struct error *e)
{
    struct buf chat;
    int rc;

    if (!is_completion(req))
        return ops->decode_end(stream, out, e);
    buf_init(&chat, out->max);
    rc = ops->decode_end(stream, &chat, e);
    return turn(req, &chat, out, rc, e);
}

int operation_decode_whole(const struct provider_ops *ops, const struct provider_config *p,
                           const struct model_request *req, const struct answer_identity *identity,
                           const char *body, size_t len, struct buf *out, struct token_meter *meter,
                           struct token_usage *usage, bool *usage_final, struct error *e)
{
    struct buf chat;
    int rc;

    if (req->operation == OPERATION_EMBEDDINGS)
        return ops->decode_embeddings(p, req, identity, body, len, out, meter, usage, usage_final,
                                      e);
    if (!is_completion(req))
        return ops->decode_chat(p, req, identity, body, len, out, meter, usage, usage_final, e);
    buf_init(&chat, out->max);
    rc = ops->decode_chat(p, req, identity, body, len, &chat, meter, usage, usage_final, e);
    if (rc < 0) {
        buf_clear(&chat);
        return rc;
    }
    return turn(req, &chat, out, rc, e);
}
