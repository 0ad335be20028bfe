/* A streamed answer: a compatible API's chunks in, the same chunks out under our id and model. */
#include "providers/openai.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "providers/openai_chunk.h"
#include "providers/openai_plain.h"

#define HELD_MAX (64 * 1024) /* a usage object and what surrounds it */

struct stream {
    const struct provider_config *provider;
    const struct openai_flavor *flavor;
    const struct model_request *req;
    const struct answer_identity *identity;
    struct token_meter *meter;
    struct openai_choices choices;
    struct plain_forms plain;
    struct buf line;        /* an event that came in several lines, as one */
    struct buf usage_chunk; /* the provider's, for a client that wants it, until the end */
    struct buf usage_json;  /* the numbers, if they came together with choices */
    int64_t created_at;     /* as the provider says, 0 = not yet */
    size_t choices_wanted;
    bool shows_running_usage; /* the client has asked vLLM for usage in each chunk */
    bool usage_final;
    bool done; /* [DONE] has come */
    bool failed;
};

void *openai_stream_new(const struct provider_config *p, const struct model_request *req,
                        const struct answer_identity *identity, struct token_meter *meter)
{
    struct stream *s = calloc(1, sizeof(*s));
    int64_t n;

    if (s == NULL)
        return NULL;
    s->provider = p;
    s->flavor = openai_flavor_find(p->flavor);
    s->req = req;
    s->identity = identity;
    s->meter = meter;
    s->choices_wanted = json_get_i64(req->root, "n", &n) == 0 && n > 1 ? (size_t)n : 1;
    s->shows_running_usage =
        cJSON_IsTrue(json_get(json_get(req->root, "stream_options"), "continuous_usage_stats"));
    plain_forms_init(&s->plain);
    buf_init(&s->line, UPSTREAM_BODY_MAX);
    buf_init(&s->usage_chunk, HELD_MAX);
    buf_init(&s->usage_json, HELD_MAX);
    return s;
}

void openai_stream_free(void *stream)
{
    struct stream *s = stream;

    if (s == NULL)
        return;
    plain_forms_clear(&s->plain);
    buf_clear(&s->line);
    buf_clear(&s->usage_chunk);
    buf_clear(&s->usage_json);
    free(s);
}

static int put_chunk(struct stream *s, struct json_span text, enum openai_usage usage,
                     const struct openai_reading *reading, struct buf *out)
{
    struct openai_writing w = {.flavor = s->flavor,
                               .identity = s->identity,
                               .choices = &s->choices,
                               .usage = usage,
                               .is_chunk = true,
                               .needs_edit = reading->needs_edit || reading->chunk_needs_edit};

    buf_append(out, "data: ", 6);
    openai_write_answer(&w, text, out);
    return buf_append(out, "\n\n", 2);
}

/* Keeps the numbers for a chunk of their own at the end, where OpenAI's clients look for them. */
static int hold_numbers(struct stream *s, struct json_span text)
{
    struct json_span usage;

    if ((json_slice(text.at, text.len, "usage", &usage.at, &usage.len) < 0 || usage.at[0] != '{') &&
        json_slice(text.at, text.len, "x_groq.usage", &usage.at, &usage.len) < 0)
        return 0;
    buf_reset(&s->usage_json);
    return buf_append(&s->usage_json, usage.at, usage.len);
}

/* A chunk without choices is there for its usage; of several the last counts. */
static int take_usage_chunk(struct stream *s, struct json_span text,
                            const struct openai_reading *reading)
{
    if (!s->req->include_usage || !s->usage_final)
        return 0;
    buf_reset(&s->usage_chunk);
    return put_chunk(s, text, USAGE_AS_IS, reading, &s->usage_chunk);
}

static int take_chunk(struct stream *s, struct json_span text, const struct openai_reading *reading,
                      struct buf *out)
{
    size_t start = out->len;
    enum openai_usage usage = USAGE_OUT;
    struct json_span written;
    int rc;

    if (s->req->include_usage) {
        bool hides = reading->usage != NULL && !s->shows_running_usage;

        usage = hides ? USAGE_NULL : USAGE_AS_IS;
        rc = hides && s->usage_final ? hold_numbers(s, text) : 0;
        if (rc < 0)
            return rc;
    }
    rc = put_chunk(s, text, usage, reading, out);
    if (rc == 0 && reading->has_plain_effect && reading->text_count == 1 &&
        !reading->chunk_needs_edit) {
        written = (struct json_span){out->data + start + 6, out->len - start - 8};
        plain_forms_learn(&s->plain, text, written);
    }
    return rc;
}

static int read_event(struct stream *s, const cJSON *root, struct json_span text, struct buf *out,
                      struct token_usage *usage, struct error *e)
{
    struct openai_reading reading;
    int rc = openai_read_answer(s->flavor, root, &s->choices, s->meter, &reading, e);

    /* Whatever else failed: what was used is owed even if the answer is no good. */
    if (reading.usage != NULL && openai_read_usage(s->provider, reading.usage, usage))
        s->usage_final = true;
    if (rc < 0)
        return rc;
    if (s->created_at == 0 &&
        (json_get_i64(root, "created", &s->created_at) < 0 || s->created_at < 0))
        s->created_at = 0;
    if (!reading.has_choices && reading.usage != NULL)
        return take_usage_chunk(s, text, &reading);
    /* No chunk: nobody's SDK knows what to do with it. And if all of the answer is like this,
     * another provider may still give a better one. */
    if (!cJSON_IsArray(json_get(root, "choices")))
        return 0;
    return take_chunk(s, text, &reading, out);
}

/* A chunk of several lines becomes one of one line: between JSON's tokens a line end is a space,
 * and inside of them it is an error that the check will find. */
static int join_lines(struct stream *s, struct json_span *text)
{
    if (memchr(text->at, '\n', text->len) == NULL)
        return 0;
    buf_reset(&s->line);
    if (buf_append(&s->line, text->at, text->len) < 0)
        return s->line.err;
    for (size_t i = 0; i < s->line.len; i++)
        if (s->line.data[i] == '\n' || s->line.data[i] == '\r')
            s->line.data[i] = ' ';
    *text = (struct json_span){s->line.data, s->line.len};
    return 0;
}

static int parse_event(struct stream *s, struct json_span text, struct buf *out,
                       struct token_usage *usage, struct error *e)
{
    cJSON *root;
    int rc;

    if (json_check(text.at, text.len, &JSON_LIMITS_DEFAULT, NULL, NULL) < 0)
        return -EBADMSG;
    rc = join_lines(s, &text);
    if (rc < 0)
        return rc;
    root = cJSON_ParseWithLength(text.at, text.len); /* checked: only memory can be missing */
    if (root == NULL)
        return -ENOMEM;
    rc = read_event(s, root, text, out, usage, e);
    cJSON_Delete(root);
    return rc;
}

static bool is_done_mark(const struct event *ev)
{
    return ev->len == 6 && memcmp(ev->data, "[DONE]", 6) == 0;
}

static int take_event(struct stream *s, const struct event *ev, struct buf *out,
                      struct token_usage *usage, struct error *e)
{
    struct json_span text = {ev->data, ev->len};

    if (s->done || ev->len == 0)
        return 0;
    if (is_done_mark(ev)) {
        s->done = true; /* whether it is a good end is openai_decode_end()'s to say */
        return 0;
    }
    if (plain_forms_relay(&s->plain, text, s->meter, out))
        return out->err;
    return parse_event(s, text, out, usage, e);
}

int openai_decode_event(void *stream, const struct event *ev, struct buf *out,
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
    if (rc == 0)
        return s->done ? DECODE_DONE : DECODE_MORE;
    s->failed = true;
    /* A chunk that is left out would be a hole in the text, or in a call's arguments. */
    if (rc == -EBADMSG)
        return error_set(e, XR_EUPSTREAM, NULL, "The provider sent what could not be understood.");
    return rc < XR_ERROR_END ? rc : error_set(e, rc, NULL, NULL);
}

static int put_usage(struct stream *s, struct buf *out)
{
    struct token_usage usage = {0};

    if (s->usage_chunk.len > 0)
        return buf_append(out, s->usage_chunk.data, s->usage_chunk.len);
    if (s->usage_json.len == 0) {
        s->meter->count(s->meter, &usage);
        openai_put_usage(&usage, &s->usage_json);
    }
    if (s->usage_json.err < 0)
        return s->usage_json.err;
    return openai_put_usage_chunk(s->identity, s->created_at, s->usage_json.data, s->usage_json.len,
                                  out);
}

/* Without [DONE] the end may be a cut between two choices. */
static bool is_complete(const struct stream *s)
{
    const struct openai_choices *c = &s->choices;

    return !s->failed && c->finished_count > 0 && c->finished_count == c->seen_count &&
           (s->done || c->finished_count >= s->choices_wanted);
}

int openai_decode_end(void *stream, struct buf *out, struct error *e)
{
    struct stream *s = stream;
    int rc = 0;

    if (!is_complete(s))
        return error_set(e, XR_EUPSTREAM, NULL, "The provider's answer broke off.");
    if (s->req->include_usage)
        rc = put_usage(s, out);
    if (rc == 0)
        rc = buf_str(out, "data: [DONE]\n\n");
    return rc < 0 ? error_set(e, rc, NULL, NULL) : 0;
}
