/* A whole answer. */
#include "providers/gigachat.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "common/json.h"
#include "providers/stop.h"
#include "providers/think.h"

#define TEXT_MAX (64 * 1024 * 1024)

struct whole {
    bool by_function; /* the arguments of the call are the answer */
    const struct model_request *req;
    struct token_meter *meter;
    const char *body;
    size_t len;
    struct gigachat_call call;
    struct buf reasoning, text, answer; /* text still holds what a stop sequence will cut */
    bool stopped;
};

static int not_understood(struct error *e)
{
    return error_set(e, XR_EUPSTREAM, NULL, "The provider sent what could not be understood.");
}

static int read_text(struct whole *w, const cJSON *message)
{
    const char *content = json_string(message, "content");
    const char *reasoning = json_string(message, "reasoning_content");
    struct think_splitter think = {0};
    struct stop_filter stop;
    int rc;

    if (reasoning != NULL)
        buf_str(&w->reasoning, reasoning);
    if (content == NULL)
        return w->reasoning.err;
    rc = think_feed(&think, content, strlen(content), &w->reasoning, &w->text);
    if (rc == 0)
        rc = think_finish(&think, &w->reasoning, &w->text);
    if (rc < 0)
        return rc;
    stop_init(&stop, w->req->stop, w->req->stop_count);
    rc = stop_feed(&stop, w->text.data, w->text.len, &w->answer);
    w->stopped = rc == 1;
    if (rc == 0)
        rc = stop_finish(&stop, &w->answer);
    stop_clear(&stop);
    return rc < 0 ? rc : 0;
}

/* usage: NULL where the provider has told none. */
static int encode(struct whole *w, const cJSON *root, const char *reason,
                  const struct answer_identity *identity, const struct token_usage *usage,
                  struct buf *out, struct error *e)
{
    struct openai_answer answer = {
        .content = w->answer.data, .content_len = w->answer.len, .finish_reason = "stop"};
    char id[GIGACHAT_CALL_ID_BYTES];
    struct openai_call call;
    int rc;

    if (w->reasoning.len > 0) {
        answer.reasoning = w->reasoning.data;
        answer.reasoning_len = w->reasoning.len;
    }
    if (json_get_i64(root, "created", &answer.created_at) < 0)
        answer.created_at = 0;
    if (!w->stopped)
        answer.finish_reason = gigachat_finish_reason(
            reason, w->call.name != NULL && !w->by_function, w->req->legacy_functions);
    if (answer.finish_reason == NULL)
        return error_set(e, XR_EUPSTREAM, NULL, "The model ended its answer with an error.");
    if (w->call.name == NULL && strcmp(reason, "function_call") == 0)
        return error_set(e, XR_EUPSTREAM, NULL, "The model called a function without naming it.");
    /* A call that was cut or filtered is not complete: it would only mislead. */
    if (w->call.name != NULL && !w->stopped && strcmp(answer.finish_reason, "length") != 0 &&
        strcmp(answer.finish_reason, "content_filter") != 0) {
        rc = gigachat_call_finish(&w->call, identity, id, &call, e);
        if (rc < 0)
            return rc;
        if (w->by_function) {
            answer.content = call.arguments;
            answer.content_len = call.arguments_len;
        } else {
            answer.call = &call;
        }
    }
    if (usage != NULL)
        answer.usage = *usage;
    else
        w->meter->count(w->meter, &answer.usage);
    return openai_answer_encode(&answer, identity, w->req->legacy_functions, out);
}

static void tell(struct token_meter *meter, const char *text, size_t len)
{
    if (len > 0)
        meter->on_text(meter, text, len);
}

static void tell_string(struct token_meter *meter, const char *text)
{
    if (text != NULL)
        tell(meter, text, strlen(text));
}

/* What the model has written, tags and all, in the order in which a stream would tell it. */
static void tell_all(const struct whole *w, const cJSON *message)
{
    tell_string(w->meter, json_string(message, "reasoning_content"));
    tell_string(w->meter, json_string(message, "content"));
    tell_string(w->meter, w->call.name);
    tell(w->meter, w->call.arguments.data, w->call.arguments.len);
}

static int decode(struct whole *w, const struct provider_config *p, const cJSON *root,
                  const struct answer_identity *identity, struct buf *out,
                  struct token_usage *usage, bool *usage_final, struct error *e)
{
    const cJSON *choices = json_get(root, "choices");
    const cJSON *choice = cJSON_IsArray(choices) ? choices->child : NULL;
    const cJSON *message = json_get(choice, "message");
    const char *reason = json_string(choice, "finish_reason");
    int rc;

    *usage_final = gigachat_read_usage(p, json_get(root, "usage"), usage);
    rc = gigachat_check_error(root, e);
    if (rc < 0)
        return rc;
    if (!cJSON_IsObject(message))
        return not_understood(e);
    rc = gigachat_call_read(&w->call, message, w->body, w->len, "choices.0.message");
    if (rc == -EBADMSG)
        return error_set(e, XR_EUPSTREAM, NULL, "The model's function call is not valid.");
    if (rc == 0) {
        tell_all(w, message);
        rc = read_text(w, message);
    }
    if (rc < 0)
        return error_set(e, rc, NULL, NULL);
    return encode(w, root, reason == NULL ? "stop" : reason, identity, *usage_final ? usage : NULL,
                  out, e);
}

/* A client that asked for a stream gets one: the whole answer is its only event. */
static int decode_as_stream(const struct provider_config *p, const struct model_request *req,
                            const struct answer_identity *identity, const char *body, size_t len,
                            struct buf *out, struct token_meter *meter, struct token_usage *usage,
                            bool *usage_final, struct error *e)
{
    const struct event event = {.name = "", .data = body, .len = len};
    void *stream = gigachat_stream_new(p, req, identity, meter);
    int rc;

    if (stream == NULL)
        return error_set(e, -ENOMEM, NULL, NULL);
    rc = gigachat_decode_event(stream, &event, out, usage, usage_final, e);
    if (rc >= 0)
        rc = gigachat_decode_end(stream, out, e);
    gigachat_stream_free(stream);
    return rc;
}

int gigachat_decode_chat(const struct provider_config *p, const struct model_request *req,
                         const struct answer_identity *identity, const char *body, size_t len,
                         struct buf *out, struct token_meter *meter, struct token_usage *usage,
                         bool *usage_final, struct error *e)
{
    struct whole w = {.by_function = gigachat_schema_by_function(p, req),
                      .req = req,
                      .meter = meter,
                      .body = body,
                      .len = len};
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
    gigachat_call_init(&w.call);
    buf_init(&w.reasoning, TEXT_MAX);
    buf_init(&w.text, TEXT_MAX);
    buf_init(&w.answer, TEXT_MAX);
    rc = decode(&w, p, root, identity, out, usage, usage_final, e);
    if (rc == 0 && out->err < 0)
        rc = error_set(e, out->err, NULL, NULL);
    gigachat_call_clear(&w.call);
    buf_clear(&w.reasoning);
    buf_clear(&w.text);
    buf_clear(&w.answer);
    cJSON_Delete(root);
    return rc;
}
