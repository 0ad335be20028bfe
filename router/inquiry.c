#include "router/inquiry.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/container.h"
#include "common/log.h"
#include "router/queue.h"
#include "router/side_call.h"

#define TICK_MS 1000
#define CALL_MS 10000          /* one request */
#define LEASE_MS (3 * CALL_MS) /* all of an inquiry */
#define BUSY_MS 1000           /* until another look for a free slot */
#define REQUEST_ID "xrouter-facts"

enum subject { SUBJECT_BALANCE, SUBJECT_MODELS, SUBJECT_END };

/* One account is asked. */
struct inquiry {
    struct inquirer *owner;
    struct inquiry *next;
    struct config *config; /* referenced */
    const struct provider_config *provider;
    const struct provider_ops *ops;
    size_t index; /* the provider's */
    uint32_t account;
    enum subject subject;
    struct queue_ticket ticket;
    struct side_call *call;
};

struct inquirer {
    struct inquirer_setup setup;
    struct timer tick;
    struct inquiry *first;
};

static void inquiry_free(struct inquiry *i)
{
    for (struct inquiry **link = &i->owner->first; *link != NULL; link = &(*link)->next) {
        if (*link == i) {
            *link = i->next;
            break;
        }
    }
    side_call_free(i->call);
    queue_leave(i->owner->setup.engine->queues, &i->ticket);
    config_unref(i->config);
    free(i);
}

static void finish(struct inquiry *i)
{
    facts_plan(i->owner->setup.facts, i->index, i->account,
               clock_monotonic_ms() + i->provider->facts_ms);
    inquiry_free(i);
}

/* The first time, and whenever the list has changed. */
static void note_missing_models(const struct inquiry *i, const struct models_list *list)
{
    struct targets_region *targets = i->owner->setup.targets;
    const struct target *t;

    for (size_t at = 0; (t = target_at(targets, at)) != NULL; at++)
        if (strcmp(t->provider, i->provider->name) == 0 && list->left_out == 0 &&
            !models_list_has(list, t->model))
            log_event(LOG_WARN, "model_not_offered", "", "%s does not list the model %s",
                      t->provider, t->model);
}

static int take_models(const struct inquiry *i, const struct buf *body, struct error *e)
{
    struct facts_region *facts = i->owner->setup.facts;
    struct facts_models next = {0}, before;
    int rc = models_list_decode(body->data, body->len, &next.list, e);

    if (rc < 0)
        return rc;
    next.at_ms = clock_now_at_ms();
    facts_load_models(facts, i->index, &before);
    facts_store_models(facts, i->index, &next);
    if (before.at_ms == 0 || memcmp(&before.list, &next.list, sizeof(next.list)) != 0)
        note_missing_models(i, &next.list);
    return 0;
}

static int take_balance(const struct inquiry *i, const struct buf *body, struct error *e)
{
    struct facts_account value = {0};
    int rc = i->ops->decode_balance(body->data, body->len, &value.balances, e);

    if (rc < 0)
        return rc;
    value.at_ms = clock_now_at_ms();
    facts_store_account(i->owner->setup.facts, i->index, i->account, &value);
    return 0;
}

static void note_failure(const struct inquiry *i, const struct error *e)
{
    log_event(LOG_INFO, "inquiry_failed", "", "%s of account %u at %s is not known: %s",
              i->subject == SUBJECT_MODELS ? "the list of models" : "the balance", i->account,
              i->provider->name, e->message);
}

static void ask_next(struct inquiry *i);

static void on_end(void *arg, int rc, const struct buf *body, const struct error *e)
{
    struct inquiry *i = arg;
    struct error failure = {0};
    /* Who pays afterwards has no balance. */
    bool has_none = i->subject == SUBJECT_BALANCE && side_call_status(i->call) == 403;

    if (rc < 0)
        failure = *e;
    else if (i->subject == SUBJECT_MODELS)
        rc = take_models(i, body, &failure);
    else
        rc = take_balance(i, body, &failure);
    if (rc < 0 && !has_none)
        note_failure(i, &failure);
    side_call_free(i->call);
    i->call = NULL;
    i->subject++;
    ask_next(i);
}

static int encode(void *arg, const struct upstream_call *call, struct upstream_request *out,
                  struct error *e)
{
    const struct inquiry *i = arg;

    return i->subject == SUBJECT_MODELS ? i->ops->encode_models(i->provider, call, out, e)
                                        : i->ops->encode_balance(i->provider, call, out, e);
}

/* The models are all accounts': its own account tells them. */
static bool has_subject(const struct provider_ops *ops, uint32_t account, enum subject subject)
{
    return subject == SUBJECT_MODELS ? account == 0 && ops->encode_models != NULL
                                     : ops->encode_balance != NULL;
}

static void ask_next(struct inquiry *i)
{
    const struct side_call_setup setup = {.config = i->config,
                                          .provider = i->provider,
                                          .ops = i->ops,
                                          .request_id = REQUEST_ID,
                                          .timeout_ms = CALL_MS,
                                          .encode = encode,
                                          .on_end = on_end,
                                          .arg = i};

    for (; i->subject < SUBJECT_END; i->subject++) {
        struct error e = {0};

        if (!has_subject(i->ops, i->account, i->subject))
            continue;
        if (side_call_start(i->owner->setup.engine, &setup, &i->call, &e) == 0)
            return;
        note_failure(i, &e);
    }
    finish(i);
}

/* The turn is ours. */
static void begin(struct inquirer *q, const struct provider_config *provider,
                  const struct provider_ops *ops, size_t index, uint32_t account)
{
    const struct queue_place place = queue_place_of(provider, (int)index);
    struct inquiry *i = calloc(1, sizeof(*i));

    if (i == NULL)
        return; /* another turn comes when this one's time is over */
    if (queue_try_account(q->setup.engine->queues, &i->ticket, &place, account) < 0) {
        facts_plan(q->setup.facts, index, account, clock_monotonic_ms() + BUSY_MS);
        free(i);
        return;
    }
    i->owner = q;
    i->config = config_ref(*q->setup.config);
    i->provider = provider_by_account(provider, account);
    i->ops = ops;
    i->index = index;
    i->account = account;
    i->next = q->first;
    q->first = i;
    ask_next(i);
}

static void look_at(struct inquirer *q, const struct provider_config *provider)
{
    int index = counters_find_provider(q->setup.engine->region, provider->name);
    const struct provider_ops *ops = provider_ops_find(provider->type);

    if (provider->facts_ms == 0 || ops == NULL || index < 0 ||
        targets_switch(q->setup.targets, (size_t)index) != PROVIDER_ENABLED)
        return;
    for (uint32_t account = 0; account <= provider->account_count; account++)
        if ((has_subject(ops, account, SUBJECT_BALANCE) ||
             has_subject(ops, account, SUBJECT_MODELS)) &&
            facts_take(q->setup.facts, (size_t)index, account, clock_monotonic_ms(), LEASE_MS))
            begin(q, provider, ops, (size_t)index, account);
}

static void on_tick(struct timer *t)
{
    struct inquirer *q = container_of(t, struct inquirer, tick);
    const struct config *config = *q->setup.config;

    for (size_t i = 0; i < config->provider_count; i++)
        look_at(q, &config->providers[i]);
    (void)loop_timer_set(q->setup.engine->loop, t, TICK_MS); /* the heap has held it before */
}

int inquirer_new(const struct inquirer_setup *setup, struct inquirer **out)
{
    struct inquirer *q = calloc(1, sizeof(*q));
    int rc;

    *out = NULL;
    if (q == NULL)
        return -ENOMEM;
    q->setup = *setup;
    q->tick.on_timer = on_tick;
    rc = loop_timer_set(setup->engine->loop, &q->tick, 0);
    if (rc < 0)
        free(q);
    else
        *out = q;
    return rc;
}

void inquirer_free(struct inquirer *q)
{
    struct inquiry *next;

    if (q == NULL)
        return;
    loop_timer_cancel(q->setup.engine->loop, &q->tick);
    for (struct inquiry *i = q->first; i != NULL; i = next) {
        next = i->next;
        facts_plan(q->setup.facts, i->index, i->account, 0); /* another worker may begin at once */
        inquiry_free(i);
    }
    free(q);
}
