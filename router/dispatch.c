#include "router/dispatch.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/container.h"
#include "common/log.h"
#include "common/secret.h"
#include "router/failure.h"

#define BUDGET_ONE 100 /* a repeat, in hundredths of one */
#define REPEAT_SHIFT_MAX 16

enum try_state {
    TRY_DUE,    /* not yet */
    TRY_PASSED, /* passed over: switched off, its breaker open, left alone, no room in its queue */
    TRY_FAILED
};

struct candidate_try {
    enum try_state state;
    bool may_repeat;
    unsigned failures;
};

struct dispatch {
    struct dispatcher *dispatcher;
    struct dispatch_setup setup;
    struct answer_identity identity; /* the setup's, with the model that is tried */
    struct candidate_try tries[ROUTE_CANDIDATES_MAX];
    size_t current; /* the candidate that waits or runs */
    unsigned attempts;
    struct attempt *attempt; /* NULL: none runs */
    struct queue_ticket ticket;
    struct timer backoff, deadline;
    struct error error; /* the failure that tells most */
    int64_t retry_after_ms;
    struct token_usage usage; /* of the last attempt, once it is over */
    bool usage_final;
    int64_t waited_us, queued_us, queued_since_us;
    int64_t connect_us; /* of the last attempt, once it is over */
    bool is_committed;  /* bytes of the answer may be with the client */
    bool is_paused;
    bool is_complete;
    bool is_starting, has_ended;
};

static struct loop *loop_of(const struct dispatch *d)
{
    return d->dispatcher->engine->loop;
}

static const struct route_candidate *candidate_at(const struct dispatch *d, size_t i)
{
    return &d->setup.route->candidates[i];
}

static struct target *target_of(const struct dispatch *d, size_t i)
{
    const struct route_candidate *c = candidate_at(d, i);
    int index = targets_find(d->dispatcher->targets, c->provider->name, c->config->model);

    return index < 0 ? NULL : target_at(d->dispatcher->targets, (size_t)index);
}

static int provider_index(const struct dispatch *d, size_t i)
{
    return counters_find_provider(d->dispatcher->engine->region,
                                  candidate_at(d, i)->provider->name);
}

/* Remembers the failure if it tells more than those before; of equals the last. */
static void remember(struct dispatch *d, const struct error *e, int64_t retry_after_ms)
{
    if (d->error.number != 0 &&
        failure_class_of(e->number)->rank < failure_class_of(d->error.number)->rank)
        return;
    d->error = *e;
    d->retry_after_ms = retry_after_ms;
}

/* Whether nobody else could do better. */
static bool is_final(const struct dispatch *d)
{
    return d->error.number != 0 && failure_class_of(d->error.number)->is_final;
}

static void finish(struct dispatch *d, int rc)
{
    if (d->has_ended)
        return;
    assert(rc == 0 || d->error.number != 0);
    d->has_ended = true;
    loop_timer_cancel(loop_of(d), &d->backoff);
    loop_timer_cancel(loop_of(d), &d->deadline);
    if (!d->is_starting) /* else dispatch_start() tells */
        d->setup.callbacks->on_end(d->setup.arg, rc, rc < 0 ? &d->error : NULL);
}

/* ---- one attempt ---- */

static void end_attempt(struct dispatch *d)
{
    if (d->attempt == NULL)
        return;
    d->usage = *attempt_usage(d->attempt, &d->usage_final);
    d->is_complete = attempt_is_complete(d->attempt);
    d->waited_us += attempt_waited_us(d->attempt);
    d->connect_us = attempt_connect_us(d->attempt);
    attempt_free(d->attempt);
    d->attempt = NULL;
}

/* Without a verdict: the client left, or its patience is over. */
static void cancel_attempt(struct dispatch *d)
{
    struct target *t;

    if (d->attempt == NULL)
        return;
    t = target_of(d, d->current);
    if (t != NULL)
        breaker_forget(&t->breaker);
    end_attempt(d);
}

static void note_state(const struct dispatch *d, const struct target *t)
{
    enum breaker_state state =
        breaker_state_now(&t->breaker, d->setup.config, loop_now_ms(loop_of(d)));

    log_request_event(state == BREAKER_CLOSED ? LOG_INFO : LOG_WARN, "breaker_changed",
                      d->setup.request_id, "the breaker of %s at %s is %s", t->model, t->provider,
                      BREAKER_STATE_NAMES[state]);
}

/* What the attempt says about its target. */
static void judge(struct dispatch *d, int rc)
{
    struct target *t = target_of(d, d->current);
    int64_t now_ms = loop_now_ms(loop_of(d));
    int64_t first_us = attempt_first_byte_us(d->attempt);
    int64_t wait_ms = attempt_retry_after_ms(d->attempt);

    if (t == NULL)
        return;
    if (first_us > 0)
        target_note_first_byte(t, first_us);
    if (wait_ms > 0) {
        int64_t rest_ms = queue_rest_ms(d->dispatcher->engine->queues, &d->ticket);

        /* Not beyond the return of another account. */
        target_close_for(t, now_ms, rest_ms > 0 && rest_ms < wait_ms ? rest_ms : wait_ms);
    }
    if (breaker_note(&t->breaker, d->setup.config, rc < 0 && failure_class_of(rc)->is_providers,
                     now_ms))
        note_state(d, t);
}

/* Whether the failure was the account's, and the provider has another one; then it is no failure of
 * the provider's. */
static bool rest_account(struct dispatch *d, int rc)
{
    int64_t rest_ms = failure_class_of(rc)->account_rest_ms;
    int64_t asked_ms = attempt_retry_after_ms(d->attempt);
    struct target *t = target_of(d, d->current);

    if (rest_ms < asked_ms)
        rest_ms = asked_ms;
    if (failure_class_of(rc)->account_rest_ms == 0 ||
        !queue_rest_account(d->dispatcher->engine->queues, &d->ticket, rest_ms))
        return false;
    log_request_event(rc == XR_EBUSY ? LOG_INFO : LOG_WARN, "account_rests", d->setup.request_id,
                      "account %u of %s gets no requests for %lld ms: %s", d->ticket.account,
                      candidate_at(d, d->current)->provider->name, (long long)rest_ms,
                      error_info(rc)->text);
    if (t != NULL)
        breaker_forget(&t->breaker);
    return true;
}

static void next_step(struct dispatch *d);

/* Nothing of a failed try is left, neither bytes nor tokens. */
static void wipe_traces(struct dispatch *d)
{
    if (!d->setup.request->stream)
        buf_reset(d->setup.out);
    buf_reset(d->setup.ignored);
    d->setup.meter->reset(d->setup.meter);
    d->setup.event->tokens_output = 0;
    d->usage = (struct token_usage){-1, 0, 0};
    d->usage_final = false;
    atomic_store_explicit(d->setup.has_answer, 0, memory_order_release);
}

static void on_attempt_output(void *arg)
{
    struct dispatch *d = arg;

    d->is_committed = true;
    d->setup.callbacks->on_output(d->setup.arg);
}

static void on_attempt_end(void *arg, int rc, const struct error *e)
{
    struct dispatch *d = arg;
    const struct failure_class *class = failure_class_of(rc);
    struct candidate_try *try = &d->tries[d->current];
    /* The source of tokens repeats by itself. */
    bool may_repeat = class->may_repeat && attempt_was_sent(d->attempt);
    bool has_other_account = rest_account(d, rc);
    struct error failure = {0};
    int64_t wait_ms = 0;

    if (!has_other_account)
        judge(d, rc);
    if (rc < 0) {
        failure = *e; /* it goes with the attempt */
        wait_ms = attempt_retry_after_ms(d->attempt);
    }
    end_attempt(d);
    queue_leave(d->dispatcher->engine->queues, &d->ticket);
    if (rc < 0) {
        remember(d, &failure, wait_ms);
        try->state = has_other_account ? TRY_DUE : TRY_FAILED;
        try->may_repeat = may_repeat;
        try->failures++;
    }
    if (rc == 0 || d->is_committed || !class->goes_on) {
        finish(d, rc < 0 ? d->error.number : 0);
        return;
    }
    wipe_traces(d); /* now: who leaves while the next one is waited for pays nothing */
    next_step(d);
}

static const struct attempt_callbacks attempt_callbacks = {
    .on_output = on_attempt_output,
    .on_end = on_attempt_end,
};

static void pass_over(struct dispatch *d, size_t i, int number, int64_t wait_ms, const char *why)
{
    struct error e = {0};

    d->tries[i].state = TRY_PASSED;
    error_set(&e, number, NULL, "%s", why);
    remember(d, &e, wait_ms);
}

/* What the client is told of a candidate that is passed over. */
static const struct {
    int number;
    const char *why;
} BARS[] = {
    [TARGET_SWITCHED_OFF] = {XR_ENOPROVIDER,
                             "The provider is switched off by the gateway's operator."},
    [TARGET_LEFT_ALONE] = {XR_EBUSY, "The provider has asked to be left alone for a while."},
    [TARGET_BREAKER_OPEN] = {XR_ENOPROVIDER, "The provider has failed again and again, and is "
                                             "left alone for a moment."},
};

static void pass_over_broken(struct dispatch *d, size_t i, const struct target *t)
{
    pass_over(d, i, BARS[TARGET_BREAKER_OPEN].number,
              breaker_wait_ms(&t->breaker, d->setup.config, loop_now_ms(loop_of(d))),
              BARS[TARGET_BREAKER_OPEN].why);
}

/* The slot is held. False: it could not even be begun, and is marked. */
static bool begin(struct dispatch *d, size_t i)
{
    const struct route_candidate *c = candidate_at(d, i);
    const struct provider_config *provider = provider_by_account(c->provider, d->ticket.account);
    const struct attempt_setup setup = {.config = d->setup.config,
                                        .provider = provider,
                                        .candidate = c->config,
                                        .request = d->setup.request,
                                        .identity = &d->identity,
                                        .request_id = d->setup.request_id,
                                        .out = d->setup.out,
                                        .ignored = d->setup.ignored,
                                        .meter = d->setup.meter,
                                        .event = d->setup.event,
                                        .ticket = &d->ticket,
                                        .has_answer = d->setup.has_answer,
                                        .callbacks = &attempt_callbacks,
                                        .arg = d};
    struct target *t = target_of(d, i);
    struct error e = {0};
    int rc;

    if (t != NULL && !breaker_allows(&t->breaker, d->setup.config, loop_now_ms(loop_of(d)))) {
        pass_over_broken(d, i, t); /* another worker's probe is under way */
        queue_leave(d->dispatcher->engine->queues, &d->ticket);
        return false;
    }
    wipe_traces(d);
    d->current = i;
    d->attempts++;
    d->setup.event->price = c->price;
    usage_name_set(d->setup.event->model, c->model->id);
    if (c->model != d->setup.route->model)
        d->identity.model = c->model->id; /* else as the client named it */
    else
        d->identity.model = d->setup.identity->model;
    if (d->setup.callbacks->on_try != NULL)
        d->setup.callbacks->on_try(d->setup.arg, c);
    rc = attempt_start(d->dispatcher->engine, &setup, &d->attempt, &e);
    if (rc == 0) {
        if (d->is_paused)
            attempt_pause(d->attempt);
        return true;
    }
    if (t != NULL)
        breaker_forget(&t->breaker);
    queue_leave(d->dispatcher->engine->queues, &d->ticket);
    d->tries[i].state = TRY_FAILED;
    remember(d, &e, 0);
    return false;
}

/* ---- which one is next ---- */

/* Whether the candidate may be tried now; if not it is passed over. */
static bool is_open(struct dispatch *d, size_t i)
{
    int64_t wait_ms;
    enum target_bar bar = targets_bar(d->dispatcher->targets, provider_index(d, i), target_of(d, i),
                                      d->setup.config, loop_now_ms(loop_of(d)), &wait_ms);

    if (bar == TARGET_FREE)
        return true;
    pass_over(d, i, BARS[bar].number, wait_ms, BARS[bar].why);
    return false;
}

/* Whether an operator has switched the provider off while a turn there was waited for. */
static bool is_switched_off(const struct dispatch *d, size_t i)
{
    int provider = provider_index(d, i);

    return provider >= 0 &&
           targets_switch(d->dispatcher->targets, (size_t)provider) != PROVIDER_ENABLED;
}

/* 0 = a slot is held, 1 = waits, XR_EBUSY. */
static int take_slot(struct dispatch *d, size_t i, uint32_t length)
{
    const struct queue_place place =
        queue_place_of(candidate_at(d, i)->provider, provider_index(d, i));

    return queue_enter(d->dispatcher->engine->queues, &d->ticket, &place, d->setup.key_id, length,
                       d->setup.config->queue_wait_ms);
}

static void pass_over_busy(struct dispatch *d, size_t i)
{
    int provider = provider_index(d, i);

    pass_over(
        d, i, XR_EBUSY,
        provider < 0 ? 0 : queue_retry_after_ms(d->dispatcher->engine->queues, (size_t)provider),
        "All of the provider's slots are taken, and too many requests wait for them already.");
}

static void on_turn(struct queue_ticket *ticket, int rc)
{
    struct dispatch *d = container_of(ticket, struct dispatch, ticket);

    d->queued_us += clock_monotonic_us() - d->queued_since_us;
    d->queued_since_us = 0;
    if (rc < 0) {
        pass_over_busy(d, d->current);
    } else if (is_switched_off(d, d->current)) {
        queue_leave(d->dispatcher->engine->queues, &d->ticket);
        pass_over(d, d->current, BARS[TARGET_SWITCHED_OFF].number, 0,
                  BARS[TARGET_SWITCHED_OFF].why);
    } else if (begin(d, d->current)) {
        return;
    }
    next_step(d);
}

/* One that has a free slot; true if it is on its way. */
static bool try_free_one(struct dispatch *d)
{
    for (size_t i = 0; i < d->setup.route->candidate_count; i++) {
        if (d->tries[i].state != TRY_DUE || !is_open(d, i))
            continue;
        if (take_slot(d, i, 0) == 0 && begin(d, i))
            return true;
        if (is_final(d))
            return false;
    }
    return false;
}

/* One where a turn can be waited for. */
static bool wait_for_one(struct dispatch *d)
{
    for (size_t i = 0; i < d->setup.route->candidate_count; i++) {
        int rc;

        if (d->tries[i].state != TRY_DUE)
            continue;
        d->current = i;
        rc = take_slot(d, i, d->setup.config->queue_length);
        if (rc == 1) {
            d->queued_since_us = clock_monotonic_us();
            return true;
        }
        if (rc == 0 && begin(d, i))
            return true;
        if (rc < 0)
            pass_over_busy(d, i);
    }
    return false;
}

static int64_t jitter_ms(int64_t most_ms)
{
    uint32_t random = 0;

    (void)secret_random((uint8_t *)&random, sizeof(random)); /* 0 is a wait, too */
    return (int64_t)(random % (uint64_t)(most_ms + 1));
}

/* How long to wait before the candidate is tried again. */
static int64_t backoff_ms(const struct dispatch *d, size_t i)
{
    const struct config *config = d->setup.config;
    const struct target *t = target_of(d, i);
    unsigned shift = d->tries[i].failures - 1;
    int64_t most_ms = config->retry_backoff_ms
                      << (shift < REPEAT_SHIFT_MAX ? shift : REPEAT_SHIFT_MAX);
    int64_t wait_ms =
        jitter_ms(most_ms < config->retry_backoff_max_ms ? most_ms : config->retry_backoff_max_ms);
    int64_t closed_ms = 0;

    if (t != NULL)
        closed_ms = atomic_load_explicit(&t->closed_until_ms, memory_order_relaxed) -
                    loop_now_ms(loop_of(d));
    return wait_ms > closed_ms ? wait_ms : closed_ms;
}

static bool fits_deadline(const struct dispatch *d, int64_t wait_ms)
{
    return d->setup.deadline_ms == 0 || loop_now_ms(loop_of(d)) + wait_ms < d->setup.deadline_ms;
}

/* After the first that may be repeated; true if it will be. */
static bool plan_repeat(struct dispatch *d)
{
    struct dispatcher *dispatcher = d->dispatcher;

    if (d->attempts >= d->setup.config->retry_attempts || dispatcher->budget < BUDGET_ONE)
        return false;
    for (size_t i = 0; i < d->setup.route->candidate_count; i++) {
        int64_t wait_ms;

        if (d->tries[i].state != TRY_FAILED || !d->tries[i].may_repeat)
            continue;
        wait_ms = backoff_ms(d, i);
        if (wait_ms > d->setup.config->retry_backoff_max_ms || !fits_deadline(d, wait_ms) ||
            loop_timer_set(loop_of(d), &d->backoff, wait_ms) < 0)
            continue;
        d->current = i;
        dispatcher->budget -= BUDGET_ONE;
        counter_inc(&dispatcher->engine->counters->upstream_retries_total);
        return true;
    }
    return false;
}

static void next_step(struct dispatch *d)
{
    if (!is_final(d) && d->attempts < d->setup.config->retry_attempts &&
        (try_free_one(d) || wait_for_one(d)))
        return;
    if (is_final(d) || !plan_repeat(d)) {
        assert(d->error.number != 0); /* each that was not begun says why */
        finish(d, d->error.number);
    }
}

static void on_backoff(struct timer *t)
{
    struct dispatch *d = container_of(t, struct dispatch, backoff);

    d->tries[d->current].state = TRY_DUE;
    next_step(d);
}

static void on_deadline(struct timer *t)
{
    struct dispatch *d = container_of(t, struct dispatch, deadline);

    if (d->attempt != NULL && attempt_is_complete(d->attempt))
        return; /* only the end of its framing is waited for */
    cancel_attempt(d);
    queue_leave(d->dispatcher->engine->queues, &d->ticket);
    error_set(&d->error, XR_ETIMEOUT, NULL, "The request's own deadline has passed.");
    d->retry_after_ms = 0;
    finish(d, XR_ETIMEOUT);
}

/* ---- from outside ---- */

int dispatch_start(struct dispatcher *dispatcher, const struct dispatch_setup *setup,
                   struct dispatch **out, int64_t *retry_after_ms, struct error *e)
{
    struct dispatch *d = calloc(1, sizeof(*d));
    uint32_t earned = setup->config->retry_budget_percent;

    *out = NULL;
    *retry_after_ms = 0;
    if (d == NULL)
        return error_set(e, XR_EINTERNAL, NULL, "The gateway is out of memory.");
    d->dispatcher = dispatcher;
    d->setup = *setup;
    d->identity = *setup->identity;
    d->usage = (struct token_usage){-1, 0, 0};
    d->ticket.on_turn = on_turn;
    d->backoff.on_timer = on_backoff;
    d->deadline.on_timer = on_deadline;
    dispatcher->budget = dispatcher->budget + earned < DISPATCH_BUDGET_MAX
                             ? dispatcher->budget + earned
                             : DISPATCH_BUDGET_MAX;
    d->is_starting = true;
    if (setup->deadline_ms != 0 &&
        loop_timer_set(loop_of(d), &d->deadline, setup->deadline_ms - loop_now_ms(loop_of(d))) < 0)
        error_set(&d->error, XR_EINTERNAL, NULL, "The gateway is out of memory.");
    next_step(d);
    d->is_starting = false;
    if (!d->has_ended) {
        *out = d;
        return 0;
    }
    *e = d->error;
    *retry_after_ms = d->retry_after_ms;
    dispatch_free(d);
    return e->number;
}

void dispatch_free(struct dispatch *d)
{
    if (d == NULL)
        return;
    loop_timer_cancel(loop_of(d), &d->backoff);
    loop_timer_cancel(loop_of(d), &d->deadline);
    cancel_attempt(d);
    queue_leave(d->dispatcher->engine->queues, &d->ticket);
    free(d);
}

void dispatch_pause(struct dispatch *d)
{
    d->is_paused = true;
    if (d->attempt != NULL)
        attempt_pause(d->attempt);
}

void dispatch_resume(struct dispatch *d)
{
    d->is_paused = false;
    if (d->attempt != NULL)
        attempt_resume(d->attempt);
}

const struct token_usage *dispatch_usage(const struct dispatch *d, bool *final)
{
    if (d->attempt != NULL)
        return attempt_usage(d->attempt, final);
    *final = d->usage_final;
    return &d->usage;
}

bool dispatch_is_complete(const struct dispatch *d)
{
    return d->attempt != NULL ? attempt_is_complete(d->attempt) : d->is_complete;
}

int64_t dispatch_waited_us(const struct dispatch *d)
{
    return d->waited_us + (d->attempt != NULL ? attempt_waited_us(d->attempt) : 0);
}

int64_t dispatch_connect_us(const struct dispatch *d)
{
    return d->attempt != NULL ? attempt_connect_us(d->attempt) : d->connect_us;
}

int64_t dispatch_queued_us(const struct dispatch *d)
{
    return d->queued_us + (d->queued_since_us != 0 ? clock_monotonic_us() - d->queued_since_us : 0);
}

const struct route_candidate *dispatch_candidate(const struct dispatch *d, unsigned *attempts)
{
    *attempts = d->attempts;
    return d->attempts > 0 ? candidate_at(d, d->current) : NULL;
}

int64_t dispatch_retry_after_ms(const struct dispatch *d)
{
    return d->retry_after_ms;
}
