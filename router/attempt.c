#include "router/attempt.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/clock.h"
#include "common/container.h"
#include "providers/operation.h"
#include "router/uploads.h"

#define ANSWER_MAX (16 * 1024 * 1024)  /* a plain answer */
#define VECTORS_MAX (64 * 1024 * 1024) /* one with embeddings */
#define ERROR_BODY_MAX (64 * 1024)     /* what is read of an answer that reports a failure */
#define TAIL_MS                                                                        \
    20 /* after a stream's last event: how long to wait for the end of its framing, so \
          that the connection can be used again */

struct attempt {
    struct engine *engine;
    struct attempt_setup setup;
    const struct provider_ops *ops;
    struct provider_counters *counters; /* NULL when the provider has no place in the statistics */
    struct token_wait token_wait;
    uint32_t token_generation;
    struct uploads *uploads; /* NULL: the request has no files, or takes them along */
    struct upstream *upstream;
    struct timer timer; /* the tail of a stream */
    struct sse sse;
    void *stream; /* the adapter's decoder */
    struct buf body;
    struct token_usage usage;
    struct error error;
    int64_t sent_us;      /* monotonic, when the running request was sent */
    int64_t waited_us;    /* of the requests before it */
    int64_t uploading_us; /* monotonic, since when files are uploaded; 0 = none are */
    int64_t sent_at_ms;
    int64_t first_byte_us; /* after it was sent */
    int64_t connect_us;    /* of that */
    int64_t retry_after_ms;
    unsigned status;
    int rc; /* of the end */
    bool usage_final, refreshed, repeated, is_stream_answer, decode_failed, complete;
    bool starting, ended;
};

static void finish(struct attempt *a, int rc, const struct error *e)
{
    if (a->ended)
        return;
    if (e != NULL && e != &a->error)
        a->error = *e;
    if (rc < 0 && a->error.number == 0)
        a->error.number = rc;
    a->ended = true;
    a->rc = rc;
    loop_timer_cancel(a->engine->loop, &a->timer);
    if (!a->starting) /* else attempt_start() tells */
        a->setup.callbacks->on_end(a->setup.arg, rc, rc < 0 ? &a->error : NULL);
}

/* A request to the provider becomes a line in the event. */
static void put_line(struct attempt *a, int rc, unsigned status, int64_t took_us)
{
    struct usage_event *event = a->setup.event;
    struct usage_attempt *line;

    if (event->attempt_count == USAGE_ATTEMPTS_MAX)
        return;
    line = &event->attempts[event->attempt_count];
    usage_name_set(line->provider, a->setup.provider->name);
    usage_name_set(line->model, a->setup.candidate->model);
    line->started_at_ms = a->sent_at_ms;
    line->duration_ms = (uint32_t)(took_us / 1000);
    line->error = rc;
    line->http_status = (uint16_t)status;
    if (rc == 0 && a->usage_final) {
        line->tokens_input = a->usage.input;
        line->tokens_cached = a->usage.cached;
        line->tokens_output = a->usage.output;
    }
    atomic_signal_fence(memory_order_release); /* a reaper must not count a line half written */
    event->attempt_count++;
}

/* The request that was sent is over, well or not: its line in the event, its counters. */
static void record(struct attempt *a, int rc)
{
    int64_t took_us = clock_monotonic_us() - a->sent_us;
    bool is_cancel = rc == -ECANCELED; /* the client left: that is no failure of the provider's */

    if (a->sent_us == 0)
        return; /* nothing was sent, or it is recorded already */
    a->waited_us += took_us;
    a->sent_us = 0;
    if (a->counters != NULL) {
        counter_dec(&a->counters->in_flight);
        counter_inc(&a->counters->finished_total);
        if (rc < 0 && !is_cancel)
            counter_inc(&a->counters->failures_total);
    }
    if (rc < 0 && !is_cancel)
        counter_inc(&a->engine->counters->upstream_failures_total);
    if (a->repeated) /* on a kept-alive connection that had been closed meanwhile */
        put_line(a, XR_EUPSTREAM, 0, 0);
    put_line(a, is_cancel ? 0 : rc, a->status, took_us);
}

static void note_first_byte(struct attempt *a)
{
    a->first_byte_us = clock_monotonic_us() - a->sent_us;
    if (a->counters == NULL)
        return;
    counter_inc(&a->counters->answers_total);
    counter_add(&a->counters->first_byte_ms_total, (uint64_t)(a->first_byte_us + 500) / 1000);
}

/* In seconds (RFC 9110, 10.2.3). The other form, a date, would need a clock that both sides share:
 * it counts as one second. */
static int64_t read_retry_after(const struct http1_head *head)
{
    size_t len = 0;
    const char *value = http1_header(head, "retry-after", &len);
    int64_t seconds = 0;

    if (value == NULL || len == 0)
        return 0;
    for (size_t i = 0; i < len; i++) {
        if (value[i] < '0' || value[i] > '9')
            return 1000;
        if (seconds < ATTEMPT_RETRY_AFTER_MAX_MS)
            seconds = seconds * 10 + (value[i] - '0');
    }
    return seconds < ATTEMPT_RETRY_AFTER_MAX_MS / 1000 ? 1000 * seconds
                                                       : ATTEMPT_RETRY_AFTER_MAX_MS;
}

/* Too many requests, unavailable, Anthropic's overloaded. */
static bool asks_for_patience(unsigned status)
{
    return status == 429 || status == 503 || status == 529;
}

static size_t answer_max(const struct attempt *a)
{
    return a->setup.request->operation == OPERATION_EMBEDDINGS ? VECTORS_MAX : ANSWER_MAX;
}

static int on_head(void *arg, const struct http1_head *head)
{
    struct attempt *a = arg;
    size_t len = 0;
    const char *type = http1_header(head, "content-type", &len);
    static const char sse_type[] = "text/event-stream";

    if (a->sent_us != 0)
        note_first_byte(a);
    a->connect_us = upstream_connect_us(a->upstream);
    a->status = head->status;
    a->retry_after_ms = asks_for_patience(head->status) ? read_retry_after(head) : 0;
    a->repeated = upstream_was_repeated(a->upstream);
    a->is_stream_answer = a->stream != NULL && head->status == 200 && type != NULL &&
                          len >= sizeof(sse_type) - 1 &&
                          strncasecmp(type, sse_type, sizeof(sse_type) - 1) == 0;
    buf_init(&a->body, head->status == 200 ? answer_max(a) : ERROR_BODY_MAX);
    return 0;
}

/* Half an event is worse than none, and without it there may be room for the one that says why. */
static int drop_half_event(struct attempt *a, size_t before)
{
    a->setup.out->len = before;
    a->setup.out->err = 0;
    return error_set(&a->error, XR_EINTERNAL, NULL, "The gateway is out of memory.");
}

/* What a reaper would bill. */
static void note_usage(struct attempt *a)
{
    if (a->usage_final && a->usage.output > a->setup.event->tokens_output)
        a->setup.event->tokens_output = a->usage.output;
}

static int decode_one(struct attempt *a, const struct event *event)
{
    size_t before = a->setup.out->len;
    int rc = operation_decode_event(a->ops, a->setup.request, a->stream, event, a->setup.out,
                                    &a->usage, &a->usage_final, &a->error);

    if (a->setup.out->len > before)
        counter_inc(&a->engine->counters->stream_chunks_total);
    note_usage(a);
    if (rc == DECODE_DONE) {
        rc = operation_decode_end(a->ops, a->setup.request, a->stream, a->setup.out, &a->error);
        a->complete = rc == 0;
    }
    if (a->setup.out->err != 0)
        rc = drop_half_event(a, before);
    if (rc < 0) {
        a->complete = false;
        a->decode_failed = true;
    }
    return rc;
}

/* All whole events in the piece. What was decoded before a bad event still goes to the client. */
static int on_stream_bytes(struct attempt *a, const char *data, size_t len)
{
    size_t before = a->setup.out->len;
    int rc = 0;

    while (len > 0 && rc == 0 && !a->complete) {
        struct event event;
        size_t used = 0;
        int got = sse_feed(&a->sse, data, len, &used, &event);

        data += used;
        len -= used;
        if (got == 1)
            rc = decode_one(a, &event);
        else if (got < 0)
            rc = error_set(&a->error, XR_EUPSTREAM, NULL,
                           "The provider sent an event that is too large.");
        else
            break;
    }
    if (a->complete)
        record(a, 0); /* before the last bytes leave: whoever settles now has all the numbers */
    if (a->setup.out->len > before) {
        atomic_store_explicit(a->setup.has_answer, 1, memory_order_release);
        a->setup.callbacks->on_output(a->setup.arg);
    }
    if (a->complete && !timer_is_set(&a->timer))
        (void)loop_timer_set(a->engine->loop, &a->timer, TAIL_MS); /* unset: the end comes anyway */
    return rc < 0 ? rc : 0;
}

static int on_body(void *arg, const char *data, size_t len)
{
    struct attempt *a = arg;

    if (a->is_stream_answer)
        return a->complete ? 0 : on_stream_bytes(a, data, len);
    if (a->status == 200 && a->body.len == 0)
        atomic_store_explicit(a->setup.has_answer, 1, memory_order_release);
    if (a->status != 200 && a->body.len + len > a->body.max)
        len = a->body.max - a->body.len; /* enough of an error to understand it */
    if (buf_append(&a->body, data, len) < 0)
        return error_set(&a->error, XR_EUPSTREAM, NULL,
                         "The provider's answer is larger than %zu MiB.", answer_max(a) >> 20);
    return 0;
}

static void ask_for_token(struct attempt *a);

static bool needs_token(const struct attempt *a)
{
    return a->ops->encode_token != NULL &&
           (a->ops->needs_token == NULL || a->ops->needs_token(a->setup.provider));
}

/* The answer is a failure the provider reports. True when the request is on its way again. */
static bool try_fresh_token(struct attempt *a, int *rc)
{
    bool stale = false;

    *rc = a->ops->map_error(a->status, a->body.data, a->body.len, &stale, &a->error);
    if (!stale || a->refreshed || !needs_token(a))
        return false;
    record(a, *rc);
    a->refreshed = true;
    counter_inc(&a->engine->counters->upstream_retries_total);
    token_source_invalidate(a->engine->tokens, a->setup.config, a->setup.provider,
                            a->token_generation);
    buf_clear(&a->body);
    memset(&a->error, 0, sizeof(a->error));
    ask_for_token(a);
    return true;
}

static int end_of_stream(struct attempt *a, int rc)
{
    size_t before = a->setup.out->len;
    int decoded;

    if (a->complete)
        return 0;
    if (a->decode_failed)
        return a->error.number;
    /* A stream that was cut behind its last useful event is a whole answer. */
    decoded = operation_decode_end(a->ops, a->setup.request, a->stream, a->setup.out,
                                   rc < 0 ? NULL : &a->error);
    if (a->setup.out->err != 0)
        decoded = drop_half_event(a, before);
    if (a->setup.out->len > before)
        a->setup.callbacks->on_output(a->setup.arg);
    if (decoded == 0)
        return 0;
    return rc < 0 ? rc : decoded;
}

static void on_end(void *arg, int rc, const struct error *e)
{
    struct attempt *a = arg;

    a->repeated = upstream_was_repeated(a->upstream);
    a->upstream = NULL;
    if (rc < 0 && a->error.number == 0 && e != NULL)
        a->error = *e; /* else it is our own refusal, and we know better why */
    if (a->is_stream_answer) {
        rc = end_of_stream(a, rc);
    } else if (rc == 0 && a->status != 200) {
        if (try_fresh_token(a, &rc))
            return;
    } else if (rc == 0 && a->stream != NULL) {
        rc = error_set(&a->error, XR_EUPSTREAM, NULL,
                       "The provider answered a stream request with something else.");
    } else if (rc == 0) {
        rc = operation_decode_whole(a->ops, a->setup.provider, a->setup.request, a->setup.identity,
                                    a->body.data, a->body.len, a->setup.out, a->setup.meter,
                                    &a->usage, &a->usage_final, &a->error);
        if (rc == 0)
            note_usage(a);
    }
    record(a, rc);
    finish(a, rc, &a->error);
}

static const struct upstream_callbacks callbacks = {
    .on_head = on_head,
    .on_body = on_body,
    .on_end = on_end,
};

static int send_request(struct attempt *a, const char *token)
{
    const struct provider_config *p = a->setup.provider;
    const struct upstream_target target = upstream_target_of(p, p->total_ms);
    const struct upstream_call call = {.token = token,
                                       .request_id = a->setup.request_id,
                                       .files =
                                           a->uploads == NULL ? NULL : uploads_ids(a->uploads)};
    struct upstream_request request;
    int rc;

    upstream_request_init(&request);
    buf_reset(a->setup.ignored);
    rc = operation_encode(a->ops, p, a->setup.candidate->model, a->setup.request, &call, &request,
                          a->setup.ignored, &a->error);
    if (rc == 0) {
        a->upstream = upstream_start(a->engine->upstreams, &target, &request.head, &request.body,
                                     &callbacks, a, &a->error);
        if (a->upstream == NULL)
            rc = a->error.number != 0 ? a->error.number : XR_EINTERNAL;
    }
    buf_wipe(&request.head); /* it holds the token */
    upstream_request_clear(&request);
    if (rc < 0)
        return rc;
    a->sent_us = clock_monotonic_us();
    a->sent_at_ms = clock_now_at_ms();
    a->status = 0;
    a->repeated = false;
    usage_name_set(a->setup.event->provider, p->name);
    counter_inc(&a->engine->counters->upstream_requests_total);
    if (a->counters != NULL) {
        counter_inc(&a->counters->requests_total);
        counter_inc(&a->counters->in_flight);
    }
    return 0;
}

static void on_token(struct token_wait *wait, int rc, const struct token *token,
                     const struct error *e)
{
    struct attempt *a = container_of(wait, struct attempt, token_wait);

    if (rc == 0) {
        a->token_generation = token->generation;
        rc = send_request(a, token->text);
        e = &a->error;
    }
    if (rc < 0)
        finish(a, rc, e);
}

static void ask_for_token(struct attempt *a)
{
    a->token_wait.on_token = on_token;
    token_source_get(a->engine->tokens, a->setup.config, a->setup.provider, a->ops,
                     a->setup.provider->first_byte_ms, &a->token_wait);
}

/* The request itself, now that everything it needs is there. A failure to begin it ends it. */
static void begin_call(struct attempt *a)
{
    int rc;

    if (needs_token(a)) {
        ask_for_token(a);
        return;
    }
    rc = send_request(a, NULL);
    if (rc < 0)
        finish(a, rc, &a->error);
}

/* ---- files before it ---- */

static void on_uploads_end(void *arg, int rc, const struct error *e)
{
    struct attempt *a = arg;
    int64_t took_us = clock_monotonic_us() - a->uploading_us;

    a->uploading_us = 0;
    a->waited_us += took_us;
    if (rc == 0) {
        begin_call(a);
        return;
    }
    a->error = *e;
    put_line(a, rc, uploads_status(a->uploads), took_us);
    counter_inc(&a->engine->counters->upstream_failures_total);
    finish(a, rc, &a->error);
}

static int begin_uploads(struct attempt *a, size_t count)
{
    const struct uploads_setup setup = {.config = a->setup.config,
                                        .provider = a->setup.provider,
                                        .ops = a->ops,
                                        .request = a->setup.request,
                                        .request_id = a->setup.request_id,
                                        .count = count,
                                        .on_end = on_uploads_end,
                                        .arg = a};
    int rc = uploads_start(a->engine, &setup, &a->uploads, &a->error);

    a->uploading_us = clock_monotonic_us();
    a->sent_at_ms = clock_now_at_ms();
    return rc;
}

static void begin(struct attempt *a)
{
    size_t count = 0;
    int rc = 0;

    if (a->ops->count_uploads != NULL)
        rc = a->ops->count_uploads(a->setup.request, &count, &a->error);
    if (rc == 0 && count == 0) {
        begin_call(a);
        return;
    }
    if (rc == 0)
        rc = begin_uploads(a, count);
    if (rc < 0)
        finish(a, rc, &a->error);
}

static void on_timer(struct timer *t)
{
    struct attempt *a = container_of(t, struct attempt, timer);

    /* The provider keeps its answer open behind the last event: it is not wanted any more. */
    if (a->upstream != NULL)
        upstream_cancel(a->upstream);
    a->upstream = NULL;
    record(a, 0);
    finish(a, 0, NULL);
}

int attempt_start(struct engine *engine, const struct attempt_setup *setup, struct attempt **out,
                  struct error *e)
{
    struct attempt *a = calloc(1, sizeof(*a));
    int index;

    *out = NULL;
    if (a == NULL)
        return error_set(e, XR_EINTERNAL, NULL, "The gateway is out of memory.");
    a->engine = engine;
    a->setup = *setup;
    a->ops = provider_ops_find(a->setup.provider->type); /* the config's check has seen to it */
    a->timer.on_timer = on_timer;
    a->usage = (struct token_usage){-1, 0, 0};
    sse_init(&a->sse);
    buf_init(&a->body, ERROR_BODY_MAX);
    if (a->ops == NULL) {
        error_set(e, XR_ENOPROVIDER, NULL, "No adapter of this gateway speaks \"%s\".",
                  a->setup.provider->type);
        attempt_free(a);
        return e->number;
    }
    index = counters_find_provider(engine->region, a->setup.provider->name);
    if (index >= 0)
        a->counters = counters_provider(engine->region, engine->slot, (size_t)index);
    if (setup->request->stream) {
        a->stream =
            a->ops->stream_new(a->setup.provider, setup->request, setup->identity, setup->meter);
        if (a->stream == NULL) {
            attempt_free(a);
            return error_set(e, XR_EINTERNAL, NULL, "The gateway is out of memory.");
        }
    }
    a->starting = true;
    begin(a);
    a->starting = false;
    if (a->ended) {
        int rc = a->rc;

        *e = a->error;
        attempt_free(a);
        return rc;
    }
    *out = a;
    return 0;
}

void attempt_free(struct attempt *a)
{
    if (a == NULL)
        return;
    token_source_cancel(a->engine->tokens, &a->token_wait);
    loop_timer_cancel(a->engine->loop, &a->timer);
    if (a->upstream != NULL) {
        a->repeated = upstream_was_repeated(a->upstream);
        upstream_cancel(a->upstream);
    }
    record(a, -ECANCELED);
    uploads_remove(a->uploads, a->setup.ticket);
    if (a->stream != NULL)
        a->ops->stream_free(a->stream);
    sse_clear(&a->sse);
    buf_clear(&a->body);
    free(a);
}

void attempt_pause(struct attempt *a)
{
    if (a->upstream != NULL)
        upstream_pause(a->upstream);
}

void attempt_resume(struct attempt *a)
{
    if (a->upstream != NULL)
        upstream_resume(a->upstream);
}

const struct token_usage *attempt_usage(const struct attempt *a, bool *final)
{
    *final = a->usage_final;
    return &a->usage;
}

bool attempt_is_complete(const struct attempt *a)
{
    return a->complete || (a->ended && a->error.number == 0);
}

int64_t attempt_waited_us(const struct attempt *a)
{
    int64_t since_us = a->sent_us != 0 ? a->sent_us : a->uploading_us;

    return a->waited_us + (since_us == 0 ? 0 : clock_monotonic_us() - since_us);
}

bool attempt_was_sent(const struct attempt *a)
{
    return a->sent_at_ms != 0;
}

int64_t attempt_first_byte_us(const struct attempt *a)
{
    return a->first_byte_us;
}

int64_t attempt_connect_us(const struct attempt *a)
{
    return a->connect_us;
}

int64_t attempt_retry_after_ms(const struct attempt *a)
{
    return a->retry_after_ms;
}
