#include "tests/sim/chat.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/clock.h"
#include "common/json.h"
#include "tests/sim/api.h"
#include "tests/sim/oauth.h"
#include "tests/sim/sim.h"

#define MODEL_VERSION ":2.0.28.2"
#define BODY_BYTES_MAX SIM_TEXT_BYTES_MAX
#define BURST_CHUNK_WORDS 64 /* at least: a burst is to be content, not envelopes */

static void chat_free(void *data)
{
    struct chat *chat = data;

    answer_clear(&chat->answer);
    buf_clear(&chat->tail);
    buf_clear(&chat->body);
    free(chat);
}

static struct chat *chat_new(void)
{
    struct chat *chat = calloc(1, sizeof(*chat));

    if (chat == NULL)
        return NULL;
    answer_init(&chat->answer);
    buf_init(&chat->tail, 64 * 1024);
    buf_init(&chat->body, BODY_BYTES_MAX);
    return chat;
}

static void release(struct conn *conn, struct chat *chat)
{
    uint64_t tokens = chat->prompt_tokens + answer_tokens(&chat->answer, chat->is_call_sent);

    if (chat->balance != NULL)
        chat->balance->tokens -= (int64_t)tokens;
    chat->client->in_flight--;
    conn->sim->stats.in_flight--;
    chat->client = NULL;
}

static void copy_id(char out[JOURNAL_ID_BYTES], struct span id)
{
    size_t len = id.len < JOURNAL_ID_BYTES - 1 ? id.len : JOURNAL_ID_BYTES - 1;

    if (id.data != NULL)
        memcpy(out, id.data, len);
    out[id.data == NULL ? 0 : len] = '\0';
}

static void on_chat_end(struct conn *conn, enum journal_end end)
{
    struct chat *chat = conn->handler_data;
    struct journal_entry *entry = journal_add(conn->sim->journal);

    entry->started_at_ms = chat->started_at_ms;
    entry->ended_at_ms = clock_now_at_ms();
    entry->status = (uint16_t)conn->status;
    entry->end = (uint8_t)end;
    entry->is_stream = chat->is_stream;
    copy_id(entry->request_id, conn->request.request_id);
    memcpy(entry->marker, chat->marker, sizeof(entry->marker));
    if (chat->is_generating) {
        entry->prompt_tokens = (uint32_t)chat->prompt_tokens;
        entry->precached_tokens = (uint32_t)chat->cached_tokens;
        entry->completion_tokens = (uint32_t)answer_tokens(&chat->answer, chat->is_call_sent);
        entry->finish = (uint8_t)chat->answer.finish;
        entry->events = chat->events;
        entry->has_usage = chat->has_usage;
    }
    if (chat->client != NULL)
        release(conn, chat);
}

bool chat_open(struct conn *conn)
{
    struct chat *chat = conn->handler_data;

    if (chat == NULL) {
        chat = chat_new();
        if (chat == NULL) {
            http_reply_error(conn, 500, http_reason(500));
            return false;
        }
        conn->handler_data = chat;
        conn->handler_free = chat_free;
    }
    chat->client = NULL;
    chat->balance = NULL;
    chat->prompt_tokens = chat->cached_tokens = 0;
    chat->marker[0] = '\0';
    chat->started_at_ms = clock_now_at_ms();
    chat->is_stream = chat->is_generating = chat->is_call_sent = chat->has_usage = false;
    chat->phase = PHASE_TEXT;
    chat->events = chat->progress = 0;
    chat->is_started = chat->is_paced = false;
    conn->on_end = on_chat_end;
    return true;
}

static struct caller caller_of(const struct conn *conn)
{
    static const char json_type[] = "application/json";
    const struct http_request *request = &conn->request;
    struct caller caller = {.has_user_agent = request->user_agent.len > 0};

    caller.has_json_type =
        request->content_type.len >= sizeof(json_type) - 1 &&
        strncasecmp(request->content_type.data, json_type, sizeof(json_type) - 1) == 0;
    caller.token =
        tokens_lookup(conn->sim->tokens, request->authorization, clock_now_at_ms(), &caller.client);
    return caller;
}

/* Which scenario the request itself asks for. False when it was answered with an error. */
static bool choose_plan(struct conn *conn, const struct sim_request *request)
{
    struct chat *chat = conn->handler_data;
    const struct sim_config *config = &conn->sim->config;
    const size_t prefix = strlen(SCENARIO_MODEL_PREFIX);
    struct plan plan = {0};
    char why[SCENARIO_WHY_BYTES];

    chat->pace = (struct pace){config->first_token_ms, config->chunk_ms, config->answer_words,
                               config->chunk_words};
    if (scenario_read_markers(request->last_user, &plan, &chat->pace, chat->marker, why) < 0) {
        http_reply_error(conn, 400, why);
        return false;
    }
    if (plan_has(&conn->plan, ~0ULL)) {
        conn->plan.flags |= plan.flags & PLAN(BLACKLIST);
        return true;
    }
    if (request->entry == NULL) {
        if (scenario_parse(&conn->plan, request->model + prefix, strlen(request->model + prefix),
                           why) < 0) {
            conn->plan = (struct plan){0};
            http_reply_error(conn, 404, "No such model");
            return false;
        }
        conn->plan.flags |= plan.flags & PLAN(BLACKLIST);
    } else {
        conn->plan = plan;
    }
    return true;
}

/* Events no closer than update_interval: fewer and larger ones. */
static void apply_update_interval(struct pace *pace, double seconds)
{
    uint64_t interval_ms = seconds > 3600 ? 3600000 : (uint64_t)(seconds * 1000);
    uint64_t words;

    if (pace->chunk_ms == 0 || interval_ms <= pace->chunk_ms)
        return;
    words = pace->chunk_words * (interval_ms / pace->chunk_ms);
    pace->chunk_words = words > UINT32_MAX ? UINT32_MAX : (uint32_t)words;
    pace->chunk_ms = (uint32_t)interval_ms;
}

static void put_tail(const struct conn *conn, struct buf *tail, const char *model)
{
    bool plural = plan_has(&conn->plan, PLAN(OBJECT_PLURAL));

    buf_reset(tail);
    buf_str(tail, "],\"created\":");
    buf_i64(tail, sim_created_at_s(conn->sim));
    buf_str(tail, ",\"model\":");
    json_put_text(tail, model);
    tail->len--; /* the version goes inside the quotes */
    buf_str(tail, MODEL_VERSION "\",\"object\":\"chat.completion");
    buf_str(tail, plural ? "s\"" : "\"");
}

static void begin_stream(struct conn *conn)
{
    struct chat *chat = conn->handler_data;

    if (plan_has(&conn->plan, PLAN(CALL_IN_PROGRESS)))
        chat->phase = PHASE_PROGRESS;
    http_begin(conn, 200, HTTP_TYPE_SSE, "",
               plan_has(&conn->plan, PLAN(CLOSE_DELIMITED)) ? HTTP_UNTIL_CLOSE : HTTP_CHUNKED);
    http_produce(conn, stream_produce);
}

static void generate(struct conn *conn, const struct sim_request *request,
                     struct sim_client *client)
{
    struct chat *chat = conn->handler_data;
    struct sim *sim = conn->sim;

    if (plan_has(&conn->plan, PLAN(BURST)) && chat->pace.chunk_words < BURST_CHUNK_WORDS)
        chat->pace.chunk_words = BURST_CHUNK_WORDS;
    if (answer_compose(&chat->answer, request, &conn->plan, &chat->pace) < 0) {
        http_reply_error(conn, 500, http_reason(500));
        return;
    }
    apply_update_interval(&chat->pace, request->update_interval);
    if (conn->request.session_id.len > 0)
        chat->cached_tokens =
            sessions_cached_tokens(sim->sessions, conn->request.session_id.data,
                                   conn->request.session_id.len, request->messages);
    chat->prompt_tokens = request->prompt_tokens;
    if (sim->config.cached_tokens == CACHED_EXCLUDED)
        chat->prompt_tokens -= chat->cached_tokens;
    put_tail(conn, &chat->tail, request->model);
    chat->client = client;
    chat->balance = sim_client_balance(client, request->model);
    chat->is_generating = true;
    client->in_flight++;
    if (++sim->stats.in_flight > sim->stats.max_in_flight)
        sim->stats.max_in_flight = sim->stats.in_flight;
    if (request->stream && !plan_has(&conn->plan, PLAN(JSON_FOR_STREAM)))
        begin_stream(conn);
    else
        plain_answer(conn);
}

void chat_answer(struct conn *conn)
{
    struct chat *chat = conn->handler_data;
    struct span body = conn->request.body;
    struct caller caller = caller_of(conn);
    struct sim_request request;
    struct verdict verdict;

    if (!rules_check_chat(&conn->sim->config, &caller, body.data, body.len, &request, &verdict)) {
        http_reply_error(conn, verdict.status, verdict.message);
        return;
    }
    chat->is_stream = request.stream;
    if (choose_plan(conn, &request) &&
        !api_play_fault(conn, hash_bytes(2, request.last_user, strlen(request.last_user))))
        generate(conn, &request, caller.client);
    sim_request_clear(&request);
}

static void put_number(const struct conn *conn, struct buf *out, const char *name, uint64_t value)
{
    json_put_key(out, name);
    if (!plan_has(&conn->plan, PLAN(BAD_USAGE))) {
        buf_u64(out, value);
        return;
    }
    switch ((enum plan_usage)conn->plan.bad_usage) {
    case USAGE_NEGATIVE:
        buf_str(out, "-5");
        break;
    case USAGE_STRING:
        buf_printf(out, "\"%llu\"", (unsigned long long)value);
        break;
    case USAGE_HUGE:
        buf_str(out, "1e300");
        break;
    case USAGE_OVERFLOW:
        buf_str(out, "9223372036854775808");
        break;
    case USAGE_TWICE:
        buf_u64(out, value);
        break;
    }
}

void chat_put_usage(struct conn *conn, struct buf *out)
{
    struct chat *chat = conn->handler_data;
    uint64_t completion = answer_tokens(&chat->answer, chat->is_call_sent);

    chat->has_usage = true;
    json_put_key(out, "usage");
    buf_byte(out, '{');
    put_number(conn, out, "prompt_tokens", chat->prompt_tokens);
    put_number(conn, out, "completion_tokens", completion);
    put_number(conn, out, "total_tokens", chat->prompt_tokens + completion);
    put_number(conn, out, "precached_prompt_tokens", chat->cached_tokens);
    buf_byte(out, '}');
}

void chat_put_call(struct conn *conn, struct buf *out)
{
    struct chat *chat = conn->handler_data;
    const struct answer *answer = &chat->answer;
    char state_id[UUID_BYTES];
    bool as_text = plan_has(&conn->plan, PLAN(CALL_STRING_ARGS) | PLAN(CALL_ERROR));

    random_uuid(&conn->sim->random, state_id);
    json_put_key(out, "function_call");
    buf_byte(out, '{');
    json_put_key(out, "name");
    json_put_string(out, answer->name.data, answer->name.len);
    json_put_key(out, "arguments");
    if (as_text)
        json_put_string(out, answer->arguments.data, answer->arguments.len);
    else
        buf_append(out, answer->arguments.data, answer->arguments.len);
    buf_byte(out, '}');
    json_put_field_text(out, "functions_state_id", state_id);
    chat->is_call_sent = true;
}
