#include "providers/anthropic.h"

#include <string.h>

#include "providers/api_head.h"

#define API_VERSION "2023-06-01"

/* The version is part of the path; a base URL that ends in it has said so already: then without it.
 */
static const char *endpoint_of(const char *base_url, const char *endpoint)
{
    size_t len = strlen(base_url);

    while (len > 0 && base_url[len - 1] == '/')
        len--;
    return len >= 3 && memcmp(base_url + len - 3, "/v1", 3) == 0 ? endpoint + 3 : endpoint;
}

static void put_key(struct buf *head, const struct provider_config *p)
{
    if (p->credentials != NULL && p->credentials[0] != '\0')
        api_head_put_secret(head, "x-api-key", "", p->credentials);
    http1_put_header(head, "anthropic-version", API_VERSION);
}

static int encode_chat(const struct provider_config *p, const char *upstream_model,
                       const struct model_request *req, const struct upstream_call *call,
                       struct upstream_request *out, struct buf *ignored, struct error *e)
{
    struct buf *head = &out->head;
    int rc = anthropic_encode_body(p, upstream_model, req, &out->body, ignored, e);

    if (rc == 0)
        rc = api_head_begin(head, "POST", p->base_url, "", endpoint_of(p->base_url, "/v1/messages"),
                            e);
    if (rc < 0)
        return rc;
    put_key(head, p);
    http1_put_header(head, "Content-Type", "application/json");
    http1_put_header(head, "Accept", req->stream ? "text/event-stream" : "application/json");
    http1_put_header(head, "X-Request-ID", call->request_id);
    out->wants_stream = req->stream;
    return api_head_end(out, e);
}

static int encode_models(const struct provider_config *p, const struct upstream_call *call,
                         struct upstream_request *out, struct error *e)
{
    int rc = api_head_begin(&out->head, "GET", p->base_url, "",
                            endpoint_of(p->base_url, "/v1/models?limit=1000"), e);

    if (rc < 0)
        return rc;
    put_key(&out->head, p);
    http1_put_header(&out->head, "Accept", "application/json");
    http1_put_header(&out->head, "X-Request-ID", call->request_id);
    return api_head_end(out, e);
}

const struct provider_ops anthropic_ops = {
    .name = "anthropic",
    .framing = FRAMING_SSE,
    .takes_images = true,
    .supports = anthropic_supports,
    .encode_chat = encode_chat,
    .encode_models = encode_models,
    .stream_new = anthropic_stream_new,
    .stream_free = anthropic_stream_free,
    .decode_event = anthropic_decode_event,
    .decode_end = anthropic_decode_end,
    .decode_chat = anthropic_decode_chat,
    .map_error = anthropic_map_error,
};
