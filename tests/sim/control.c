#include "tests/sim/control.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "tests/sim/files.h"
#include "tests/sim/oauth.h"
#include "tests/sim/sim.h"

#define LOG_PART_BYTES (32 * 1024)
#define REFUSE_MS_DEFAULT 1000
#define REFUSE_MS_MAX 600000

static void reply_ok(struct conn *conn, const char *body)
{
    http_reply(conn, 200, HTTP_TYPE_JSON, "", body, strlen(body));
}

/* A number in the query ("since=12"), or fallback. */
static int64_t query_number(const struct http_request *request, const char *name, int64_t fallback)
{
    size_t n = strlen(name);
    int64_t value = 0;

    if (request->query.len <= n + 1 || memcmp(request->query.data, name, n) != 0 ||
        request->query.data[n] != '=')
        return fallback;
    for (size_t i = n + 1; i < request->query.len; i++) {
        char c = request->query.data[i];

        if (c < '0' || c > '9' || value > INT64_MAX / 20)
            return fallback;
        value = value * 10 + (c - '0');
    }
    return value;
}

static void answer_stats(struct conn *conn)
{
    struct buf *body = sim_scratch(&conn->sim->body);

    stats_render(&conn->sim->stats, script_pending(conn->sim->script), files_held(conn->sim->files),
                 body);
    http_reply(conn, 200, HTTP_TYPE_JSON, "", body->data, body->len);
}

static enum http_step log_produce(struct conn *conn)
{
    struct buf *part = sim_scratch(&conn->sim->body);
    uint64_t seq = (uint64_t)conn->cursor;
    bool more = journal_render(conn->sim->journal, &seq, part, LOG_PART_BYTES);

    conn->cursor = (int64_t)seq;
    http_body(conn, part->data, part->len);
    if (more)
        return STEP_MORE;
    http_body_end(conn);
    return STEP_END;
}

static void answer_log(struct conn *conn)
{
    conn->cursor = query_number(&conn->request, "since", 0);
    http_begin(conn, 200, "application/x-ndjson", "", HTTP_CHUNKED);
    http_produce(conn, log_produce);
}

static void answer_script(struct conn *conn)
{
    char why[SCENARIO_WHY_BYTES];
    struct span body = conn->request.body;
    int rc = script_add(conn->sim->script, body.data, body.len, why);

    if (rc == -ENOMEM)
        http_reply_error(conn, 500, http_reason(500));
    else if (rc < 0)
        http_reply_error(conn, 400, why);
    else
        reply_ok(conn, "{\"ok\":true}");
}

static void answer_reset(struct conn *conn)
{
    struct sim *sim = conn->sim;

    stats_reset(&sim->stats);
    script_reset(sim->script);
    sessions_reset(sim->sessions);
    journal_reset(sim->journal);
    files_reset(sim->files);
    reply_ok(conn, "{\"ok\":true}");
}

static void answer_expire(struct conn *conn)
{
    tokens_expire(conn->sim->tokens);
    reply_ok(conn, "{\"ok\":true}");
}

static void answer_refuse(struct conn *conn)
{
    int64_t ms = query_number(&conn->request, "ms", REFUSE_MS_DEFAULT);

    http_server_refuse(conn->sim->http, ms > REFUSE_MS_MAX ? REFUSE_MS_MAX : ms);
    reply_ok(conn, "{\"ok\":true}");
}

static const struct {
    const char *method;
    const char *path;
    void (*answer)(struct conn *conn);
} controls[] = {
    {"GET", "/__sim/stats", answer_stats},    {"GET", "/__sim/log", answer_log},
    {"POST", "/__sim/script", answer_script}, {"POST", "/__sim/reset", answer_reset},
    {"POST", "/__sim/expire", answer_expire}, {"POST", "/__sim/refuse", answer_refuse},
};

void control_answer(struct conn *conn)
{
    for (size_t i = 0; i < sizeof(controls) / sizeof(controls[0]); i++) {
        if (span_equals(conn->request.path, controls[i].path) &&
            span_equals(conn->request.method, controls[i].method)) {
            controls[i].answer(conn);
            return;
        }
    }
    http_reply_error(conn, 404, "no such control: see tests/sim/README.md");
}
