/* A streamed answer: the API's blocks in, OpenAI's chunks out. */
#include "providers/anthropic.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "providers/stop.h"

#define BLOCKS_MAX 64               /* open at once; the API opens one after the other */
#define TEXT_MAX (64 * 1024 * 1024) /* of a whole message; an event's is much less */
#define REASON_BYTES 64

enum block_kind {
    BLOCK_TEXT,
    BLOCK_THINKING,
    BLOCK_CALL,
    BLOCK_ANSWER, /* a call whose arguments are the answer's text */
    BLOCK_SPARE,  /* a call too many for a client that knows but one */
    BLOCK_OTHER   /* nothing that OpenAI's clients know */
};
struct block {
    int64_t index; /* the API's */
    enum block_kind kind;
    size_t call; /* the number of a call */
    bool has_input;
};

struct stream {
    const struct model_request *req;
    struct token_meter *meter;
    struct openai_chunks chunks;
    const char *stops[CHAT_STOP_MAX];
    struct stop_filter stop;
    struct buf shown; /* one event's text behind the filter */
    struct buf input; /* arguments that came whole */
    struct block blocks[BLOCKS_MAX];
    size_t block_count;
    size_t call_count;
    struct block bare; /* a call that has ended without arguments; OTHER = none */
    struct anthropic_counts counts;
    struct token_usage usage; /* as told, -1 = not */
    bool usage_final;
    char reason[REASON_BYTES]; /* stop_reason, "" = not yet */
    bool finished;             /* the finish chunk is out */
    bool failed;
};

void *anthropic_stream_new(const struct provider_config *p, const struct model_request *req,
                           const struct answer_identity *identity, struct token_meter *meter)
{
    struct stream *s = calloc(1, sizeof(*s));

    if (s == NULL)
        return NULL;
    s->req = req;
    s->meter = meter;
    openai_chunks_init(&s->chunks, identity, req->include_usage, req->legacy_functions);
    stop_init(&s->stop, s->stops, anthropic_own_stops(req, s->stops));
    buf_init(&s->shown, TEXT_MAX);
    buf_init(&s->input, TEXT_MAX);
    s->bare.kind = BLOCK_OTHER;
    s->counts = ANTHROPIC_COUNTS_NONE;
    s->usage = (struct token_usage){-1, -1, -1};
    return s;
}

void anthropic_stream_free(void *stream)
{
    struct stream *s = stream;

    if (s == NULL)
        return;
    openai_chunks_clear(&s->chunks);
    stop_clear(&s->stop);
    buf_clear(&s->shown);
    buf_clear(&s->input);
    free(s);
}

static void tell(struct stream *s, const char *text, size_t len)
{
    if (len > 0)
        s->meter->on_text(s->meter, text, len);
}

static int put_text(struct stream *s, const char *field, const char *text, size_t len,
                    struct buf *out)
{
    if (len == 0)
        return 0;
    if (openai_chunks_begin(&s->chunks, 0, out) < 0)
        return -ENOMEM;
    return openai_chunks_text(&s->chunks, field, text, len, out);
}

static int put_finish(struct stream *s, const char *reason, struct buf *out)
{
    s->finished = true;
    if (openai_chunks_begin(&s->chunks, 0, out) < 0)
        return -ENOMEM;
    return openai_chunks_finish(&s->chunks, reason, out);
}

/* Text of the answer itself, up to a stop sequence of ours. */
static int put_answer(struct stream *s, const char *text, size_t len, struct buf *out)
{
    int hit;
    int rc;

    buf_reset(&s->shown);
    hit = stop_feed(&s->stop, text, len, &s->shown);
    if (hit < 0)
        return hit;
    rc = put_text(s, "content", s->shown.data, s->shown.len, out);
    return rc < 0 || hit == 0 ? rc : put_finish(s, "stop", out);
}

static bool is_call(enum block_kind kind)
{
    return kind == BLOCK_CALL || kind == BLOCK_ANSWER || kind == BLOCK_SPARE;
}

/* A piece of the block's content, whatever it is. */
static int take_piece(struct stream *s, struct block *b, const char *text, size_t len,
                      struct buf *out)
{
    if (b->kind == BLOCK_OTHER || len == 0)
        return 0;
    tell(s, text, len);
    b->has_input = true;
    switch (b->kind) {
    case BLOCK_TEXT:
    case BLOCK_ANSWER:
        return put_answer(s, text, len, out);
    case BLOCK_THINKING:
        return put_text(s, "reasoning_content", text, len, out);
    case BLOCK_CALL:
        return openai_chunks_arguments(&s->chunks, b->call, text, len, out);
    case BLOCK_SPARE:
    case BLOCK_OTHER:
        break;
    }
    return 0;
}

/* Without a delta a call has no arguments: an empty object. Said only once it is certain that the
 * call was not cut before its first one. */
static int settle_bare_call(struct stream *s, struct buf *out)
{
    struct block b = s->bare;

    s->bare.kind = BLOCK_OTHER;
    return take_piece(s, &b, "{}", 2, out);
}

static enum block_kind kind_of_call(const struct stream *s, const char *name)
{
    if (anthropic_is_answer_function(s->req, name))
        return BLOCK_ANSWER;
    return s->req->legacy_functions && s->call_count > 0 ? BLOCK_SPARE : BLOCK_CALL;
}

static int begin_call(struct stream *s, struct block *b, const cJSON *content, struct buf *out)
{
    const char *id = json_string(content, "id");
    const char *name = json_string(content, "name");
    struct openai_call call = {.id = id};

    if (id == NULL || id[0] == '\0' || name == NULL || name[0] == '\0')
        return -EBADMSG;
    b->kind = kind_of_call(s, name);
    if (b->kind != BLOCK_ANSWER)
        tell(s, name, strlen(name));
    if (b->kind != BLOCK_CALL)
        return 0;
    call.name = anthropic_real_function_name(s->req, name);
    b->call = s->call_count++;
    if (openai_chunks_begin(&s->chunks, 0, out) < 0)
        return -ENOMEM;
    return openai_chunks_call_begin(&s->chunks, b->call, &call, out);
}

/* Most arguments come in deltas; a whole message has them here. */
static int take_input(struct stream *s, struct block *b, const cJSON *content,
                      struct json_span source, struct buf *out)
{
    const cJSON *input = json_get(content, "input");
    struct json_span span;

    if (!cJSON_IsObject(input) || input->child == NULL ||
        json_slice(source.at, source.len, "input", &span.at, &span.len) < 0)
        return 0;
    buf_reset(&s->input);
    if (json_minify(&s->input, span.at, span.len) < 0)
        return s->input.err;
    return take_piece(s, b, s->input.data, s->input.len, out);
}

static struct block *find_block(struct stream *s, int64_t index)
{
    for (size_t i = 0; i < s->block_count; i++)
        if (s->blocks[i].index == index)
            return &s->blocks[i];
    return NULL;
}

/* content is the block, source its bytes. */
static int begin_block(struct stream *s, int64_t index, const cJSON *content,
                       struct json_span source, struct buf *out)
{
    const char *type = json_string(content, "type");
    struct block *b;
    const char *text;
    int rc;

    if (type == NULL || find_block(s, index) != NULL || s->block_count == BLOCKS_MAX)
        return -EBADMSG;
    rc = settle_bare_call(s, out);
    if (rc < 0 || s->finished)
        return rc;
    b = &s->blocks[s->block_count++];
    *b = (struct block){.index = index, .kind = BLOCK_OTHER};
    if (strcmp(type, "tool_use") == 0) {
        rc = begin_call(s, b, content, out);
        return rc < 0 ? rc : take_input(s, b, content, source, out);
    }
    if (strcmp(type, "text") == 0)
        b->kind = BLOCK_TEXT;
    else if (strcmp(type, "thinking") == 0)
        b->kind = BLOCK_THINKING;
    text = b->kind == BLOCK_OTHER ? NULL : json_string(content, type);
    return text == NULL ? 0 : take_piece(s, b, text, strlen(text), out);
}

static int end_block(struct stream *s, int64_t index)
{
    struct block *b = find_block(s, index);

    if (b == NULL)
        return -EBADMSG;
    if (is_call(b->kind) && !b->has_input)
        s->bare = *b;
    *b = s->blocks[--s->block_count];
    return 0;
}

static void take_usage(struct stream *s, const cJSON *usage, struct token_usage *out)
{
    anthropic_counts_read(&s->counts, usage);
    if (anthropic_counts_usage(&s->counts, out))
        s->usage_final = true;
}

static void take_reason(struct stream *s, const cJSON *delta)
{
    const char *reason = json_string(delta, "stop_reason");

    if (reason == NULL)
        return;
    s->reason[0] = '\0';
    strncat(s->reason, reason, sizeof(s->reason) - 1);
}

static int finish(struct stream *s, struct buf *out)
{
    const char *reason = anthropic_finish_reason(s->reason[0] == '\0' ? NULL : s->reason,
                                                 s->call_count > 0, s->req->legacy_functions);
    int rc = anthropic_is_cut(reason) ? 0 : settle_bare_call(s, out);

    if (rc < 0 || s->finished)
        return rc;
    buf_reset(&s->shown);
    rc = stop_finish(&s->stop, &s->shown);
    if (rc == 0)
        rc = put_text(s, "content", s->shown.data, s->shown.len, out);
    return rc < 0 ? rc : put_finish(s, reason, out);
}

static int take_delta(struct stream *s, struct block *b, const cJSON *delta, struct buf *out)
{
    static const struct {
        const char *type, *member;
        enum block_kind kind; /* CALL: any */
    } deltas[] = {
        {"text_delta", "text", BLOCK_TEXT},
        {"thinking_delta", "thinking", BLOCK_THINKING},
        {"input_json_delta", "partial_json", BLOCK_CALL},
    };
    const char *type = json_string(delta, "type");

    if (type == NULL || b == NULL)
        return -EBADMSG;
    for (size_t i = 0; b->kind != BLOCK_OTHER && i < sizeof(deltas) / sizeof(deltas[0]); i++) {
        const char *text = json_string(delta, deltas[i].member);

        if (strcmp(deltas[i].type, type) != 0)
            continue;
        if (text == NULL || deltas[i].kind != (is_call(b->kind) ? BLOCK_CALL : b->kind))
            return -EBADMSG;
        return take_piece(s, b, text, strlen(text), out);
    }
    return 0; /* a signature, a citation, or something new */
}

/* A whole answer, where a stream was asked for. */
static int take_message(struct stream *s, const cJSON *message, const struct event *ev,
                        struct buf *out, struct token_usage *usage)
{
    const cJSON *content = json_get(message, "content");
    struct json_span span;
    struct json_walk walk;
    struct json_member m;
    const cJSON *block;
    int64_t index = 0;

    take_usage(s, json_get(message, "usage"), usage);
    if (!cJSON_IsArray(content) ||
        json_slice(ev->data, ev->len, "content", &span.at, &span.len) < 0)
        return -EBADMSG;
    json_walk_begin(&walk, span);
    for (block = content->child; block != NULL && json_walk_next(&walk, &m); block = block->next) {
        int rc = begin_block(s, index, block, m.value, out);

        if (rc < 0 || s->finished)
            return rc;
        end_block(s, index++);
    }
    take_reason(s, message);
    return finish(s, out);
}

static int take_block_event(struct stream *s, const char *type, const cJSON *root,
                            const struct event *ev, struct buf *out)
{
    struct json_span source = {NULL, 0};
    int64_t index;

    if (json_get_i64(root, "index", &index) < 0)
        return -EBADMSG;
    if (strcmp(type, "content_block_delta") == 0)
        return take_delta(s, find_block(s, index), json_get(root, "delta"), out);
    if (strcmp(type, "content_block_stop") == 0)
        return end_block(s, index);
    if (json_slice(ev->data, ev->len, "content_block", &source.at, &source.len) < 0)
        return -EBADMSG;
    return begin_block(s, index, json_get(root, "content_block"), source, out);
}

static int read_event(struct stream *s, const cJSON *root, const struct event *ev, struct buf *out,
                      struct token_usage *usage, struct error *e)
{
    const char *type = json_string(root, "type");

    if (type == NULL)
        return -EBADMSG;
    if (strncmp(type, "content_block_", strlen("content_block_")) == 0)
        return take_block_event(s, type, root, ev, out);
    if (strcmp(type, "message_start") == 0) {
        /* Its output_tokens is where the count begins, not what will have been written. */
        anthropic_counts_read(&s->counts, json_get(json_get(root, "message"), "usage"));
        s->counts.output = -1;
        return 0;
    }
    if (strcmp(type, "message_delta") == 0) {
        take_usage(s, json_get(root, "usage"), usage);
        take_reason(s, json_get(root, "delta"));
        return 0;
    }
    if (strcmp(type, "message_stop") == 0)
        return finish(s, out);
    if (strcmp(type, "message") == 0)
        return take_message(s, root, ev, out, usage);
    if (strcmp(type, "error") == 0)
        return anthropic_set_error(json_get(root, "error"), e);
    return 0; /* a ping, or something new */
}

static int take_event(struct stream *s, const struct event *ev, struct buf *out,
                      struct token_usage *usage, struct error *e)
{
    cJSON *root;
    int rc;

    if (s->finished || ev->len == 0)
        return 0;
    if (json_check(ev->data, ev->len, &JSON_LIMITS_DEFAULT, NULL, NULL) < 0)
        return -EBADMSG;
    root = cJSON_ParseWithLength(ev->data, ev->len); /* checked: only memory can be missing */
    if (root == NULL)
        return -ENOMEM;
    rc = read_event(s, root, ev, out, usage, e);
    cJSON_Delete(root);
    return rc;
}

int anthropic_decode_event(void *stream, const struct event *ev, struct buf *out,
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
        return s->finished ? DECODE_DONE : DECODE_MORE;
    s->failed = true;
    /* An event that is left out would be a hole in the text, or in a call's arguments. */
    if (rc == -EBADMSG)
        return error_set(e, XR_EUPSTREAM, NULL, "The provider sent what could not be understood.");
    return rc < XR_ERROR_END ? rc : error_set(e, rc, NULL, NULL);
}

int anthropic_decode_end(void *stream, struct buf *out, struct error *e)
{
    struct stream *s = stream;

    /* Only message_stop ends a good answer. */
    if (s->failed || !s->finished)
        return error_set(e, XR_EUPSTREAM, NULL, "The provider's answer broke off.");
    if (s->req->include_usage && !s->usage_final)
        s->meter->count(s->meter, &s->usage);
    return openai_chunks_end(&s->chunks, &s->usage, out);
}
