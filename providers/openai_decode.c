/* A whole answer. */
#include "providers/openai.h"

#include <errno.h>
#include <string.h>

#include "common/json_copy.h"
#include "providers/openai_chunk.h"

static int not_understood(struct error *e)
{
    return error_set(e, XR_EUPSTREAM, NULL, "The provider sent what could not be understood.");
}

/* The provider has told no usage: OpenAI's whole answers always do. */
static int add_usage(struct json_span answer, const struct token_usage *usage, struct buf *out)
{
    struct json_copy c;
    struct json_member m;

    json_copy_open(&c, answer, out);
    while (json_copy_next(&c, &m))
        if (!json_name_is(m.name, "usage"))
            json_copy_keep(&c, &m);
    openai_put_usage(usage, json_copy_add(&c, "usage"));
    return json_copy_close(&c);
}

static int write_answer(const struct openai_writing *w, struct json_span body, bool has_usage,
                        struct token_meter *meter, struct buf *out)
{
    struct token_usage counted = {0};
    struct buf answer;
    int rc;

    if (has_usage)
        return openai_write_answer(w, body, out);
    buf_init(&answer, out->max);
    rc = openai_write_answer(w, body, &answer);
    if (rc == 0) {
        meter->count(meter, &counted);
        rc = add_usage((struct json_span){answer.data, answer.len}, &counted, out);
    }
    buf_clear(&answer);
    return rc;
}

static int decode(const struct provider_config *p, const cJSON *root,
                  const struct answer_identity *identity, struct json_span body, struct buf *out,
                  struct token_meter *meter, struct token_usage *usage, bool *usage_final,
                  struct error *e)
{
    const struct openai_flavor *flavor = openai_flavor_find(p->flavor);
    struct openai_choices choices = {0};
    struct openai_reading reading;
    struct openai_writing w = {.flavor = flavor, .identity = identity, .choices = &choices};
    const cJSON *list = json_get(root, "choices");
    int rc;

    *usage_final = openai_read_usage(p, json_get(root, "usage"), usage);
    if (!*usage_final)
        *usage_final = openai_read_usage(p, json_get(json_get(root, "x_groq"), "usage"), usage);
    rc = openai_read_answer(flavor, root, &choices, *usage_final ? NULL : meter, &reading, e);
    if (rc == -EBADMSG)
        return not_understood(e);
    if (rc < 0)
        return rc;
    if (!reading.has_choices || !cJSON_IsObject(json_get(list->child, "message")))
        return not_understood(e);
    w.needs_edit = reading.needs_edit;
    rc = write_answer(&w, body, *usage_final, meter, out);
    return rc < 0 ? error_set(e, rc, NULL, NULL) : 0;
}

/* A client that asked for a stream gets one: the whole answer is its only chunk. */
static int decode_as_stream(const struct provider_config *p, const struct model_request *req,
                            const struct answer_identity *identity, struct json_span body,
                            struct buf *out, struct token_meter *meter, struct token_usage *usage,
                            bool *usage_final, struct error *e)
{
    const struct event whole = {.name = "", .data = body.at, .len = body.len};
    const struct event done = {.name = "", .data = "[DONE]", .len = 6};
    void *stream = openai_stream_new(p, req, identity, meter);
    int rc;

    if (stream == NULL)
        return error_set(e, -ENOMEM, NULL, NULL);
    rc = openai_decode_event(stream, &whole, out, usage, usage_final, e);
    if (rc >= 0)
        rc = openai_decode_event(stream, &done, out, usage, usage_final, e);
    if (rc >= 0)
        rc = openai_decode_end(stream, out, e);
    openai_stream_free(stream);
    return rc;
}

int openai_decode_chat(const struct provider_config *p, const struct model_request *req,
                       const struct answer_identity *identity, const char *body, size_t len,
                       struct buf *out, struct token_meter *meter, struct token_usage *usage,
                       bool *usage_final, struct error *e)
{
    const struct json_span span = {body, len};
    cJSON *root;
    int rc;

    *usage_final = false;
    if (req->stream)
        return decode_as_stream(p, req, identity, span, out, meter, usage, usage_final, e);
    if (len == 0 || json_check(body, len, &JSON_LIMITS_DEFAULT, NULL, NULL) < 0)
        return not_understood(e);
    root = cJSON_ParseWithLength(body, len); /* checked: only memory can be missing */
    if (root == NULL)
        return error_set(e, -ENOMEM, NULL, NULL);
    rc = decode(p, root, identity, span, out, meter, usage, usage_final, e);
    cJSON_Delete(root);
    return rc;
}
