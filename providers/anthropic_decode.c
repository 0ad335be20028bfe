/* A whole answer. */
#include "providers/anthropic.h"

#include <errno.h>
#include <string.h>

#include "providers/stop.h"

#define TEXT_MAX (64 * 1024 * 1024)
#define CALLS_MAX 128

struct whole {
    const struct model_request *req;
    struct token_meter *meter;
    struct buf reasoning, text, answer; /* text still holds what a stop sequence will cut */
    struct buf arguments;               /* of all calls, one behind the other */
    struct openai_call calls[CALLS_MAX];
    size_t starts[CALLS_MAX]; /* of their arguments: the buf may move */
    size_t call_count;
    bool stopped;
};

static int not_understood(struct error *e)
{
    return error_set(e, XR_EUPSTREAM, NULL, "The provider sent what could not be understood.");
}

static int add_text(struct whole *w, struct buf *to, const char *text)
{
    if (text == NULL)
        return -EBADMSG;
    if (text[0] != '\0')
        w->meter->on_text(w->meter, text, strlen(text));
    return buf_str(to, text);
}

static int add_call(struct whole *w, const cJSON *block, struct json_span source)
{
    const char *id = json_string(block, "id");
    const char *name = json_string(block, "name");
    struct json_span input;
    struct buf *to = &w->arguments;
    size_t start;

    if (id == NULL || id[0] == '\0' || name == NULL || name[0] == '\0' ||
        json_slice(source.at, source.len, "input", &input.at, &input.len) < 0 || input.at[0] != '{')
        return -EBADMSG;
    if (anthropic_is_answer_function(w->req, name))
        to = &w->text;
    else
        w->meter->on_text(w->meter, name, strlen(name));
    start = to->len;
    if (json_minify(to, input.at, input.len) < 0)
        return to->err;
    w->meter->on_text(w->meter, to->data + start, to->len - start);
    /* Of several calls a client of the older form learns the first. */
    if (to == &w->text || (w->req->legacy_functions && w->call_count > 0))
        return 0;
    if (w->call_count == CALLS_MAX)
        return -EBADMSG;
    w->starts[w->call_count] = start;
    w->calls[w->call_count++] =
        (struct openai_call){.id = id,
                             .name = anthropic_real_function_name(w->req, name),
                             .arguments_len = to->len - start};
    return 0;
}

static int add_block(struct whole *w, const cJSON *block, struct json_span source)
{
    const char *type = json_string(block, "type");

    if (type == NULL)
        return -EBADMSG;
    if (strcmp(type, "text") == 0)
        return add_text(w, &w->text, json_string(block, "text"));
    if (strcmp(type, "thinking") == 0)
        return add_text(w, &w->reasoning, json_string(block, "thinking"));
    if (strcmp(type, "tool_use") == 0)
        return add_call(w, block, source);
    return 0; /* nothing that OpenAI's clients know */
}

static int add_blocks(struct whole *w, const cJSON *content, const char *body, size_t len)
{
    struct json_span span;
    struct json_walk walk;
    struct json_member m;
    const cJSON *block;
    int rc = 0;

    if (!cJSON_IsArray(content) || json_slice(body, len, "content", &span.at, &span.len) < 0)
        return -EBADMSG;
    json_walk_begin(&walk, span);
    for (block = content->child; rc == 0 && block != NULL && json_walk_next(&walk, &m);
         block = block->next)
        rc = add_block(w, block, m.value);
    return rc;
}

static int cut_at_stop(struct whole *w)
{
    const char *stops[CHAT_STOP_MAX];
    struct stop_filter stop;
    int rc;

    stop_init(&stop, stops, anthropic_own_stops(w->req, stops));
    rc = stop_feed(&stop, w->text.data, w->text.len, &w->answer);
    w->stopped = rc == 1;
    if (rc == 0)
        rc = stop_finish(&stop, &w->answer);
    stop_clear(&stop);
    return rc < 0 ? rc : 0;
}

/* usage: NULL where the provider has told none. */
static int encode(struct whole *w, const char *reason, const struct answer_identity *identity,
                  const struct token_usage *usage, struct buf *out)
{
    bool legacy = w->req->legacy_functions;
    struct openai_answer answer = {
        .content = w->answer.data, .content_len = w->answer.len, .finish_reason = "stop"};

    if (w->reasoning.len > 0) {
        answer.reasoning = w->reasoning.data;
        answer.reasoning_len = w->reasoning.len;
    }
    if (!w->stopped)
        answer.finish_reason = anthropic_finish_reason(reason, w->call_count > 0, legacy);
    for (size_t i = 0; i < w->call_count; i++)
        w->calls[i].arguments = w->arguments.data + w->starts[i];
    /* A call that was cut or filtered is not complete: it would only mislead. */
    if (w->call_count > 0 && !w->stopped && !anthropic_is_cut(answer.finish_reason)) {
        answer.call = w->calls;
        answer.more_calls = w->call_count - 1;
    }
    if (usage != NULL)
        answer.usage = *usage;
    else
        w->meter->count(w->meter, &answer.usage);
    return openai_answer_encode(&answer, identity, legacy, out);
}

static int decode(struct whole *w, const cJSON *root, const char *body, size_t len,
                  const struct answer_identity *identity, struct buf *out,
                  struct token_usage *usage, bool *usage_final, struct error *e)
{
    struct anthropic_counts counts = ANTHROPIC_COUNTS_NONE;
    const char *type = json_string(root, "type");
    int rc;

    anthropic_counts_read(&counts, json_get(root, "usage"));
    *usage_final = anthropic_counts_usage(&counts, usage);
    if (type != NULL && strcmp(type, "error") == 0)
        return anthropic_set_error(json_get(root, "error"), e);
    rc = add_blocks(w, json_get(root, "content"), body, len);
    if (rc == 0)
        rc = cut_at_stop(w);
    if (rc == 0)
        rc =
            encode(w, json_string(root, "stop_reason"), identity, *usage_final ? usage : NULL, out);
    if (rc == -EBADMSG)
        return not_understood(e);
    return rc < 0 ? error_set(e, rc, NULL, NULL) : 0;
}

/* A client that asked for a stream gets one: the whole answer is its only event. */
static int decode_as_stream(const struct provider_config *p, const struct model_request *req,
                            const struct answer_identity *identity, const char *body, size_t len,
                            struct buf *out, struct token_meter *meter, struct token_usage *usage,
                            bool *usage_final, struct error *e)
{
    const struct event event = {.name = "", .data = body, .len = len};
    void *stream = anthropic_stream_new(p, req, identity, meter);
    int rc;

    if (stream == NULL)
        return error_set(e, -ENOMEM, NULL, NULL);
    rc = anthropic_decode_event(stream, &event, out, usage, usage_final, e);
    if (rc >= 0)
        rc = anthropic_decode_end(stream, out, e);
    anthropic_stream_free(stream);
    return rc;
}

static void whole_init(struct whole *w, const struct model_request *req, struct token_meter *meter)
{
    w->req = req;
    w->meter = meter;
    w->call_count = 0;
    w->stopped = false;
    buf_init(&w->reasoning, TEXT_MAX);
    buf_init(&w->text, TEXT_MAX);
    buf_init(&w->answer, TEXT_MAX);
    buf_init(&w->arguments, TEXT_MAX);
}

static void whole_clear(struct whole *w)
{
    buf_clear(&w->reasoning);
    buf_clear(&w->text);
    buf_clear(&w->answer);
    buf_clear(&w->arguments);
}

int anthropic_decode_chat(const struct provider_config *p, const struct model_request *req,
                          const struct answer_identity *identity, const char *body, size_t len,
                          struct buf *out, struct token_meter *meter, struct token_usage *usage,
                          bool *usage_final, struct error *e)
{
    struct whole w;
    cJSON *root;
    int rc;

    *usage_final = false;
    if (req->stream)
        return decode_as_stream(p, req, identity, body, len, out, meter, usage, usage_final, e);
    if (len == 0 || json_check(body, len, &JSON_LIMITS_DEFAULT, NULL, NULL) < 0)
        return not_understood(e);
    root = cJSON_ParseWithLength(body, len); /* checked: only memory can be missing */
    if (root == NULL)
        return error_set(e, -ENOMEM, NULL, NULL);
    whole_init(&w, req, meter);
    rc = decode(&w, root, body, len, identity, out, usage, usage_final, e);
    whole_clear(&w);
    cJSON_Delete(root);
    return rc;
}
