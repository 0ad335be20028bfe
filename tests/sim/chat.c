#include "tests/sim/chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/clock.h"
#include "common/json.h"
#include "tests/sim/api.h"
#include "tests/sim/dialect.h"
#include "tests/sim/files.h"
#include "tests/sim/sim.h"

#define BODY_BYTES_MAX SIM_TEXT_BYTES_MAX
#define ENVELOPE_BYTES_MAX (64 * 1024)
#define FRAGMENT_CHARACTERS 8 /* of a call's arguments, in an event */
#define BURST_CHUNK_WORDS 64  /* at least: a burst is to be content, not envelopes */

static void chat_free(void *data)
{
    struct chat *chat = data;

    answer_clear(&chat->answer);
    buf_clear(&chat->envelope);
    buf_clear(&chat->body);
    buf_clear(&chat->piece);
    free(chat);
}

static struct chat *chat_new(void)
{
    struct chat *chat = calloc(1, sizeof(*chat));

    if (chat == NULL)
        return NULL;
    answer_init(&chat->answer);
    buf_init(&chat->envelope, ENVELOPE_BYTES_MAX);
    buf_init(&chat->body, BODY_BYTES_MAX);
    buf_init(&chat->piece, BODY_BYTES_MAX);
    return chat;
}

static void release(struct conn *conn, struct chat *chat)
{
    uint64_t tokens = chat->prompt_tokens + chat_completion_tokens(chat);

    if (chat->balance != NULL)
        chat->balance->tokens -= (int64_t)tokens;
    chat->client->in_flight--;
    conn->sim->stats.in_flight--;
    chat->client = NULL;
}

static void copy_id(char out[JOURNAL_ID_BYTES], const struct http_request *request)
{
    struct span id = request->request_id.len > 0 ? request->request_id : request->client_request_id;
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
    entry->dialect = (uint8_t)conn->dialect->id;
    copy_id(entry->request_id, &conn->request);
    memcpy(entry->model, chat->model, sizeof(entry->model));
    memcpy(entry->marker, chat->marker, sizeof(entry->marker));
    if (chat->is_generating) {
        entry->prompt_tokens = (uint32_t)chat->prompt_tokens;
        entry->precached_tokens = (uint32_t)chat->cached_tokens;
        entry->completion_tokens = (uint32_t)chat_completion_tokens(chat);
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
    chat->calls_sent = 0;
    chat->choices = 1;
    chat->marker[0] = chat->model[0] = '\0';
    chat->started_at_ms = clock_now_at_ms();
    chat->is_stream = chat->is_generating = chat->has_usage = chat->includes_usage = false;
    chat->events = 0;
    chat->is_started = chat->is_paced = chat->is_finished = chat->is_over = false;
    chat->phase = chat->progress = chat->choice = chat->block = chat->block_kind = 0;
    chat->call = 0;
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
    conn->dialect->identify(conn, &caller);
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

    chat->pace = (struct pace){.first_ms = config->first_token_ms,
                               .chunk_ms = config->chunk_ms,
                               .words = config->answer_words,
                               .chunk_words = config->chunk_words};
    if (scenario_read_markers(request->last_user, &plan, &chat->pace, chat->marker, why) < 0) {
        http_reply_error(conn, 400, why);
        return false;
    }
    if (!conn->dialect->has_parallel_calls)
        chat->pace.calls = 0;
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

/* What names the conversation for the prompt cache: the header, or the body's own key. */
static struct span session_of(const struct conn *conn, const struct sim_request *request)
{
    if (conn->request.session_id.len > 0 || request->cache_key == NULL)
        return conn->request.session_id;
    return (struct span){request->cache_key, strlen(request->cache_key)};
}

static void begin_stream(struct conn *conn)
{
    struct chat *chat = conn->handler_data;

    if (plan_has(&conn->plan, PLAN(ONE_CHUNK)))
        chat->pace.chunk_words = UINT32_MAX;
    http_begin(conn, 200, conn->dialect->sse_type, "",
               plan_has(&conn->plan, PLAN(CLOSE_DELIMITED)) ? HTTP_UNTIL_CLOSE : HTTP_CHUNKED);
    http_produce(conn, stream_produce);
}

static void generate(struct conn *conn, const struct sim_request *request,
                     struct sim_client *client)
{
    struct chat *chat = conn->handler_data;
    struct sim *sim = conn->sim;
    struct span session = session_of(conn, request);
    bool streams = request->stream && !plan_has(&conn->plan, PLAN(JSON_FOR_STREAM));

    if (plan_has(&conn->plan, PLAN(BURST)) && chat->pace.chunk_words < BURST_CHUNK_WORDS)
        chat->pace.chunk_words = BURST_CHUNK_WORDS;
    if (answer_compose(&chat->answer, request, &conn->plan, &chat->pace) < 0) {
        http_reply_error(conn, 500, http_reason(500));
        return;
    }
    apply_update_interval(&chat->pace, request->update_interval);
    if (session.len > 0)
        chat->cached_tokens =
            sessions_cached_tokens(sim->sessions, session.data, session.len, request->messages);
    chat->prompt_tokens = request->prompt_tokens;
    chat->choices = request->choices;
    chat->includes_usage = request->includes_usage;
    buf_reset(&chat->envelope);
    conn->dialect->begin(conn, request, streams);
    if (chat->envelope.err != 0) {
        http_reply_error(conn, 500, http_reason(500));
        return;
    }
    chat->client = client;
    chat->balance = sim_client_balance(client, request->model);
    chat->is_generating = true;
    client->in_flight++;
    if (++sim->stats.in_flight > sim->stats.max_in_flight)
        sim->stats.max_in_flight = sim->stats.in_flight;
    if (streams)
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

    if (!conn->dialect->check_chat(&conn->sim->config, &caller, body.data, body.len, &request,
                                   &verdict)) {
        http_reply_verdict(conn, &verdict);
        return;
    }
    if (conn->dialect->id == DIALECT_GIGACHAT &&
        !files_check_attachments(conn->sim->files, caller.client, request.messages, &verdict)) {
        http_reply_verdict(conn, &verdict);
        sim_request_clear(&request);
        return;
    }
    chat->is_stream = request.stream;
    snprintf(chat->model, sizeof(chat->model), "%s", request.model);
    if (choose_plan(conn, &request) &&
        !api_play_fault(conn, hash_bytes(2, request.last_user, strlen(request.last_user))))
        generate(conn, &request, caller.client);
    sim_request_clear(&request);
}

uint64_t chat_completion_tokens(const struct chat *chat)
{
    return chat->choices * answer_tokens(&chat->answer, chat->calls_sent);
}

void chat_put_number(const struct conn *conn, struct buf *out, const char *name, uint64_t value)
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

size_t chat_fragment_bytes(const struct conn *conn, const struct call *call)
{
    size_t left = call->arguments.len - call->sent_bytes;
    const char *text = call->arguments.data + call->sent_bytes;
    int characters = plan_has(&conn->plan, PLAN(CALL_SPLIT)) ? 1 : FRAGMENT_CHARACTERS;
    size_t n = 0;

    if (plan_has(&conn->plan, PLAN(ONE_CHUNK)))
        return left;
    while (n < left && (characters > 0 || ((unsigned char)text[n] & 0xc0) == 0x80))
        characters -= ((unsigned char)text[n++] & 0xc0) != 0x80;
    return n;
}
