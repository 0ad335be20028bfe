#include "gateway/metering.h"

#include <errno.h>
#include <string.h>

#include "common/container.h"
#include "usage/calibration.h"

uint32_t metering_ratio(const struct worker *w, const struct model_config *model)
{
    int index = counters_find_model(w->engine.region, model->id);

    return index < 0 ? CALIBRATION_ONE
                     : calibration_get(w->setup->instance->calibration, (size_t)index).ratio;
}

static void take_result(struct metering *m)
{
    prompt_tokens_result(m->job.count, metering_ratio(m->worker, m->model), &m->prompt);
    m->is_counted = true;
}

void metering_cancel(struct metering *m)
{
    counting_cancel(&m->worker->counting, &m->job);
    prompt_tokens_free(m->job.count);
    m->job.count = NULL;
}

static int begin_count(struct metering *m)
{
    const struct model_request *r = m->request;

    if (r->operation == OPERATION_EMBEDDINGS)
        return prompt_tokens_new_text(m->model, r->input, &m->job.count);
    return prompt_tokens_new(m->model, r->messages, r->tools != NULL ? r->tools : r->functions,
                             &m->job.count);
}

/* Of a request so short that nobody need wait. Without memory the guess stands. */
static void count_at_once(struct metering *m)
{
    int rc;

    if (m->is_counted || begin_count(m) < 0)
        return;
    do {
        rc = prompt_tokens_step(m->job.count, METERING_LATE_BYTES);
    } while (rc == 1);
    if (rc == 0)
        take_result(m);
    metering_cancel(m);
}

static void on_text(struct token_meter *meter, const char *text, size_t len)
{
    struct metering *m = container_of(meter, struct metering, meter);
    int64_t guess;

    answer_tokens_add(&m->answer, text, len);
    guess = answer_tokens_guess(&m->answer);
    if (m->event != NULL && guess > m->event->tokens_output)
        m->event->tokens_output =
            guess; /* what a reaper would bill, if the provider does not tell */
}

static void on_count(struct token_meter *meter, struct token_usage *usage)
{
    struct metering *m = container_of(meter, struct metering, meter);

    count_at_once(m);
    usage->input = m->prompt.tokens;
    usage->cached = 0;
    usage->output = answer_tokens_count(&m->answer, metering_ratio(m->worker, m->model));
}

static void on_reset(struct token_meter *meter)
{
    answer_tokens_reset(&container_of(meter, struct metering, meter)->answer);
}

static void on_job_counted(struct counting_job *job, int rc)
{
    struct metering *m = container_of(job, struct metering, job);

    if (rc == 0)
        take_result(
            m); /* else not UTF-8, which the parser does not let through: the guess stands */
    metering_cancel(m);
    m->on_counted(m);
}

void metering_init(struct metering *m, struct worker *w, const struct model_config *model,
                   const struct model_request *request)
{
    int64_t guess = prompt_tokens_guess(request->len);

    *m = (struct metering){.worker = w,
                           .model = model,
                           .request = request,
                           .meter = {.on_text = on_text, .count = on_count, .reset = on_reset},
                           .prompt = {.method = TOKENS_CALIBRATED,
                                      .tokens = guess,
                                      .at_most = (int64_t)request->len,
                                      .at_least = 0},
                           .job = {.on_counted = on_job_counted}};
    answer_tokens_init(&m->answer, model);
    if (request->input_tokens > 0) { /* the client has counted */
        m->prompt = (struct token_estimate){.method = TOKENS_EXACT,
                                            .tokens = request->input_tokens,
                                            .at_most = request->input_tokens,
                                            .at_least = request->input_tokens};
        m->is_counted = true;
    }
}

void metering_use_model(struct metering *m, const struct model_config *model)
{
    bool is_same = strcmp(m->model->tokenizer, model->tokenizer) == 0;

    if (m->model == model)
        return;
    m->model = model;
    answer_tokens_clear(&m->answer);
    answer_tokens_init(&m->answer, model);
    if (is_same || m->request->input_tokens > 0)
        return;
    if (m->request->len <= METERING_LATE_BYTES)
        m->is_counted = false; /* the estimate stands until somebody has to know */
    else
        m->is_foreign = m->is_counted;
}

void metering_clear(struct metering *m)
{
    if (m->worker == NULL)
        return;
    metering_cancel(m);
    answer_tokens_clear(&m->answer);
}

/* Whether a prompt of that size could be too long for a candidate. */
static bool may_exceed_context(const struct metering *m, const struct route *route)
{
    int64_t bound, most;

    if (m->request->operation == OPERATION_EMBEDDINGS)
        return false; /* the context is of each text, and the provider knows how it is cut */
    bound = prompt_tokens_bound(m->model, metering_ratio(m->worker, m->model), m->request->len,
                                m->request->image_count);

    return __builtin_add_overflow(bound, m->request->max_tokens, &most) ||
           most > (int64_t)route_shortest_context(route);
}

int metering_start(struct metering *m, const struct route *route, bool is_limited)
{
    int rc;

    if (m->is_counted)
        return 0;
    if (!is_limited && m->request->len <= METERING_LATE_BYTES && !may_exceed_context(m, route))
        return 0;
    rc = begin_count(m);
    if (rc == 0)
        rc = counting_start(&m->worker->counting, &m->job);
    if (rc == 1)
        return 1;
    if (rc == 0)
        take_result(m);
    metering_cancel(m);
    return rc == -ENOMEM ? rc : 0;
}

bool metering_is_counting(const struct metering *m)
{
    return m->job.is_waiting;
}

int64_t metering_least(const struct metering *m)
{
    int64_t sum;

    if (m->request->operation == OPERATION_EMBEDDINGS)
        return 0; /* as may_exceed_context() */
    return __builtin_add_overflow(m->prompt.at_least, m->request->max_tokens, &sum) ? INT64_MAX
                                                                                    : sum;
}

int64_t metering_prompt_at_most(struct metering *m)
{
    count_at_once(m);
    return m->prompt.at_most;
}

static int64_t cost_at_most_nano(struct metering *m, const struct route_candidate *candidate)
{
    const struct price *price = &candidate->price;
    int64_t asked = m->request->max_tokens;
    int64_t input = metering_prompt_at_most(m);
    int64_t cached = price->cached_input_nano > price->input_nano ? input : 0;

    int64_t output = asked > 0 ? asked : candidate->model->max_output_tokens;

    if (m->request->operation == OPERATION_EMBEDDINGS)
        output = 0;
    return money_cost_nano(price, input, cached, output);
}

int64_t metering_cost_at_most_nano(struct metering *m, const struct route *route)
{
    int64_t most_nano = 0;

    for (size_t i = 0; i < route->candidate_count; i++) {
        int64_t cost_nano = cost_at_most_nano(m, &route->candidates[i]);

        if (cost_nano > most_nano)
            most_nano = cost_nano;
    }
    return most_nano < ACCOUNT_MAX_NANO ? most_nano : ACCOUNT_MAX_NANO;
}

/* Before the ratio is full each request teaches it; then those that are counted anyway, and some.
 */
static void learn(struct metering *m, const struct usage_event *event)
{
    struct calibration_region *region = m->worker->setup->instance->calibration;
    int model = counters_find_model(m->worker->engine.region, m->model->id);
    uint32_t random;

    if (model < 0 || m->is_foreign || strcmp(m->model->tokenizer, "calibrated") != 0)
        return;
    memcpy(&random, event->id.bytes + USAGE_ID_BYTES - sizeof(random), sizeof(random));
    if (!m->is_counted && calibration_wants(region, (size_t)model, random))
        count_at_once(m);
    if (m->is_counted)
        calibration_learn(region, (size_t)model, m->prompt.counted, event->tokens_input);
}

void metering_settle(struct metering *m, struct usage_event *event, const struct metering_end *end)
{
    struct token_usage counted;

    m->event = NULL; /* its numbers are final now */
    if (end->is_refused || (!end->is_final && !end->has_answer)) {
        event->tokens_input = event->tokens_cached = event->tokens_output = 0;
        event->source = USAGE_BY_NOBODY;
        return;
    }
    if (end->is_final) {
        event->tokens_input = end->usage.input;
        event->tokens_cached = end->usage.cached;
        event->tokens_output = end->usage.output;
        event->source = USAGE_BY_PROVIDER;
        learn(m, event);
    } else {
        on_count(&m->meter, &counted);
        event->tokens_input = counted.input;
        event->tokens_output = counted.output;
        event->source = end->is_whole ? USAGE_BY_LOCAL : USAGE_BY_PARTIAL;
    }
    event->cost_nano = money_cost_nano(&event->price, event->tokens_input, event->tokens_cached,
                                       event->tokens_output);
}
