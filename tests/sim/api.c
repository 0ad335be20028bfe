#include "tests/sim/api.h"

#include <string.h>

#include "tests/sim/chat.h"
#include "tests/sim/control.h"
#include "tests/sim/dialect.h"
#include "tests/sim/embeddings.h"
#include "tests/sim/files.h"
#include "tests/sim/ids.h"
#include "tests/sim/oauth.h"
#include "tests/sim/service.h"
#include "tests/sim/sim.h"

static bool has_prefix(struct span span, const char *prefix)
{
    size_t n = strlen(prefix);

    return span.len >= n && memcmp(span.data, prefix, n) == 0;
}

static const struct {
    const char *path;
    bool is_prefix;
    enum route route;
} routes[] = {
    {"/v1/chat/completions", false, ROUTE_CHAT},
    {"/api/v2/oauth", false, ROUTE_OAUTH},
    {"/v1/embeddings", false, ROUTE_EMBEDDINGS},
    {"/v1/tokens/count", false, ROUTE_COUNT_TOKENS},
    {"/v1/balance", false, ROUTE_BALANCE},
    {"/v1/files", false, ROUTE_FILES},
    {"/v1/files/", true, ROUTE_FILE},
    {"/v1/models", false, ROUTE_MODELS},
    {"/v1/models/", true, ROUTE_MODEL},
    {"/openai/v1/chat/completions", false, ROUTE_OPENAI_CHAT},
    {"/openai/v1/embeddings", false, ROUTE_OPENAI_EMBEDDINGS},
    {"/openai/v1/models", false, ROUTE_OPENAI_MODELS},
    {"/openai/", true, ROUTE_OPENAI_OTHER},
    {"/anthropic/v1/messages", false, ROUTE_ANTHROPIC_CHAT},
    {"/anthropic/v1/models", false, ROUTE_ANTHROPIC_MODELS},
    {"/anthropic/", true, ROUTE_ANTHROPIC_OTHER},
    {"/__sim/", true, ROUTE_SIM},
};

static enum route route_of(struct span path)
{
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        if (routes[i].is_prefix ? has_prefix(path, routes[i].path)
                                : span_equals(path, routes[i].path))
            return routes[i].route;
    }
    return ROUTE_OTHER;
}

struct endpoint {
    const char *method; /* NULL: any */
    const struct dialect *dialect;
    void (*answer)(struct conn *conn);
};

static const struct endpoint endpoints[ROUTE_COUNT] = {
    [ROUTE_OAUTH] = {"POST", &dialect_gigachat, oauth_answer},
    [ROUTE_CHAT] = {"POST", &dialect_gigachat, chat_answer},
    [ROUTE_EMBEDDINGS] = {"POST", &dialect_gigachat, embeddings_answer},
    [ROUTE_COUNT_TOKENS] = {"POST", &dialect_gigachat, service_answer_count},
    [ROUTE_BALANCE] = {"GET", &dialect_gigachat, service_answer_balance},
    [ROUTE_FILES] = {NULL, &dialect_gigachat, files_answer},
    [ROUTE_FILE] = {NULL, &dialect_gigachat, files_answer_one},
    [ROUTE_MODELS] = {"GET", &dialect_gigachat, gigachat_answer_models},
    [ROUTE_MODEL] = {"GET", &dialect_gigachat, gigachat_answer_model},
    [ROUTE_OPENAI_CHAT] = {"POST", &dialect_openai, chat_answer},
    [ROUTE_OPENAI_EMBEDDINGS] = {"POST", &dialect_openai, embeddings_answer},
    [ROUTE_OPENAI_MODELS] = {"GET", &dialect_openai, openai_answer_models},
    [ROUTE_OPENAI_OTHER] = {NULL, &dialect_openai, openai_answer_other},
    [ROUTE_ANTHROPIC_CHAT] = {"POST", &dialect_anthropic, chat_answer},
    [ROUTE_ANTHROPIC_MODELS] = {"GET", &dialect_anthropic, anthropic_answer_models},
    [ROUTE_ANTHROPIC_OTHER] = {NULL, &dialect_anthropic, anthropic_answer_other},
    [ROUTE_OTHER] = {NULL, &dialect_gigachat, gigachat_answer_other},
    [ROUTE_SIM] = {NULL, &dialect_gigachat, control_answer},
};

static void reply_status(struct conn *conn, int status, enum plan_body body)
{
    switch (body) {
    case BODY_HTML:
        http_reply_html(conn, status, "");
        break;
    case BODY_EMPTY:
        http_reply(conn, status, "", "", "", 0);
        break;
    case BODY_JSON:
        if (conn->route == ROUTE_OAUTH)
            oauth_reply_error(conn, status, 0, http_reason(status));
        else
            http_reply_error(conn, status, http_reason(status));
        break;
    }
}

static void reset_now(struct conn *conn)
{
    stats_answer(&conn->sim->stats, conn->route, 0);
    conn->is_cut = true;
    conn->step = STEP_RESET;
}

bool api_play_fault(struct conn *conn, uint64_t key)
{
    const struct plan *plan = &conn->plan;
    struct script *script = conn->sim->script;

    if (plan_has(plan, PLAN(REFUSE))) {
        http_server_refuse(conn->sim->http, plan->refuse_ms);
        reset_now(conn);
    } else if (plan_has(plan, PLAN(RESET)) && plan->reset_after == 0) {
        reset_now(conn);
    } else if (plan_has(plan, PLAN(STATUS))) {
        reply_status(conn, (int)plan->status, (enum plan_body)plan->body);
    } else if (plan_has(plan, PLAN(RETRY_AFTER))) {
        http_reply_error(conn, 429, conn->dialect->overrun_text);
    } else if (plan_has(plan, PLAN(FAIL)) && script_attempt_fails(script, key, plan->fail_count)) {
        reply_status(conn, (int)plan->fail_status, BODY_JSON);
    } else if (plan_has(plan, PLAN(AUTH_ALWAYS)) ||
               (plan_has(plan, PLAN(AUTH_ONCE)) && script_attempt_fails(script, key, 1))) {
        http_reply_error(conn, 401, conn->dialect->unauthorized_text);
    } else if (plan_has(plan, PLAN(OAUTH_DOWN))) {
        reply_status(conn, (int)plan->status, BODY_JSON);
    } else if (plan_has(plan, PLAN(OAUTH_HTML))) {
        http_reply_html(conn, 502, "");
    } else {
        return false;
    }
    return true;
}

/* Each such request has a line in the log. */
static bool is_logged(const struct endpoint *endpoint)
{
    return endpoint->answer == chat_answer || endpoint->answer == embeddings_answer;
}

void api_dispatch(struct conn *conn)
{
    const struct http_request *request = &conn->request;
    struct sim *sim = conn->sim;
    const struct endpoint *endpoint;

    conn->route = route_of(request->path);
    endpoint = &endpoints[conn->route];
    conn->dialect = endpoint->dialect;
    if (conn->route != ROUTE_SIM) {
        stats_keep_request(&sim->stats, request->head.data, request->head.len, request->body.data,
                           request->body.len);
        if (is_logged(endpoint) && !chat_open(conn))
            return;
        if (script_take(sim->script, request->path.data, request->path.len, &conn->plan) &&
            api_play_fault(conn, hash_bytes(3, request->body.data, request->body.len)))
            return;
    }
    if (endpoint->method != NULL && !span_equals(request->method, endpoint->method))
        http_reply_error(conn, 405, http_reason(405));
    else
        endpoint->answer(conn);
}
