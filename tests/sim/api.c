#include "tests/sim/api.h"

#include <string.h>

#include "common/clock.h"
#include "common/json.h"
#include "tests/sim/chat.h"
#include "tests/sim/control.h"
#include "tests/sim/ids.h"
#include "tests/sim/oauth.h"
#include "tests/sim/rules.h"
#include "tests/sim/sim.h"

static const char models_prefix[] = "/v1/models/";

static bool has_prefix(struct span span, const char *prefix)
{
    size_t n = strlen(prefix);

    return span.len >= n && memcmp(span.data, prefix, n) == 0;
}

static enum route route_of(struct span path)
{
    if (span_equals(path, "/v1/chat/completions"))
        return ROUTE_CHAT;
    if (span_equals(path, "/api/v2/oauth"))
        return ROUTE_OAUTH;
    if (span_equals(path, "/v1/models"))
        return ROUTE_MODELS;
    if (has_prefix(path, models_prefix))
        return ROUTE_MODEL;
    return has_prefix(path, "/__sim/") ? ROUTE_SIM : ROUTE_OTHER;
}

/* Checks 1 and 2 for the endpoints that need no more. False when answered with an error. */
static bool admit(struct conn *conn)
{
    const struct sim *sim = conn->sim;
    struct caller caller = {.has_user_agent = conn->request.user_agent.len > 0};
    struct verdict verdict;

    caller.token =
        tokens_lookup(sim->tokens, conn->request.authorization, clock_now_at_ms(), &caller.client);
    if (rules_admit(&sim->config, &caller, &verdict))
        return true;
    http_reply_error(conn, verdict.status, verdict.message);
    return false;
}

static void put_model(struct buf *out, const struct sim_model *model)
{
    buf_byte(out, '{');
    json_put_field_text(out, "id", model->id);
    json_put_field_text(out, "object", "model");
    json_put_field_text(out, "owned_by", "salutedevices");
    json_put_field_text(out, "type", sim_model_type_name(model->type));
    buf_byte(out, '}');
}

static void answer_models(struct conn *conn)
{
    struct buf *body = sim_scratch(&conn->sim->body);
    const struct sim_config *config = &conn->sim->config;

    if (!admit(conn))
        return;
    buf_str(body, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < config->model_count; i++) {
        if (i > 0)
            buf_byte(body, ',');
        put_model(body, &config->models[i]);
    }
    buf_str(body, "]}");
    http_reply(conn, 200, HTTP_TYPE_JSON, "", body->data, body->len);
}

static void answer_model(struct conn *conn)
{
    const struct sim_config *config = &conn->sim->config;
    struct span id = conn->request.path;

    if (!admit(conn))
        return;
    id.data += sizeof(models_prefix) - 1;
    id.len -= sizeof(models_prefix) - 1;
    for (size_t i = 0; i < config->model_count; i++) {
        struct buf *body;

        if (!span_equals(id, config->models[i].id))
            continue;
        body = sim_scratch(&conn->sim->body);
        put_model(body, &config->models[i]);
        http_reply(conn, 200, HTTP_TYPE_JSON, "", body->data, body->len);
        return;
    }
    http_reply_error(conn, 404, "No such model");
}

static void answer_other(struct conn *conn)
{
    if (admit(conn))
        http_reply_html(conn, 403, "");
}

static const struct {
    const char *method; /* NULL: any */
    void (*answer)(struct conn *conn);
} handlers[] = {
    [ROUTE_OAUTH] = {"POST", oauth_answer},  [ROUTE_CHAT] = {"POST", chat_answer},
    [ROUTE_MODELS] = {"GET", answer_models}, [ROUTE_MODEL] = {"GET", answer_model},
    [ROUTE_OTHER] = {NULL, answer_other},    [ROUTE_SIM] = {NULL, control_answer},
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
        http_reply_error(conn, 429, "Too many requests");
    } else if (plan_has(plan, PLAN(FAIL)) && script_attempt_fails(script, key, plan->fail_count)) {
        reply_status(conn, (int)plan->fail_status, BODY_JSON);
    } else if (plan_has(plan, PLAN(AUTH_ALWAYS)) ||
               (plan_has(plan, PLAN(AUTH_ONCE)) && script_attempt_fails(script, key, 1))) {
        http_reply_error(conn, 401, "Token has expired");
    } else if (plan_has(plan, PLAN(OAUTH_DOWN))) {
        reply_status(conn, (int)plan->status, BODY_JSON);
    } else if (plan_has(plan, PLAN(OAUTH_HTML))) {
        http_reply_html(conn, 502, "");
    } else {
        return false;
    }
    return true;
}

void api_dispatch(struct conn *conn)
{
    const struct http_request *request = &conn->request;
    struct sim *sim = conn->sim;

    conn->route = route_of(request->path);
    if (conn->route != ROUTE_SIM) {
        stats_keep_request(&sim->stats, request->head.data, request->head.len, request->body.data,
                           request->body.len);
        if (conn->route == ROUTE_CHAT && !chat_open(conn))
            return;
        if (script_take(sim->script, request->path.data, request->path.len, &conn->plan) &&
            api_play_fault(conn, hash_bytes(3, request->body.data, request->body.len)))
            return;
    }
    if (handlers[conn->route].method != NULL &&
        !span_equals(request->method, handlers[conn->route].method))
        http_reply_error(conn, 405, http_reason(405));
    else
        handlers[conn->route].answer(conn);
}
