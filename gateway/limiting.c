#include "gateway/limiting.h"

#include "common/clock.h"
#include "gateway/worker.h"

static const char *const KIND_NAMES[LIMIT_KINDS] = {"requests per minute", "requests per day",
                                                    "tokens per minute", "tokens per day",
                                                    "requests at once"};

static struct limit_moment moment(void)
{
    return (struct limit_moment){.now_ms = clock_monotonic_ms(), .now_at_ms = clock_now_at_ms()};
}

struct limit_scope limiting_key_scope(const struct limits_region *r, const struct key *key)
{
    return (struct limit_scope){
        .row = limits_row_of_key(r, key->account),
        .values = {{key->rpm, key->rpd, key->tpm, key->tpd, key->parallel}}};
}

static struct limit_scope model_scope(const struct limits_region *r,
                                      const struct model_config *model, int index)
{
    struct limit_scope scope = {0};

    if (index >= 0)
        scope = (struct limit_scope){
            .row = limits_row_of_model(r, (size_t)index),
            .values = {{model->rpm, model->rpd, model->tpm, model->tpd, model->parallel}}};
    return scope;
}

static struct limit_scope gateway_scope(const struct config *c)
{
    return (struct limit_scope){.row = limits_row_of_gateway(),
                                .values = {{c->gateway_rpm, c->gateway_rpd, c->gateway_tpm,
                                            c->gateway_tpd, c->gateway_parallel}}};
}

bool limiting_needs_tokens(const struct http_request *http, const struct model_config *model)
{
    const struct config *c = http->config;

    return (http->key.tpm | http->key.tpd | model->tpm | model->tpd | c->gateway_tpm |
            c->gateway_tpd) != 0;
}

static bool is_empty(const struct limit_scope *scope)
{
    uint32_t any = 0;

    for (size_t i = 0; i < LIMIT_KINDS; i++)
        any |= scope->values.of[i];
    return any == 0;
}

static uint32_t clip(int64_t value)
{
    return value < 0 ? 0 : value > UINT32_MAX ? UINT32_MAX : (uint32_t)value;
}

static int refuse(const struct limit_refusal *refusal, const char *whose, struct error *e,
                  int64_t *retry_after_ms)
{
    const char *name = KIND_NAMES[refusal->kind];

    *retry_after_ms = refusal->wait_ms;
    if (refusal->wait_ms < 0)
        return error_set(e, XR_ERATELIMIT, NULL,
                         "The limit of %u %s of %s is too small for this request; a shorter prompt "
                         "needs less.",
                         refusal->limit, name, whose);
    if (refusal->wait_ms == 0)
        return error_set(e, XR_ERATELIMIT, NULL, "The limit of %u %s of %s is reached.",
                         refusal->limit, name, whose);
    return error_set(e, XR_ERATELIMIT, NULL,
                     "The limit of %u %s of %s is reached; it begins anew in %lld.%03lld s.",
                     refusal->limit, name, whose, (long long)(refusal->wait_ms / 1000),
                     (long long)(refusal->wait_ms % 1000));
}

int limiting_take(struct limiting *l, struct worker *w, const struct limiting_request *request,
                  struct error *e, int64_t *retry_after_ms)
{
    static const char *const WHOSE[] = {"this key", "this model", "the gateway"};
    struct limits_region *r = w->setup->instance->limits;
    const struct limit_moment now = moment();
    struct limit_scope scopes[LIMIT_SCOPES_MAX];
    const char *whose[LIMIT_SCOPES_MAX];
    struct limit_refusal refusal;
    uint32_t output = clip(request->output_most);
    size_t count = 0;

    *retry_after_ms = 0;
    l->worker = w;
    l->model = counters_find_model(w->engine.region, request->model->id);
    for (size_t i = 0; i < LIMIT_SCOPES_MAX; i++) {
        scopes[count] = i == 0   ? limiting_key_scope(r, &request->http->key)
                        : i == 1 ? model_scope(r, request->model, l->model)
                                 : gateway_scope(request->http->config);
        whose[count] = WHOSE[i];
        count += !is_empty(&scopes[count]);
    }
    if (count == 0)
        return 0;
    if (l->model >= 0 && limits_typical_output(r, (size_t)l->model) < output)
        output = limits_typical_output(r, (size_t)l->model);
    if (limits_claim(r, w->setup->slot, scopes, count, clip(request->prompt_tokens), output, &now,
                     &l->claim, &refusal) == 0)
        return 0;
    counter_inc(&w->counters->rate_refusals_total);
    return refuse(&refusal, whose[refusal.scope], e, retry_after_ms);
}

void limiting_settle(struct limiting *l, int64_t tokens_input, int64_t tokens_output)
{
    struct limits_region *r;

    if (l->worker == NULL)
        return;
    r = l->worker->setup->instance->limits;
    if (l->model >= 0 && tokens_output > 0)
        limits_note_output(r, (size_t)l->model, tokens_output);
    limits_settle(r, l->worker->setup->slot, &l->claim, tokens_input + tokens_output);
    l->worker = NULL;
}

void limiting_give_back(struct limiting *l)
{
    if (l->worker == NULL)
        return;
    limits_give_back(l->worker->setup->instance->limits, l->worker->setup->slot, &l->claim);
    l->worker = NULL;
}
