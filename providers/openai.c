#include "providers/openai.h"

#include <string.h>

#include "providers/api_head.h"
#include "providers/embeddings.h"

#define FOLDER_BYTES 96

/* Yandex's model names are addresses, gpt://FOLDER/model/branch; the folder is wanted in a header
 * too. */
static void put_folder(struct buf *head, const char *upstream_model)
{
    const char *at = strstr(upstream_model, "://");
    char folder[FOLDER_BYTES];
    size_t len;

    if (at == NULL)
        return;
    at += 3;
    len = strcspn(at, "/");
    if (len == 0 || len >= sizeof(folder))
        return;
    memcpy(folder, at, len);
    folder[len] = '\0';
    http1_put_header(head, "OpenAI-Project", folder);
}

static void put_key(const struct openai_flavor *flavor, struct buf *head, const char *key,
                    const char *upstream_model)
{
    bool is_iam_token = key != NULL && strncmp(key, "t1.", 3) == 0;

    if (flavor->yandex_auth)
        put_folder(head, upstream_model);
    if (key == NULL || key[0] == '\0') /* a server of one's own may want none */
        return;
    api_head_put_secret(head, "Authorization",
                        flavor->yandex_auth && !is_iam_token ? "Api-Key" : "Bearer", key);
}

/* Everything behind the request line. */
static int put_head(const struct provider_config *p, const char *upstream_model, bool wants_stream,
                    const char *request_id, struct upstream_request *out, struct error *e)
{
    struct buf *head = &out->head;

    put_key(openai_flavor_find(p->flavor), head, p->credentials, upstream_model);
    http1_put_header(head, "Content-Type", "application/json");
    http1_put_header(head, "Accept", wants_stream ? "text/event-stream" : "application/json");
    http1_put_header(head, "X-Request-ID", request_id);
    out->wants_stream = wants_stream;
    return api_head_end(out, e);
}

static int encode_chat(const struct provider_config *p, const char *upstream_model,
                       const struct model_request *req, const struct upstream_call *call,
                       struct upstream_request *out, struct buf *ignored, struct error *e)
{
    int rc = openai_encode_body(openai_flavor_find(p->flavor), upstream_model, req, &out->body,
                                ignored, e);

    if (rc == 0)
        rc = api_head_begin(&out->head, "POST", p->base_url, "/v1", "/chat/completions", e);
    return rc < 0 ? rc : put_head(p, upstream_model, req->stream, call->request_id, out, e);
}

static int encode_embeddings(const struct provider_config *p, const char *upstream_model,
                             const struct model_request *req, const struct upstream_call *call,
                             struct upstream_request *out, struct buf *ignored, struct error *e)
{
    int rc = openai_encode_embeddings(upstream_model, req, &out->body, e);

    if (rc == 0)
        rc = api_head_begin(&out->head, "POST", p->base_url, "/v1", "/embeddings", e);
    return rc < 0 ? rc : put_head(p, upstream_model, false, call->request_id, out, e);
}

static int encode_models(const struct provider_config *p, const struct upstream_call *call,
                         struct upstream_request *out, struct error *e)
{
    int rc = api_head_begin(&out->head, "GET", p->base_url, "/v1", "/models", e);

    if (rc < 0)
        return rc;
    put_key(openai_flavor_find(p->flavor), &out->head, p->credentials, "");
    http1_put_header(&out->head, "Accept", "application/json");
    http1_put_header(&out->head, "X-Request-ID", call->request_id);
    return api_head_end(out, e);
}

const struct provider_ops openai_ops = {
    .name = "openai",
    .framing = FRAMING_SSE,
    .takes_images = true,
    .supports = openai_supports,
    .encode_chat = encode_chat,
    .encode_models = encode_models,
    .stream_new = openai_stream_new,
    .stream_free = openai_stream_free,
    .decode_event = openai_decode_event,
    .decode_end = openai_decode_end,
    .decode_chat = openai_decode_chat,
    .encode_embeddings = encode_embeddings,
    .decode_embeddings = embeddings_decode,
    .map_error = openai_map_error,
};
