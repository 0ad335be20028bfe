#include "providers/anthropic.h"

#include <errno.h>
#include <string.h>

#define USER_ID_MAX 256

static bool is_given(const cJSON *item)
{
    return item != NULL && !cJSON_IsNull(item);
}

static void put_max_tokens(const struct provider_config *p, const struct model_request *req,
                           struct buf *out)
{
    int64_t limit = req->max_tokens > 0 ? req->max_tokens : (int64_t)p->default_max_tokens;

    json_put_field_i64(out, "max_tokens", limit);
}

static void put_number(struct buf *out, const char *name, const cJSON *item)
{
    json_put_key(out, name);
    json_put_tree(out, item);
}

/* Newer models have none of these; those that have refuse two of them together. */
static void put_sampling(const struct anthropic_model *model, const cJSON *root, struct buf *out,
                         struct buf *ignored)
{
    const cJSON *temperature = json_get(root, "temperature");
    const cJSON *top_p = json_get(root, "top_p");
    const cJSON *top_k = json_get(root, "top_k");
    bool cuts = is_given(top_p) && top_p->valuedouble < 1; /* 1 changes nothing */

    if (is_given(temperature) && !model->has_sampling)
        anthropic_note_ignored(ignored, "temperature");
    else if (is_given(temperature) && temperature->valuedouble > 1)
        json_put_field_i64(out, "temperature", 1); /* the scale ends there */
    else if (is_given(temperature))
        put_number(out, "temperature", temperature);
    if (cuts && (is_given(temperature) || !model->has_sampling))
        anthropic_note_ignored(ignored, "top_p");
    else if (cuts)
        put_number(out, "top_p", top_p);
    if (is_given(top_k) && model->has_sampling && cJSON_IsNumber(top_k))
        put_number(out, "top_k", top_k);
    else if (is_given(top_k))
        anthropic_note_ignored(ignored, "top_k");
}

/* Those of white space alone are refused there, and played here. */
static void put_stops(const struct model_request *req, struct buf *out)
{
    bool any = false;

    for (size_t i = 0; i < req->stop_count; i++) {
        if (anthropic_is_blank(req->stop[i]))
            continue;
        buf_str(out, any ? "," : ",\"stop_sequences\":[");
        json_put_text(out, req->stop[i]);
        any = true;
    }
    if (any)
        buf_byte(out, ']');
}

static void put_user(const cJSON *root, struct buf *out, struct buf *ignored)
{
    const char *user = json_string(root, "user");

    if (user == NULL || user[0] == '\0')
        return;
    if (strlen(user) > USER_ID_MAX) {
        anthropic_note_ignored(ignored, "user");
        return;
    }
    json_put_key(out, "metadata");
    buf_byte(out, '{');
    json_put_field_text(out, "user_id", user);
    buf_byte(out, '}');
}

/* Only a client that asks for it by this API's own name gets it: the blocks it brings would have to
 * come back with the next request, and OpenAI's messages have no place for them. */
static void put_thinking(const struct model_request *req, struct buf *out)
{
    const char *text;
    size_t len;

    if (!cJSON_IsObject(json_get(req->root, "thinking")) ||
        json_slice(req->text, req->len, "thinking", &text, &len) < 0)
        return;
    json_put_key(out, "thinking");
    json_minify(out, text, len);
}

/* The model's word, NULL = nothing is to be said. */
static const char *find_effort(const struct anthropic_model *model, const cJSON *root,
                               struct buf *ignored)
{
    const char *effort = json_string(root, "reasoning_effort");
    const char *word;

    if (effort == NULL || strcmp(effort, "none") == 0) /* so it is by itself */
        return NULL;
    word = anthropic_model_effort(model, effort);
    if (word == NULL)
        anthropic_note_ignored(ignored, "reasoning_effort");
    return word;
}

static int put_output_config(const struct anthropic_model *model, const struct model_request *req,
                             struct buf *out, struct buf *ignored, struct error *e)
{
    const char *type = json_string(json_get(req->root, "response_format"), "type");
    const char *effort = find_effort(model, req->root, ignored);
    bool has_format = req->wants_json_schema && model->has_format;
    struct json_span schema;

    if (type != NULL && strcmp(type, "json_object") == 0)
        return anthropic_unsupported(e, "response_format",
                                     "it needs a schema, type \"json_object\" has none");
    if (effort == NULL && !has_format)
        return 0;
    buf_str(out, ",\"output_config\":{");
    if (has_format) {
        if (anthropic_find_schema(req, &schema, e) < 0)
            return XR_EINVALID;
        buf_str(out, "\"format\":{\"type\":\"json_schema\",\"schema\":");
        buf_append(out, schema.at, schema.len);
        buf_byte(out, '}');
    }
    if (effort != NULL)
        json_put_field_text(out, "effort", effort);
    return buf_byte(out, '}');
}

static int put_body(const struct provider_config *p, const char *upstream_model,
                    const struct model_request *req, struct buf *out, struct buf *ignored,
                    struct error *e)
{
    const struct anthropic_model *model = anthropic_model_find(upstream_model);
    int rc;

    buf_str(out, "{\"model\":");
    json_put_text(out, upstream_model);
    put_max_tokens(p, req, out);
    rc = anthropic_encode_history(req->messages, out, e);
    if (rc == 0)
        rc = anthropic_encode_tools(model, req, out, ignored, e);
    if (rc < 0)
        return rc;
    put_sampling(model, req->root, out, ignored);
    put_stops(req, out);
    put_user(req->root, out, ignored);
    put_thinking(req, out);
    rc = put_output_config(model, req, out, ignored, e);
    if (rc < 0)
        return rc;
    if (req->stream)
        json_put_field_bool(out, "stream", true);
    return buf_byte(out, '}');
}

int anthropic_encode_body(const struct provider_config *p, const char *upstream_model,
                          const struct model_request *req, struct buf *out, struct buf *ignored,
                          struct error *e)
{
    int rc = anthropic_refuse_parameters(req->root, e);

    if (rc == 0)
        rc = put_body(p, upstream_model, req, out, ignored, e);
    if (rc == 0 || out->err < 0)
        rc = out->err;
    if (rc == -EMSGSIZE)
        return error_set(e, XR_ETOOLARGE, NULL, NULL);
    if (rc == -ENOMEM)
        return error_set(e, -ENOMEM, NULL, NULL);
    if (rc == 0)
        anthropic_note_dropped(req->root, ignored);
    return rc;
}
