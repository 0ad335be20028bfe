#define _GNU_SOURCE 1 /* memmem */
/* A streamed answer: GigaChat's events in, OpenAI's chunks out. */
#include "providers/gigachat.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/log.h"
#include "common/utf8.h"
#include "providers/stop.h"
#include "providers/think.h"

#define BAD_EVENTS_MAX 1 /* so many may be skipped */
#define TEXT_MAX SSE_EVENT_MAX
#define PLAIN_TAIL_MAX 512

struct stream {
    const struct provider_config *provider;
    const struct model_request *req;
    const struct answer_identity *identity;
    struct token_meter *meter;
    struct openai_chunks chunks;
    struct think_splitter think;
    struct stop_filter stop;
    struct gigachat_call call;
    bool by_function;                    /* its arguments are the answer */
    bool name_told;                      /* the call's name, to the meter */
    size_t arguments_told;               /* bytes of its arguments */
    struct buf reasoning, answer, shown; /* one event's text on its way */
    struct buf plain;                    /* an event's text, its escapes undone */
    struct buf plain_tail;               /* what followed the text in the last plain event */
    struct token_usage usage;            /* as the caller's after the last event */
    bool usage_final;
    int64_t created_at; /* as the provider says, 0 = not yet */
    unsigned bad_events;
    bool finished; /* the finish chunk is out */
    bool done;     /* nothing more is wanted */
    bool failed;
};

/* How an event begins that holds nothing but a piece of text. */
static const char plain_head[] = "{\"choices\":[{\"delta\":{\"content\":\"";
#define PLAIN_HEAD_LEN (sizeof(plain_head) - 1)

void *gigachat_stream_new(const struct provider_config *p, const struct model_request *req,
                          const struct answer_identity *identity, struct token_meter *meter)
{
    struct stream *s = calloc(1, sizeof(*s));

    if (s == NULL)
        return NULL;
    s->provider = p;
    s->req = req;
    s->identity = identity;
    s->meter = meter;
    s->by_function = gigachat_schema_by_function(p, req);
    openai_chunks_init(&s->chunks, identity, req->include_usage, req->legacy_functions);
    stop_init(&s->stop, req->stop, req->stop_count);
    gigachat_call_init(&s->call);
    buf_init(&s->reasoning, TEXT_MAX);
    buf_init(&s->answer, TEXT_MAX);
    buf_init(&s->shown, TEXT_MAX);
    buf_init(&s->plain, TEXT_MAX);
    buf_init(&s->plain_tail, PLAIN_TAIL_MAX);
    s->usage = (struct token_usage){-1, -1, -1};
    return s;
}

void gigachat_stream_free(void *stream)
{
    struct stream *s = stream;

    if (s == NULL)
        return;
    openai_chunks_clear(&s->chunks);
    stop_clear(&s->stop);
    gigachat_call_clear(&s->call);
    buf_clear(&s->reasoning);
    buf_clear(&s->answer);
    buf_clear(&s->shown);
    buf_clear(&s->plain);
    buf_clear(&s->plain_tail);
    free(s);
}

static void tell(struct stream *s, const char *text, size_t len)
{
    if (len > 0)
        s->meter->on_text(s->meter, text, len);
}

/* What is new of the call. As it comes, not when it is whole: one that is cut, or broken, or that
 * the client did not wait for has been written all the same. */
static void tell_call(struct stream *s)
{
    const struct buf *arguments = &s->call.arguments;

    if (s->call.name != NULL && !s->name_told) {
        s->name_told = true;
        tell(s, s->call.name, strlen(s->call.name));
    }
    if (arguments->len <= s->arguments_told) /* an object may come again, and replaces itself */
        return;
    tell(s, arguments->data + s->arguments_told, arguments->len - s->arguments_told);
    s->arguments_told = arguments->len;
}

static int put_text(struct stream *s, const char *field, const char *text, size_t len,
                    struct buf *out)
{
    if (len == 0)
        return 0;
    if (openai_chunks_begin(&s->chunks, s->created_at, out) < 0)
        return -ENOMEM;
    return openai_chunks_text(&s->chunks, field, text, len, out);
}

static int put_finish(struct stream *s, const char *reason, struct buf *out)
{
    s->finished = true;
    if (openai_chunks_begin(&s->chunks, s->created_at, out) < 0)
        return -ENOMEM;
    return openai_chunks_finish(&s->chunks, reason, out);
}

/* Text of the answer itself, up to a stop sequence. */
static int put_answer(struct stream *s, const char *text, size_t len, struct buf *out)
{
    int hit;
    int rc;

    if (s->req->stop_count == 0)
        return put_text(s, "content", text, len, out);
    buf_reset(&s->shown);
    hit = stop_feed(&s->stop, text, len, &s->shown);
    if (hit < 0)
        return hit;
    rc = put_text(s, "content", s->shown.data, s->shown.len, out);
    if (rc < 0 || hit == 0)
        return rc;
    s->done = true;
    return put_finish(s, "stop", out);
}

static int put_split(struct stream *s, struct buf *out)
{
    int rc = put_text(s, "reasoning_content", s->reasoning.data, s->reasoning.len, out);

    return rc < 0 || s->answer.len == 0 ? rc : put_answer(s, s->answer.data, s->answer.len, out);
}

static int put_content(struct stream *s, const char *text, size_t len, struct buf *out)
{
    int rc;

    tell(s, text, len);
    if (think_is_over(&s->think))
        return put_answer(s, text, len, out);
    buf_reset(&s->reasoning);
    buf_reset(&s->answer);
    rc = think_feed(&s->think, text, len, &s->reasoning, &s->answer);
    return rc < 0 ? rc : put_split(s, out);
}

/* What was held back because it might have been the beginning of something. */
static int put_held(struct stream *s, struct buf *out)
{
    int rc;

    buf_reset(&s->reasoning);
    buf_reset(&s->answer);
    rc = think_finish(&s->think, &s->reasoning, &s->answer);
    if (rc == 0)
        rc = put_split(s, out);
    if (rc < 0 || s->done)
        return rc;
    buf_reset(&s->shown);
    rc = stop_finish(&s->stop, &s->shown);
    return rc < 0 ? rc : put_text(s, "content", s->shown.data, s->shown.len, out);
}

static int put_call(struct stream *s, struct buf *out, struct error *e)
{
    char id[GIGACHAT_CALL_ID_BYTES];
    struct openai_call call;
    int rc = gigachat_call_finish(&s->call, s->identity, id, &call, e);

    if (rc < 0)
        return rc;
    if (s->by_function)
        return put_text(s, "content", call.arguments, call.arguments_len, out);
    if (openai_chunks_begin(&s->chunks, s->created_at, out) < 0)
        return -ENOMEM;
    return openai_chunks_call(&s->chunks, &call, out);
}

static int finish(struct stream *s, const char *reason, struct buf *out, struct error *e)
{
    bool is_call = s->call.name != NULL && !s->by_function;
    const char *ours = gigachat_finish_reason(reason, is_call, s->req->legacy_functions);
    int rc;

    if (ours == NULL)
        return error_set(e, XR_EUPSTREAM, NULL, "The model ended its answer with an error.");
    if (s->call.name == NULL && strcmp(reason, "function_call") == 0)
        return error_set(e, XR_EUPSTREAM, NULL, "The model called a function without naming it.");
    rc = put_held(s, out);
    if (rc < 0 || s->done)
        return rc;
    /* A call that was cut or filtered is not complete: it would only mislead. */
    if (s->call.name != NULL && strcmp(ours, "length") != 0 && strcmp(ours, "content_filter") != 0)
        rc = put_call(s, out, e);
    return rc < 0 ? rc : put_finish(s, ours, out);
}

static int read_message(struct stream *s, const cJSON *message, const struct event *ev,
                        const char *path, struct buf *out, struct error *e)
{
    const cJSON *content = json_get(message, "content");
    const char *reasoning = json_string(message, "reasoning_content");
    const char *role = json_string(message, "role");
    int rc;

    if (role != NULL && strcmp(role, "function_in_progress") == 0)
        return 0; /* a tool of the server's own is running: its content is the seconds left */
    if (content != NULL && !cJSON_IsString(content) && !cJSON_IsNull(content))
        return -EBADMSG;
    rc = gigachat_call_read(&s->call, message, ev->data, ev->len, path);
    if (rc == -EBADMSG) /* text may be skipped, a part of a call may not */
        return error_set(e, XR_EUPSTREAM, NULL, "The model's function call is not valid.");
    if (rc == 0 && reasoning != NULL) {
        tell(s, reasoning, strlen(reasoning));
        rc = put_text(s, "reasoning_content", reasoning, strlen(reasoning), out);
    }
    if (rc == 0 && content != NULL && cJSON_IsString(content))
        rc = put_content(s, content->valuestring, strlen(content->valuestring), out);
    if (rc == 0)
        tell_call(s);
    return rc;
}

static int read_choice(struct stream *s, const cJSON *choice, const struct event *ev,
                       struct buf *out, struct error *e)
{
    const cJSON *delta = json_get(choice, "delta");
    const char *reason = json_string(choice, "finish_reason");
    int rc = 0;

    if (s->finished || choice == NULL)
        return 0;
    if (!cJSON_IsObject(choice))
        return -EBADMSG;
    if (delta != NULL)
        rc = read_message(s, delta, ev, "choices.0.delta", out, e);
    else /* a whole answer, where a stream was asked for */
        rc = read_message(s, json_get(choice, "message"), ev, "choices.0.message", out, e);
    if (rc < 0 || reason == NULL || s->done)
        return rc;
    return finish(s, reason, out, e);
}

/* If the event is of the plain kind, and its text is s->plain: remembers what follows the text, so
 * that the next one can be told by comparing bytes. */
static void learn_plain(struct stream *s, const struct event *ev)
{
    static const char *const telling[] = {"\\", "\"content\"", "\"delta\"", "\"choices\""};
    const char *tail;
    const char *end = ev->data + ev->len;

    buf_reset(&s->plain_tail);
    if (ev->len < PLAIN_HEAD_LEN || memcmp(ev->data, plain_head, PLAIN_HEAD_LEN) != 0)
        return;
    for (tail = ev->data + PLAIN_HEAD_LEN; tail < end && *tail != '"'; tail++)
        tail += *tail == '\\';
    if (tail >= end || (size_t)(end - tail) > PLAIN_TAIL_MAX)
        return;
    /* Nothing behind the text may give it another meaning: no second member of its name. */
    for (size_t i = 0; i < sizeof(telling) / sizeof(telling[0]); i++)
        if (memmem(tail, (size_t)(end - tail), telling[i], strlen(telling[i])) != NULL)
            return;
    buf_append(&s->plain_tail, tail, (size_t)(end - tail));
}

/* Whether nothing but text came with the event. */
static bool is_plain(const struct stream *s, const cJSON *root)
{
    const cJSON *choices = json_get(root, "choices");
    const cJSON *choice = choices == NULL ? NULL : choices->child;
    const cJSON *delta = json_get(choice, "delta");
    const char *role = json_string(delta, "role");

    return !s->finished && !s->done && s->call.name == NULL && choice != NULL &&
           cJSON_IsString(json_get(delta, "content")) && json_get(root, "usage") == NULL &&
           json_get(choice, "finish_reason") == NULL &&
           json_get(delta, "reasoning_content") == NULL &&
           json_get(delta, "function_call") == NULL &&
           json_get(delta, "functions_state_id") == NULL &&
           (role == NULL || strcmp(role, "assistant") == 0);
}

static void read_created(struct stream *s, const cJSON *root)
{
    if (s->created_at == 0 && json_get_i64(root, "created", &s->created_at) < 0)
        s->created_at = 0;
    if (s->created_at < 0)
        s->created_at = 0;
}

static int read_event(struct stream *s, const cJSON *root, const struct event *ev, struct buf *out,
                      struct token_usage *usage, struct error *e)
{
    const cJSON *choices = json_get(root, "choices");
    int rc;

    if (!cJSON_IsObject(root))
        return -EBADMSG;
    /* Before anything can fail: what was used is owed even if the answer is no good. */
    if (gigachat_read_usage(s->provider, json_get(root, "usage"), usage))
        s->usage_final = true;
    rc = gigachat_check_error(root, e);
    if (rc < 0)
        return rc;
    if (choices != NULL && !cJSON_IsArray(choices))
        return -EBADMSG;
    read_created(s, root);
    rc = read_choice(s, choices == NULL ? NULL : choices->child, ev, out, e);
    if (rc == 0 && is_plain(s, root))
        learn_plain(s, ev);
    return rc;
}

/* A byte behind a backslash; 0 for \u, which is left to the real parser. */
static char unescape(char c)
{
    switch (c) {
    case 'n':
        return '\n';
    case 't':
        return '\t';
    case 'r':
        return '\r';
    case 'b':
        return '\b';
    case 'f':
        return '\f';
    case '"':
    case '\\':
    case '/':
        return c;
    default:
        return '\0';
    }
}

/* Most events are the one before with another text. Such a one needs no parser: same head, same
 * tail, and between them what a JSON string may hold. The text goes to s->plain. */
static bool read_plain(struct stream *s, const struct event *ev)
{
    size_t tail_len = s->plain_tail.len;
    const char *at = ev->data + PLAIN_HEAD_LEN;
    const char *end;
    const char *run;

    if (tail_len == 0 || s->finished || ev->len < PLAIN_HEAD_LEN + tail_len)
        return false;
    end = ev->data + ev->len - tail_len;
    if (memcmp(end, s->plain_tail.data, tail_len) != 0 ||
        memcmp(ev->data, plain_head, PLAIN_HEAD_LEN) != 0)
        return false;
    buf_reset(&s->plain);
    for (run = at; at < end;) {
        size_t width = utf8_width(at, (size_t)(end - at));

        if (width == 0 || *at == '"' || (unsigned char)*at < 0x20)
            return false;
        if (*at != '\\') {
            at += width;
            continue;
        }
        if (at + 1 == end || unescape(at[1]) == '\0')
            return false;
        buf_append(&s->plain, run, (size_t)(at - run));
        buf_byte(&s->plain, unescape(at[1]));
        at += 2;
        run = at;
    }
    return buf_append(&s->plain, run, (size_t)(at - run)) == 0;
}

static int skip_bad(struct stream *s, struct error *e)
{
    log_event(LOG_WARN, "bad_event", "", "gigachat: a stream's bad event number %u",
              s->bad_events + 1);
    if (s->bad_events++ < BAD_EVENTS_MAX)
        return 0;
    return error_set(e, XR_EUPSTREAM, NULL, "The provider sent what could not be understood.");
}

static int parse_event(struct stream *s, const struct event *ev, struct buf *out,
                       struct token_usage *usage, struct error *e)
{
    cJSON *root;
    int rc;

    if (json_check(ev->data, ev->len, &JSON_LIMITS_DEFAULT, NULL, NULL) < 0)
        return skip_bad(s, e);
    root = cJSON_ParseWithLength(ev->data, ev->len); /* checked: only memory can be missing */
    if (root == NULL)
        return -ENOMEM;
    rc = read_event(s, root, ev, out, usage, e);
    cJSON_Delete(root);
    return rc == -EBADMSG ? skip_bad(s, e) : rc;
}

static bool is_done_mark(const struct event *ev)
{
    return ev->len == 6 && memcmp(ev->data, "[DONE]", 6) == 0;
}

static int take_event(struct stream *s, const struct event *ev, struct buf *out,
                      struct token_usage *usage, struct error *e)
{
    if (s->done || ev->len == 0)
        return 0;
    if (is_done_mark(ev)) {
        s->done = true; /* whether it is a good end is gigachat_decode_end()'s to say */
        return 0;
    }
    if (read_plain(s, ev))
        return put_content(s, s->plain.data, s->plain.len, out);
    return parse_event(s, ev, out, usage, e);
}

int gigachat_decode_event(void *stream, const struct event *ev, struct buf *out,
                          struct token_usage *usage, bool *usage_final, struct error *e)
{
    struct stream *s = stream;
    int rc;

    if (s->failed)
        return error_set(e, XR_EUPSTREAM, NULL, "The provider's answer has failed already.");
    rc = take_event(s, ev, out, usage, e);
    if (rc == 0 && out->err < 0)
        rc = out->err;
    *usage_final = s->usage_final;
    s->usage = *usage;
    if (rc == 0)
        return s->done ? DECODE_DONE : DECODE_MORE;
    s->failed = true;
    return rc < XR_ERROR_END ? rc : error_set(e, rc, NULL, NULL);
}

int gigachat_decode_end(void *stream, struct buf *out, struct error *e)
{
    struct stream *s = stream;

    if (s->failed || !s->finished)
        return error_set(e, XR_EUPSTREAM, NULL, "The provider's answer broke off.");
    if (s->req->include_usage && !s->usage_final)
        s->meter->count(s->meter, &s->usage);
    return openai_chunks_end(&s->chunks, &s->usage, out);
}
