#include "gateway/explain.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/container.h"
#include "common/json.h"
#include "gateway/metering.h"
#include "gateway/query.h"
#include "gateway/routing.h"
#include "providers/chat_request.h"
#include "router/status.h"

/* One request, from its parsed body to the answer. */
struct explain {
    struct worker *worker;
    struct http_request *request;
    struct model_request parsed;
    struct route route;
    struct metering metering; /* of the prompt alone */
};

/* Why a candidate would be passed over. */
static const char *const BAR_NAMES[] = {
    [TARGET_SWITCHED_OFF] = "switched_off",
    [TARGET_LEFT_ALONE] = "left_alone",
    [TARGET_BREAKER_OPEN] = "breaker_open",
};

static void put_candidate(struct explain *x, const struct route_candidate *c, struct buf *out)
{
    struct targets_region *targets = x->worker->dispatcher.targets;
    int64_t now_ms = clock_monotonic_ms(), wait_ms;
    int provider = counters_find_provider(x->worker->engine.region, c->provider->name);
    int index = targets_find(targets, c->provider->name, c->config->model);
    const struct target *t = index < 0 ? NULL : target_at(targets, (size_t)index);
    enum provider_switch position =
        provider < 0 ? PROVIDER_ENABLED : targets_switch(targets, (size_t)provider);
    enum breaker_state breaker =
        t == NULL ? BREAKER_CLOSED : breaker_state_now(&t->breaker, x->request->config, now_ms);
    enum target_bar bar = targets_bar(targets, provider, t, x->request->config, now_ms, &wait_ms);
    bool fits = metering_least(&x->metering) <= (int64_t)route_context(c);

    buf_byte(out, '{');
    json_put_field_text(out, "id", c->model->id);
    json_put_field_text(out, "provider", c->provider->name);
    json_put_field_text(out, "model", c->config->model);
    json_put_field_text(out, "switch", PROVIDER_SWITCH_NAMES[position]);
    json_put_field_text(out, "breaker", BREAKER_STATE_NAMES[breaker]);
    json_put_field_i64(out, "left_alone_ms", wait_ms);
    json_put_field_u64(out, "context_tokens", route_context(c));
    json_put_field_bool(out, "would_try", fits && bar == TARGET_FREE);
    json_put_field_text(out, "reason", fits ? BAR_NAMES[bar] : "context_too_short");
    buf_byte(out, '}');
}

static int64_t output_at_most(const struct explain *x, const struct route_candidate *c)
{
    return x->parsed.max_tokens > 0 ? x->parsed.max_tokens : (int64_t)c->model->max_output_tokens;
}

static int64_t longest_output(const struct explain *x)
{
    int64_t longest = 0;

    for (size_t i = 0; i < x->route.candidate_count; i++) {
        int64_t output = output_at_most(x, &x->route.candidates[i]);

        longest = output > longest ? output : longest;
    }
    return longest;
}

/* Of the prompt alone, at the dearest candidate. */
static int64_t prompt_cost_nano(const struct explain *x)
{
    int64_t most = 0;

    for (size_t i = 0; i < x->route.candidate_count; i++) {
        int64_t nano =
            money_cost_nano(&x->route.candidates[i].price, x->metering.prompt.tokens, 0, 0);

        most = nano > most ? nano : most;
    }
    return most;
}

static void put_amount(struct buf *out, const char *name, int64_t nano)
{
    char text[MONEY_TEXT_BYTES];

    money_format(nano, text);
    json_put_field_text(out, name, text);
}

static void answer(struct explain *x)
{
    struct buf body;

    buf_init(&body, SIZE_MAX);
    buf_byte(&body, '{');
    json_put_field_text(&body, "object", "xrouter.explain");
    json_put_field_text(&body, "model", x->route.model->id);
    json_put_key(&body, "candidates");
    buf_byte(&body, '[');
    for (size_t i = 0; i < x->route.candidate_count; i++) {
        buf_str(&body, i == 0 ? "" : ",");
        put_candidate(x, &x->route.candidates[i], &body);
    }
    buf_byte(&body, ']');
    json_put_field_i64(&body, "prompt_tokens", x->metering.prompt.tokens);
    json_put_field_text(&body, "method", TOKEN_METHOD_NAMES[x->metering.prompt.method]);
    json_put_field_i64(&body, "max_output_tokens", longest_output(x));
    json_put_key(&body, "estimate");
    buf_byte(&body, '{');
    json_put_field_text(&body, "currency", x->request->config->currency);
    put_amount(&body, "cost_at_most", metering_cost_at_most_nano(&x->metering, &x->route));
    put_amount(&body, "cost_prompt", prompt_cost_nano(x));
    buf_str(&body, "}}");
    http_add_header(x->request, "cache-control", "no-store");
    http_answer(x->request, 200, "application/json", &body);
}

static void on_counted(struct metering *metering)
{
    answer(container_of(metering, struct explain, metering));
}

static void on_gone(struct http_request *request)
{
    struct explain *x = request->state;

    metering_cancel(&x->metering);
}

static void on_completed(struct http_request *request, bool delivered)
{
    struct explain *x = request->state;

    metering_clear(&x->metering);
    model_request_clear(&x->parsed);
    free(x);
}

static const struct http_request_ops explain_ops = {.on_gone = on_gone,
                                                    .on_completed = on_completed};

static void log_fields(const struct http_request *request, struct buf *out)
{
    const struct explain *x = request->state;

    json_put_field_text(out, "model", x->route.model->id);
    json_put_field_bool(out, "explain", true);
}

static void refuse(struct http_request *r, const struct error *e)
{
    if (error_info(e->number)->http_status == 503)
        http_add_header(r, "retry-after", "1");
    http_answer_error(r, e);
}

/* Parsed and routed, as the chat would be; NULL after an answer. */
static struct explain *explain_new(struct worker *w, struct http_request *request)
{
    struct explain *x = calloc(1, sizeof(*x));
    struct error e = {0};
    int rc;

    if (x == NULL) {
        error_set(&e, XR_EINTERNAL, NULL, "The gateway is out of memory.");
        refuse(request, &e);
        return NULL;
    }
    x->worker = w;
    x->request = request;
    rc = chat_request_parse(request->body.data, request->body.len, &x->parsed, &e);
    if (rc == 0)
        rc = routing_make(w, request, &x->parsed, &x->route, &e);
    if (rc == 0)
        return x;
    model_request_clear(&x->parsed);
    free(x);
    refuse(request, &e);
    return NULL;
}

static void start(struct worker *w, struct http_request *request)
{
    struct explain *x = explain_new(w, request);
    struct error e = {0};
    int rc;

    if (x == NULL)
        return;
    request->state = x;
    request->ops = &explain_ops;
    request->log_fields = log_fields;
    metering_init(&x->metering, w, x->route.model, &x->parsed);
    x->metering.on_counted = on_counted;
    rc = metering_start(&x->metering, &x->route, true);
    if (rc == 0) {
        answer(x);
    } else if (rc < 0) {
        error_set(&e, XR_EINTERNAL, NULL, "The gateway is out of memory.");
        refuse(request, &e);
    }
}

bool explain_take(struct worker *w, struct http_request *request)
{
    struct query_param param = {.name = "explain"};
    struct error e = {0};
    bool is_off;

    if (query_pick(request->target, &param, &e) < 0) {
        http_answer_error(request, &e);
        return true;
    }
    is_off = !param.is_given || strcmp(param.value, "0") == 0 || strcmp(param.value, "false") == 0;
    if (is_off)
        return false;
    if (strcmp(param.value, "1") != 0 && strcmp(param.value, "true") != 0) {
        error_set(&e, XR_EINVALID, "explain", "The query parameter 'explain' must be 1 or 0.");
        http_answer_error(request, &e);
        return true;
    }
    start(w, request);
    return true;
}
