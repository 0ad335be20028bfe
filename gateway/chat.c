#include "gateway/chat.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/container.h"
#include "common/json.h"
#include "gateway/relay.h"
#include "router/route.h"

#define ANSWER_MAX (32 * 1024 * 1024) /* a plain answer, re-encoded */
#define IGNORED_MAX 512

struct chat {
    struct worker *worker;
    struct http_request *request;
    struct chat *next, *prev; /* the worker's list */
    struct chat_request parsed;
    struct route route;
    struct answer_identity identity;
    char id[sizeof("chatcmpl-") + USAGE_ID_TEXT_BYTES];
    struct inflight_row *row;
    struct attempt *attempt; /* NULL once it is over */
    struct relay relay; /* of a stream; its buf is the attempt's output for a plain answer too */
    struct buf ignored;
    struct token_usage usage; /* what the attempt had counted when it ended */
    bool usage_final;
    int64_t waited_us;
    struct model_counters *model_counters; /* NULL: no place in the statistics */
};

/* Bytes of text in the prompt: what is billed as bytes / 4 if nobody counted. */
static int64_t prompt_bytes(const struct chat_request *parsed)
{
    const cJSON *message;
    int64_t total = 0;

    cJSON_ArrayForEach(message, parsed->messages)
    {
        const cJSON *content = json_get(message, "content");
        const cJSON *part;

        if (cJSON_IsString(content))
            total += (int64_t)strlen(content->valuestring);
        if (!cJSON_IsArray(content))
            continue;
        cJSON_ArrayForEach(part, content)
        {
            const char *text = json_string(part, "text");

            total += text == NULL ? 0 : (int64_t)strlen(text);
        }
    }
    return total;
}

/* Ends the attempt (its connection is closed if it still runs). Its line in the event is written:
 * call it before settle(), nothing in the event may change after that. */
static void drop_attempt(struct chat *chat)
{
    if (chat->attempt == NULL)
        return;
    chat->usage = *attempt_usage(chat->attempt, &chat->usage_final);
    chat->waited_us = attempt_waited_us(chat->attempt);
    chat->relay.attempt = NULL;
    attempt_free(chat->attempt);
    chat->attempt = NULL;
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

/* Whose numbers count. A request that ends in an error status costs nothing, whatever the provider
 * has done for it. */
static void count_tokens(struct chat *chat, enum usage_outcome outcome)
{
    struct usage_event *event = &chat->row->event;
    bool has_answer = atomic_load_explicit(&chat->row->has_answer, memory_order_relaxed) != 0;
    bool is_refused = outcome == USAGE_ERROR && !chat->relay.started;

    if (chat->usage_final && !is_refused) {
        event->tokens_input = chat->usage.input;
        event->tokens_cached = chat->usage.cached;
        event->tokens_output = chat->usage.output;
        event->source = USAGE_BY_PROVIDER;
    } else if (has_answer && !is_refused) {
        /* The prompt's estimate stands since admission. */
        event->tokens_output = chat->usage.output;
        event->source = outcome == USAGE_OK ? USAGE_BY_LOCAL : USAGE_BY_PARTIAL;
    } else {
        event->tokens_input = event->tokens_output = 0;
        event->source = USAGE_BY_NOBODY;
        return;
    }
    event->cost_nano = money_cost_nano(&event->price, event->tokens_input, event->tokens_cached,
                                       event->tokens_output);
}

/* The row's last numbers. From here on whoever finds the row bills exactly this. */
static void settle(struct chat *chat, enum usage_outcome outcome, const struct error *e)
{
    struct usage_event *event = &chat->row->event;

    if (chat->attempt != NULL) /* complete, and still waiting for the end of its framing */
        chat->usage = *attempt_usage(chat->attempt, &chat->usage_final);
    if (atomic_load_explicit(&chat->row->state, memory_order_relaxed) != INFLIGHT_RUNNING)
        return;
    count_tokens(chat, outcome);
    event->outcome = (uint8_t)outcome;
    event->error = e == NULL ? 0 : e->number;
    event->http_status =
        (uint16_t)(e != NULL && !chat->relay.started ? error_info(e->number)->http_status : 200);
    if (outcome == USAGE_CANCELLED && !chat->relay.started)
        event->http_status = 0; /* nobody was there to get one */
    event->duration_ms = (uint32_t)((clock_monotonic_us() - chat->request->started_us) / 1000);
    event->first_byte_ms = first_byte_ms(chat, outcome);
    inflight_finish(chat->row);
}

static void end_with_error(struct chat *chat, enum usage_outcome outcome, const struct error *e)
{
    chat->request->error = *e;
    e = &chat->request->error; /* the attempt's own goes with it */
    if (e->number == XR_EDRAINING || e->number == XR_EBUSY)
        http_add_header(chat->request, "retry-after", "1");
    drop_attempt(chat);
    settle(chat, outcome, e);
    if (!relay_end(&chat->relay, e))
        http_answer_error(chat->request, e);
}

static void add_ignored_header(struct chat *chat)
{
    if (chat->ignored.len > 0 && chat->ignored.err == 0)
        http_add_header(chat->request, "x-xrouter-ignored", "%.*s", (int)chat->ignored.len,
                        chat->ignored.data);
}

/* A stream begins, with its first event or with a ping. */
static void on_start(struct relay *relay)
{
    add_ignored_header(container_of(relay, struct chat, relay));
}

static void on_output(void *arg)
{
    struct chat *chat = arg;

    if (attempt_is_complete(chat->attempt))
        settle(chat, USAGE_OK, NULL); /* before the last bytes go to the client */
    relay_on_output(&chat->relay);
}

static void on_end(void *arg, int rc, const struct error *e)
{
    struct chat *chat = arg;

    if (rc < 0) {
        end_with_error(chat, USAGE_ERROR, e);
        return;
    }
    drop_attempt(chat);
    settle(chat, USAGE_OK, NULL);
    if (chat->parsed.stream) {
        (void)relay_end(&chat->relay, NULL); /* has started: a whole stream is never empty */
        return;
    }
    add_ignored_header(chat);
    http_answer(chat->request, 200, "application/json", &chat->relay.pending);
}

static const struct attempt_callbacks attempt_callbacks = {
    .on_output = on_output,
    .on_end = on_end,
};

static void on_gone(struct http_request *request)
{
    struct chat *chat = request->state;

    if (chat->attempt == NULL)
        return;
    drop_attempt(chat); /* the provider's connection is closed now, not later */
    settle(chat, USAGE_CANCELLED, NULL);
}

static ssize_t on_read(struct http_request *request, char *dst, size_t max)
{
    struct chat *chat = request->state;

    return relay_read(&chat->relay, dst, max);
}

static void count_settled(struct chat *chat, const struct usage_event *event)
{
    struct counters *c = chat->worker->counters;
    int64_t overhead_us = clock_monotonic_us() - chat->request->started_us - chat->waited_us;

    counter_add(&c->tokens_input_total, (uint64_t)event->tokens_input);
    counter_add(&c->tokens_cached_total, (uint64_t)event->tokens_cached);
    counter_add(&c->tokens_output_total, (uint64_t)event->tokens_output);
    counter_add(&c->cost_nano_total, (uint64_t)event->cost_nano);
    counter_inc(&c->events_queued_total);
    counter_dec(&c->requests_in_flight);
    histogram_observe_us(&c->gateway_overhead_ms, overhead_us > 0 ? overhead_us : 0);
    if (chat->model_counters == NULL)
        return;
    counter_inc(&chat->model_counters->requests_total);
    if (event->outcome == USAGE_ERROR)
        counter_inc(&chat->model_counters->errors_total);
    counter_add(&chat->model_counters->tokens_input_total, (uint64_t)event->tokens_input);
    counter_add(&chat->model_counters->tokens_cached_total, (uint64_t)event->tokens_cached);
    counter_add(&chat->model_counters->tokens_output_total, (uint64_t)event->tokens_output);
    counter_add(&chat->model_counters->cost_nano_total, (uint64_t)event->cost_nano);
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
    struct worker *w = chat->worker;

    outbox_append(w->outbox, &chat->row->event);
    count_settled(chat, &chat->row->event);
    inflight_free(w->setup->instance->inflight, w->setup->slot, chat->row);
    unlink_chat(chat);
    relay_clear(&chat->relay);
    buf_clear(&chat->ignored);
    chat_request_clear(&chat->parsed);
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
    const struct usage_event *event = &chat->row->event;
    char cost[MONEY_TEXT_BYTES];

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

/* Row and ring space, all or nothing. */
static int admit(struct chat *chat, struct error *e)
{
    struct worker *w = chat->worker;
    struct usage_event *event;

    if (w->draining)
        return error_set(e, XR_EDRAINING, NULL, "The gateway is shutting down.");
    if (!outbox_reserve(w->outbox))
        return error_set(e, XR_EACCOUNTING, NULL, "Usage cannot be recorded right now.");
    chat->row = inflight_take(w->setup->instance->inflight, w->setup->slot);
    if (chat->row == NULL) {
        outbox_release(w->outbox);
        return error_set(e, XR_EOVERLOADED, NULL, "This gateway serves %u requests at once.",
                         w->config->in_flight);
    }
    event = &chat->row->event;
    event->id = chat->request->id;
    event->key_id = chat->request->key.id;
    event->created_at_ms = clock_now_at_ms();
    event->streamed = chat->parsed.stream;
    event->price = model_price_at(chat->route.model, event->created_at_ms);
    event->tokens_input = (prompt_bytes(&chat->parsed) + 3) / 4;
    usage_name_set(event->model, chat->route.model->id);
    chat->row->started_ms = loop_now_ms(w->loop);
    inflight_admit(chat->row);
    return 0;
}

/* From here on the chat belongs to its request and dies in on_completed(). */
static void adopt(struct chat *chat)
{
    struct worker *w = chat->worker;
    int model = counters_find_model(w->engine.region, chat->route.model->id);

    if (model >= 0)
        chat->model_counters = counters_model(w->engine.region, w->setup->slot, (size_t)model);
    chat->next = w->chats;
    if (w->chats != NULL)
        w->chats->prev = chat;
    w->chats = chat;
    chat->request->state = chat;
    chat->request->ops = &chat_ops;
    chat->request->log_fields = log_fields;
    counter_inc(&w->counters->requests_in_flight);
    if (chat->parsed.stream)
        counter_inc(&w->counters->streams_total);
}

static void start_attempt(struct chat *chat)
{
    struct worker *w = chat->worker;
    struct attempt_setup setup = {.config = chat->request->config,
                                  .route = &chat->route,
                                  .request = &chat->parsed,
                                  .identity = &chat->identity,
                                  .request_id = chat->request->id_text,
                                  .out = &chat->relay.pending,
                                  .ignored = &chat->ignored,
                                  .event = &chat->row->event,
                                  .has_answer = &chat->row->has_answer,
                                  .callbacks = &attempt_callbacks,
                                  .arg = chat};
    struct error e = {0};

    if (!chat->parsed.stream)
        chat->relay.pending.max = ANSWER_MAX;
    if (attempt_start(&w->engine, &setup, &chat->attempt, &e) < 0) {
        end_with_error(chat, USAGE_ERROR, &e);
        return;
    }
    chat->relay.attempt = chat->attempt;
    if (chat->parsed.stream)
        relay_watch(&chat->relay);
}

/* A chat that is not admitted leaves no trace but the access log's line. */
static void refuse(struct chat *chat, const struct error *e)
{
    struct http_request *request = chat->request;

    if (error_info(e->number)->http_status == 503)
        http_add_header(request, "retry-after", "1");
    chat_request_clear(&chat->parsed);
    free(chat);
    http_answer_error(request, e);
}

void chat_handle(void *arg, struct http_request *request)
{
    struct worker *w = arg;
    struct chat *chat = calloc(1, sizeof(*chat));
    struct error e = {0};

    if (chat == NULL) {
        error_set(&e, XR_EINTERNAL, NULL, "The gateway is out of memory.");
        http_answer_error(request, &e);
        return;
    }
    chat->worker = w;
    chat->request = request;
    if (chat_request_parse(request->body.data, request->body.len, &chat->parsed, &e) < 0) {
        free(chat);
        http_answer_error(request, &e);
        return;
    }
    if (route_find(request->config, chat->parsed.model, &request->key, &chat->route, &e) < 0 ||
        admit(chat, &e) < 0) {
        refuse(chat, &e);
        return;
    }
    memcpy(chat->id, "chatcmpl-", sizeof("chatcmpl-"));
    memcpy(chat->id + sizeof("chatcmpl-") - 1, request->id_text + 4, USAGE_ID_TEXT_BYTES);
    chat->identity = (struct answer_identity){
        .id = chat->id, .model = chat->parsed.model, .created_at = clock_now_at_ms() / 1000};
    buf_init(&chat->ignored, IGNORED_MAX);
    relay_init(&chat->relay, w->loop, request, on_start);
    adopt(chat);
    start_attempt(chat);
}

/* Whether there is something to cut: a complete answer only waits for the end of its framing. */
static bool is_running(const struct chat *chat)
{
    return chat->attempt != NULL && !attempt_is_complete(chat->attempt);
}

void chat_cut_all(struct worker *w, int number, const char *message)
{
    struct error e = {0};

    error_set(&e, number, NULL, "%s", message);
    for (struct chat *chat = w->chats; chat != NULL; chat = chat->next)
        if (is_running(chat))
            end_with_error(chat, USAGE_ABORTED, &e);
}

void chat_cut_killed(struct worker *w)
{
    struct error e = {0};

    error_set(&e, XR_EOVERLOADED, NULL, "The request was ended by the gateway's operator.");
    for (struct chat *chat = w->chats; chat != NULL; chat = chat->next)
        if (is_running(chat) && atomic_load(&chat->row->kill) != 0)
            end_with_error(chat, USAGE_ABORTED, &e);
}
