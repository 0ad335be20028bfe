#include "providers/gigachat.h"

#include "providers/api_head.h"
#include "providers/embeddings.h"

static int encode_chat(const struct provider_config *p, const char *upstream_model,
                       const struct model_request *req, const struct upstream_call *call,
                       struct upstream_request *out, struct buf *ignored, struct error *e)
{
    struct buf *head = &out->head;
    int rc = gigachat_encode_body(p, upstream_model, req, call->files, &out->body, ignored, e);

    if (rc == 0)
        rc = gigachat_head_begin(head, "POST", p->base_url, "/chat/completions", e);
    if (rc < 0)
        return rc;
    gigachat_put_authorization(head, p, call->token);
    http1_put_header(head, "Content-Type", "application/json");
    http1_put_header(head, "Accept", req->stream ? "text/event-stream" : "application/json");
    if (req->stream)
        http1_put_header(head, "Cache-Control", "no-store");
    http1_put_header(head, "X-Request-ID", call->request_id);
    rc = gigachat_put_session(upstream_model, req, head, e);
    if (rc < 0)
        return rc;
    out->wants_stream = req->stream;
    return api_head_end(out, e);
}

static int encode_embeddings(const struct provider_config *p, const char *upstream_model,
                             const struct model_request *req, const struct upstream_call *call,
                             struct upstream_request *out, struct buf *ignored, struct error *e)
{
    struct buf *head = &out->head;
    int rc = gigachat_encode_embeddings(upstream_model, req, &out->body, ignored, e);

    if (rc == 0)
        rc = gigachat_head_begin(head, "POST", p->base_url, "/embeddings", e);
    if (rc < 0)
        return rc;
    gigachat_put_authorization(head, p, call->token);
    http1_put_header(head, "Content-Type", "application/json");
    http1_put_header(head, "Accept", "application/json");
    http1_put_header(head, "X-Request-ID", call->request_id);
    return api_head_end(out, e);
}

const struct provider_ops gigachat_ops = {
    .name = "gigachat",
    .framing = FRAMING_SSE,
    .takes_images = true,
    .supports = gigachat_supports,
    .needs_token = gigachat_needs_token,
    .encode_token = gigachat_encode_token,
    .decode_token = gigachat_decode_token,
    .encode_chat = encode_chat,
    .count_uploads = gigachat_count_uploads,
    .encode_upload = gigachat_encode_upload,
    .decode_upload = gigachat_decode_upload,
    .encode_removal = gigachat_encode_removal,
    .encode_count = gigachat_encode_count,
    .decode_count = gigachat_decode_count,
    .encode_models = gigachat_encode_models,
    .encode_balance = gigachat_encode_balance,
    .decode_balance = gigachat_decode_balance,
    .stream_new = gigachat_stream_new,
    .stream_free = gigachat_stream_free,
    .decode_event = gigachat_decode_event,
    .decode_end = gigachat_decode_end,
    .decode_chat = gigachat_decode_chat,
    .encode_embeddings = encode_embeddings,
    .decode_embeddings = embeddings_decode,
    .map_error = gigachat_map_error,
};
