#include "gateway/chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/container.h"
#include "common/json.h"
#include "gateway/admission.h"
#include "gateway/explain.h"
#include "gateway/limiting.h"
#include "gateway/metering.h"
#include "gateway/relay.h"
#include "gateway/replay.h"
#include "gateway/server_timing.h"
#include "providers/chat_request.h"
#include "providers/completion_request.h"
#include "providers/embeddings_request.h"
#include "gateway/routing.h"

#define ANSWER_MAX (64 * 1024 * 1024) /* a plain answer, re-encoded; vectors are large */
#define IGNORED_MAX 512
#define RETRY_MAX_MS 60000    /* who would have to wait longer is told not to try again by itself */
#define RUNNING_RETRY_MS 1000 /* nobody knows when a request that runs will end */

struct chat {
    struct worker *worker;
    struct http_request *request;
    struct chat *next, *prev; /* the worker's list */
    struct model_request parsed;
    struct route route;
    struct answer_identity identity;
    char id[sizeof("chatcmpl-") + USAGE_ID_TEXT_BYTES];
    struct metering metering;
    struct limiting limiting;
    struct admission admission;
    struct inflight_row *row;  /* NULL until admitted */
    struct dispatch *dispatch; /* NULL before it begins and once it is over */
    struct relay relay;        /* of a stream; its buf is the output of a plain answer too */
    struct replay *replay;     /* NULL: no Idempotency-Key, or its end has been told */
    size_t noted;              /* bytes of relay.pending that it has */
    struct buf ignored;
    struct token_usage usage; /* what the provider had told when it ended */
    bool usage_final;
    int64_t waited_us;
    int64_t taken_us, begun_us; /* monotonic: it came to us; it was admitted */
};

/* Ends the dispatch (a connection is closed if it still runs). Its lines in the event are written:
 * call it before settle(), nothing in the event may change after that. */
static void drop_dispatch(struct chat *chat)
{
    if (chat->dispatch == NULL)
        return;
    chat->usage = *dispatch_usage(chat->dispatch, &chat->usage_final);
    chat->waited_us = dispatch_waited_us(chat->dispatch) + dispatch_queued_us(chat->dispatch);
    chat->relay.dispatch = NULL;
    dispatch_free(chat->dispatch);
    chat->dispatch = NULL;
}

/* 0 = the client got no byte of an answer. An answer that comes all at once is settled before its
 * first byte leaves: that is now. */
static uint32_t first_byte_ms(const struct chat *chat, enum usage_outcome outcome)
{
    int64_t first_us = chat->request->first_byte_us;

    if (first_us == 0 && outcome == USAGE_OK)
        first_us = clock_monotonic_us();
    return first_us == 0 ? 0 : (uint32_t)((first_us - chat->request->started_us + 999) / 1000);
}

/* A request that ends in an error status costs nothing, whatever the provider has done for it. */
static void count_tokens(struct chat *chat, enum usage_outcome outcome)
{
    bool is_failed = outcome == USAGE_ERROR || outcome == USAGE_ABORTED;
    const struct metering_end end = {
        .usage = chat->usage,
        .is_final = chat->usage_final,
        .has_answer = atomic_load_explicit(&chat->row->has_answer, memory_order_relaxed) != 0,
        .is_refused = is_failed && !chat->relay.started,
        .is_whole = outcome == USAGE_OK};

    metering_settle(&chat->metering, &chat->row->event, &end);
}

/* What has come since the last time. */
static void note_output(struct chat *chat)
{
    const struct buf *pending = &chat->relay.pending;

    if (chat->replay != NULL)
        replay_note(chat->replay, pending->data + chat->noted, pending->len - chat->noted);
    chat->noted = pending->len;
}

static void end_replay(struct chat *chat, const struct usage_event *event, bool is_complete)
{
    replay_end(chat->replay, event, is_complete, 200,
               chat->parsed.stream ? "text/event-stream" : "application/json");
    chat->replay = NULL;
}

/* The row's last numbers. From here on whoever finds the row bills exactly this. */
static void settle(struct chat *chat, enum usage_outcome outcome, const struct error *e)
{
    struct usage_event *event = &chat->row->event;

    if (chat->dispatch != NULL) /* complete, and still waiting for the end of its framing */
        chat->usage = *dispatch_usage(chat->dispatch, &chat->usage_final);
    if (atomic_load_explicit(&chat->row->state, memory_order_relaxed) != INFLIGHT_RUNNING)
        return;
    count_tokens(chat, outcome);
    limiting_settle(&chat->limiting, event->tokens_input, event->tokens_output);
    event->outcome = (uint8_t)outcome;
    event->error = e == NULL ? 0 : e->number;
    event->http_status =
        (uint16_t)(e != NULL && !chat->relay.started ? error_info(e->number)->http_status : 200);
    if (outcome == USAGE_CANCELLED && !chat->relay.started)
        event->http_status = 0; /* nobody was there to get one */
    event->duration_ms = (uint32_t)((clock_monotonic_us() - chat->request->started_us) / 1000);
    event->first_byte_ms = first_byte_ms(chat, outcome);
    settlement_finish(&chat->worker->settlements, chat->row);
    note_output(chat);
    end_replay(chat, event, outcome == USAGE_OK);
}

/* When a client that may try again should: in whole seconds for all, in ms for SDKs that know it.
 */
static void add_retry_after(struct http_request *r, const struct error *e, int64_t retry_after_ms)
{
    if (!error_info(e->number)->retry)
        return;
    if (retry_after_ms <= 0 && e->number != XR_EDRAINING && e->number != XR_EBUSY &&
        e->number != XR_ENOPROVIDER)
        return;
    if (retry_after_ms <= 0)
        retry_after_ms = 1000;
    http_add_header(r, "retry-after", "%lld", (long long)(retry_after_ms + 999) / 1000);
    http_add_header(r, "retry-after-ms", "%lld", (long long)retry_after_ms);
}

/* retry_after_ms: 0 = nothing is known. */
static void end_with_error(struct chat *chat, enum usage_outcome outcome, const struct error *e,
                           int64_t retry_after_ms)
{
    chat->request->error = *e;
    e = &chat->request->error; /* the dispatch's own goes with it */
    add_retry_after(chat->request, e, retry_after_ms);
    drop_dispatch(chat);
    settle(chat, outcome, e);
    if (!relay_end(&chat->relay, e))
        http_answer_error(chat->request, e);
}

static void add_timing(struct chat *chat)
{
    const struct server_timing timing = {.receive_us = chat->taken_us - chat->request->started_us,
                                         .limit_us = chat->begun_us - chat->taken_us,
                                         .queue_us = dispatch_queued_us(chat->dispatch),
                                         .connect_us = dispatch_connect_us(chat->dispatch),
                                         .upstream_us = dispatch_waited_us(chat->dispatch)};

    server_timing_add(chat->request, &timing, clock_monotonic_us());
}

/* Who has answered, what was left out, and how long it took. Before the dispatch is dropped. */
static void add_answer_headers(struct chat *chat)
{
    unsigned attempts;
    const struct route_candidate *c = dispatch_candidate(chat->dispatch, &attempts);

    if (c != NULL) {
        http_add_header_text(chat->request, "x-xrouter-provider", c->provider->name,
                             strlen(c->provider->name));
        http_add_header_text(chat->request, "x-xrouter-model", c->config->model,
                             strlen(c->config->model));
        http_add_header(chat->request, "x-xrouter-attempts", "%u", attempts);
    }
    if (chat->ignored.len > 0 && chat->ignored.err == 0)
        http_add_header_text(chat->request, "x-xrouter-ignored", chat->ignored.data,
                             chat->ignored.len);
    add_timing(chat);
}

/* A stream begins, with its first event or with a ping. */
static void on_start(struct relay *relay)
{
    add_answer_headers(container_of(relay, struct chat, relay));
}

static void on_output(void *arg)
{
    struct chat *chat = arg;

    note_output(chat);
    if (dispatch_is_complete(chat->dispatch))
        settle(chat, USAGE_OK, NULL); /* before the last bytes go to the client */
    relay_on_output(&chat->relay);
}

static void on_end(void *arg, int rc, const struct error *e)
{
    struct chat *chat = arg;

    if (rc < 0) {
        end_with_error(chat, USAGE_ERROR, e, dispatch_retry_after_ms(chat->dispatch));
        return;
    }
    if (!chat->parsed.stream)
        add_answer_headers(chat);
    drop_dispatch(chat);
    settle(chat, USAGE_OK, NULL);
    if (chat->parsed.stream) {
        (void)relay_end(&chat->relay, NULL); /* has started: a whole stream is never empty */
        return;
    }
    http_answer(chat->request, 200, "application/json", &chat->relay.pending);
}

static void on_try(void *arg, const struct route_candidate *candidate)
{
    struct chat *chat = arg;

    metering_use_model(&chat->metering, candidate->model);
}

static const struct dispatch_callbacks dispatch_callbacks = {
    .on_try = on_try,
    .on_output = on_output,
    .on_end = on_end,
};

static void on_gone(struct http_request *request)
{
    struct chat *chat = request->state;

    metering_cancel(&chat->metering);   /* if it is still counted */
    admission_cancel(&chat->admission); /* if it still waits */
    if (chat->row == NULL)
        limiting_give_back(&chat->limiting);
    if (chat->dispatch == NULL)
        return;
    drop_dispatch(chat); /* the provider's connection is closed now, not later */
    settle(chat, USAGE_CANCELLED, NULL);
}

static ssize_t on_read(struct http_request *request, char *dst, size_t max)
{
    struct chat *chat = request->state;
    ssize_t n;

    note_output(chat); /* a ping is a part of the answer, too */
    n = relay_read(&chat->relay, dst, max);
    chat->noted = chat->relay.pending.len;
    return n;
}

/* What the request cost above its reservation; a key without limits reserves nothing. */
static uint64_t overrun_nano(const struct chat *chat)
{
    int64_t reserved_nano = chat->row->reservation.amount_nano;
    int64_t cost_nano = chat->row->event.cost_nano;

    return reserved_nano > 0 && cost_nano > reserved_nano ? (uint64_t)(cost_nano - reserved_nano)
                                                          : 0;
}

/* Those of the model that has answered, or was tried last. NULL: it has no place in the statistics.
 */
static struct model_counters *counters_of(const struct chat *chat, const struct usage_event *event)
{
    const struct worker *w = chat->worker;
    int model = counters_find_model(w->engine.region, event->model);

    return model < 0 ? NULL : counters_model(w->engine.region, w->setup->slot, (size_t)model);
}

static void count_settled(struct chat *chat, const struct usage_event *event)
{
    struct counters *c = chat->worker->counters;
    struct model_counters *m = counters_of(chat, event);
    int64_t overhead_us = clock_monotonic_us() - chat->request->started_us - chat->waited_us;

    counter_add(&c->tokens_input_total, (uint64_t)event->tokens_input);
    counter_add(&c->tokens_cached_total, (uint64_t)event->tokens_cached);
    counter_add(&c->tokens_output_total, (uint64_t)event->tokens_output);
    counter_add(&c->cost_nano_total, (uint64_t)event->cost_nano);
    counter_add(&c->overrun_nano_total, overrun_nano(chat));
    counter_inc(&c->events_queued_total);
    counter_dec(&c->requests_in_flight);
    histogram_observe_us(&c->gateway_overhead_ms, overhead_us > 0 ? overhead_us : 0);
    if (m == NULL)
        return;
    counter_inc(&m->requests_total);
    if (event->outcome == USAGE_ERROR)
        counter_inc(&m->errors_total);
    counter_add(&m->tokens_input_total, (uint64_t)event->tokens_input);
    counter_add(&m->tokens_cached_total, (uint64_t)event->tokens_cached);
    counter_add(&m->tokens_output_total, (uint64_t)event->tokens_output);
    counter_add(&m->cost_nano_total, (uint64_t)event->cost_nano);
}

static void unlink_chat(struct chat *chat)
{
    if (chat->prev != NULL)
        chat->prev->next = chat->next;
    else
        chat->worker->chats = chat->next;
    if (chat->next != NULL)
        chat->next->prev = chat->prev;
}

static void on_completed(struct http_request *request, bool delivered)
{
    struct chat *chat = request->state;

    if (chat->row != NULL) {
        count_settled(chat, &chat->row->event);
        settlement_release(&chat->worker->settlements, chat->row);
    }
    admission_cancel(&chat->admission);
    limiting_give_back(&chat->limiting); /* of what never began */
    metering_clear(&chat->metering);
    end_replay(chat, NULL, false); /* of a client that left while it waited */
    unlink_chat(chat);
    relay_clear(&chat->relay);
    buf_clear(&chat->ignored);
    model_request_clear(&chat->parsed);
    free(chat);
}

static const struct http_request_ops chat_ops = {
    .on_gone = on_gone,
    .read = on_read,
    .on_completed = on_completed,
};

static void log_fields(const struct http_request *request, struct buf *out)
{
    static const char *const outcomes[] = {"ok", "error", "cancelled", "aborted"};
    const struct chat *chat = request->state;
    const struct usage_event *event;
    char cost[MONEY_TEXT_BYTES];

    if (chat->row == NULL) { /* not admitted */
        json_put_field_text(out, "model", chat->route.model->id);
        return;
    }
    event = &chat->row->event;
    money_format(event->cost_nano, cost);
    json_put_field_text(out, "model", event->model);
    json_put_field_text(out, "provider", event->provider);
    json_put_field_bool(out, "stream", event->streamed != 0);
    json_put_field_text(out, "outcome", outcomes[event->outcome]);
    json_put_field_i64(out, "tokens_input", event->tokens_input);
    json_put_field_i64(out, "tokens_cached", event->tokens_cached);
    json_put_field_i64(out, "tokens_output", event->tokens_output);
    json_put_field_text(out, "cost", cost);
    json_put_field_i64(out, "provider_us", chat->waited_us);
    json_put_field_u64(out, "attempts", event->attempt_count);
}

static bool is_paid(const struct chat *chat)
{
    return account_is_limited(chat->worker->setup->instance->accounts, chat->request->key.account);
}

/* What the row has to know before it is admitted. */
static void fill_row(struct chat *chat, struct inflight_row *row)
{
    const struct key *key = &chat->request->key;
    struct usage_event *event = &row->event;

    event->id = chat->request->id;
    event->key_id = key->id;
    event->streamed = chat->parsed.stream;
    event->price = chat->route.candidates[0].price; /* until one is tried */
    usage_name_set(event->model, chat->route.candidates[0].model->id);
    replay_mark(chat->replay, event);
    row->reservation.account = key->account;
    if (is_paid(chat))
        row->reservation.amount_nano = metering_cost_at_most_nano(&chat->metering, &chat->route);
    event->tokens_input = chat->metering.prompt.tokens;
}

static void adopt(struct chat *chat)
{
    struct worker *w = chat->worker;

    chat->next = w->chats;
    if (w->chats != NULL)
        w->chats->prev = chat;
    w->chats = chat;
    chat->request->state = chat;
    chat->request->ops = &chat_ops;
    chat->request->log_fields = log_fields;
}

static void start_dispatch(struct chat *chat)
{
    struct worker *w = chat->worker;
    struct dispatch_setup setup = {.config = chat->request->config,
                                   .route = &chat->route,
                                   .request = &chat->parsed,
                                   .identity = &chat->identity,
                                   .request_id = chat->request->id_text,
                                   .key_id = chat->request->key.id,
                                   .deadline_ms = chat->request->deadline_ms,
                                   .out = &chat->relay.pending,
                                   .ignored = &chat->ignored,
                                   .meter = &chat->metering.meter,
                                   .event = &chat->row->event,
                                   .has_answer = &chat->row->has_answer,
                                   .callbacks = &dispatch_callbacks,
                                   .arg = chat};
    struct error e = {0};
    int64_t retry_after_ms;

    if (!chat->parsed.stream)
        chat->relay.pending.max = ANSWER_MAX;
    if (dispatch_start(&w->dispatcher, &setup, &chat->dispatch, &retry_after_ms, &e) < 0) {
        end_with_error(chat, USAGE_ERROR, &e, retry_after_ms);
        return;
    }
    chat->relay.dispatch = chat->dispatch;
    if (chat->parsed.stream)
        relay_watch(&chat->relay);
}

/* A chat that is not admitted leaves no trace but the access log's line. */
static void refuse(struct chat *chat, const struct error *e)
{
    chat->request->error = *e;
    if (error_info(e->number)->http_status == 503)
        http_add_header(chat->request, "retry-after", "1");
    limiting_give_back(&chat->limiting);
    metering_cancel(&chat->metering);
    admission_cancel(&chat->admission);
    end_replay(chat, NULL, false); /* before the answer: who repeats at once may run */
    http_answer_error(chat->request, &chat->request->error);
}

/* Admitted: from here on an event is owed. */
static void begin(struct chat *chat)
{
    struct worker *w = chat->worker;

    chat->row = chat->admission.row;
    chat->begun_us = clock_monotonic_us();
    chat->metering.event = &chat->row->event;
    counter_inc(&w->counters->requests_in_flight);
    if (chat->parsed.stream)
        counter_inc(&w->counters->streams_total);
    start_dispatch(chat);
}

static void on_decided(struct admission *admission, int rc, struct error *e)
{
    struct chat *chat = container_of(admission, struct chat, admission);

    if (rc == 0)
        begin(chat);
    else
        refuse(chat, e);
}

/* The answer may be so long; embeddings have none. */
static int64_t output_most(const struct chat *chat)
{
    int64_t asked = chat->parsed.max_tokens, most = chat->route.model->max_output_tokens;

    if (chat->parsed.operation == OPERATION_EMBEDDINGS)
        return 0;
    return asked > 0 && asked < most ? asked : most;
}

static int take_limits(struct chat *chat, struct error *e)
{
    const struct limiting_request request = {.http = chat->request,
                                             .model = chat->route.model,
                                             .prompt_tokens = chat->metering.prompt.tokens,
                                             .output_most = output_most(chat)};
    int64_t wait_ms;
    int rc = limiting_take(&chat->limiting, chat->worker, &request, e, &wait_ms);

    if (rc == 0)
        return 0;
    chat->request->is_hopeless = wait_ms < 0 || wait_ms > RETRY_MAX_MS;
    if (wait_ms >= 0)
        add_retry_after(chat->request, e, wait_ms > 0 ? wait_ms : RUNNING_RETRY_MS);
    return rc;
}

static void admit(struct chat *chat)
{
    struct error e = {0};
    int rc;

    chat->admission.on_decided = on_decided;
    rc = admission_take(&chat->admission, chat->worker, &e);
    if (rc == 0)
        rc = take_limits(chat, &e);
    if (rc == 0) {
        fill_row(chat, chat->admission.row);
        rc = admission_reserve(&chat->admission, &e);
    }
    if (rc != 1) /* 1: it waits */
        on_decided(&chat->admission, rc, &e);
}

/* The prompt's tokens are known, as far as they have to be. */
static void on_counted(struct metering *metering)
{
    struct chat *chat = container_of(metering, struct chat, metering);
    struct error e = {0};

    if (route_require_context(&chat->route, metering_least(metering), &e) < 0)
        refuse(chat, &e);
    else
        admit(chat);
}

static void count_prompt(struct chat *chat)
{
    struct error e = {0};
    int rc =
        metering_start(&chat->metering, &chat->route,
                       is_paid(chat) || limiting_needs_tokens(chat->request, chat->route.model));

    if (rc == 0) {
        on_counted(&chat->metering);
    } else if (rc < 0) {
        error_set(&e, XR_EINTERNAL, NULL, "The gateway is out of memory.");
        refuse(chat, &e);
    }
}

/* Ends a chat that has not begun. */
static void discard(struct chat *chat)
{
    model_request_clear(&chat->parsed);
    free(chat);
}

typedef int (*parse_fn)(const char *text, size_t len, struct model_request *out, struct error *e);

/* Parsed, routed and the only one of its Idempotency-Key; NULL: the request is answered, or will be
 * with what is stored for its key. */
static struct chat *chat_new(struct worker *w, struct http_request *request, parse_fn parse)
{
    struct chat *chat = calloc(1, sizeof(*chat));
    struct error e = {0};
    int rc;

    if (chat == NULL) {
        error_set(&e, XR_EINTERNAL, NULL, "The gateway is out of memory.");
        http_answer_error(request, &e);
        return NULL;
    }
    chat->worker = w;
    chat->request = request;
    chat->taken_us = clock_monotonic_us();
    rc = parse(request->body.data, request->body.len, &chat->parsed, &e);
    if (rc == 0)
        rc = routing_make(w, request, &chat->parsed, &chat->route, &e);
    if (rc == 0)
        rc = replay_begin(&chat->replay, w, request, &e);
    if (rc == 0)
        return chat;
    discard(chat);
    if (rc == 1)
        return NULL;
    if (e.number == XR_ENOPROVIDER || e.number == XR_EOVERLOADED)
        http_add_header(request, "retry-after", "1");
    http_answer_error(request, &e);
    return NULL;
}

static void handle(struct worker *w, struct http_request *request, parse_fn parse)
{
    struct chat *chat = chat_new(w, request, parse);
    const char *model;

    if (chat == NULL)
        return;
    model = chat->parsed.model[0] != '\0' ? chat->parsed.model : chat->route.model->id;
    snprintf(chat->id, sizeof(chat->id), "%s%s",
             chat->parsed.operation == OPERATION_COMPLETION ? "cmpl-" : "chatcmpl-",
             request->id_text + 4);
    chat->identity = (struct answer_identity){
        .id = chat->id, .model = model, .created_at = clock_now_at_ms() / 1000};
    chat->parsed.key_id = request->key.id;
    buf_init(&chat->ignored, IGNORED_MAX);
    relay_init(&chat->relay, w->loop, request, on_start);
    metering_init(&chat->metering, w, chat->route.model, &chat->parsed);
    chat->metering.on_counted = on_counted;
    adopt(chat);
    count_prompt(chat);
}

void chat_handle(void *arg, struct http_request *request)
{
    if (!explain_take(arg, request))
        handle(arg, request, chat_request_parse);
}

void chat_handle_completion(void *arg, struct http_request *request)
{
    handle(arg, request, completion_request_parse);
}

void chat_handle_embeddings(void *arg, struct http_request *request)
{
    handle(arg, request, embeddings_request_parse);
}

/* Whether there is something to cut: a complete answer only waits for the end of its framing. */
static bool is_running(const struct chat *chat)
{
    return chat->dispatch != NULL && !dispatch_is_complete(chat->dispatch);
}

void chat_cut_all(struct worker *w, int number, const char *message)
{
    struct error e = {0};

    error_set(&e, number, NULL, "%s", message);
    for (struct chat *chat = w->chats; chat != NULL; chat = chat->next) {
        if (is_running(chat))
            end_with_error(chat, USAGE_ABORTED, &e, 0);
        else if (metering_is_counting(&chat->metering) || admission_is_waiting(&chat->admission))
            refuse(chat, &e);
    }
}

void chat_cut_killed(struct worker *w)
{
    struct error e = {0};

    error_set(&e, XR_EOVERLOADED, NULL, "The request was ended by the gateway's operator.");
    for (struct chat *chat = w->chats; chat != NULL; chat = chat->next)
        if (is_running(chat) && atomic_load(&chat->row->kill) != 0)
            end_with_error(chat, USAGE_ABORTED, &e, 0);
}
