#include "router/provider_count.h"

#include <errno.h>
#include <stdlib.h>

#include "router/side_call.h"

#define TIMEOUT_MS 5000

struct provider_count {
    struct dispatcher *dispatcher;
    struct provider_count_setup setup;
    const struct provider_ops *ops;
    const struct route_candidate *candidate;
    struct queue_ticket ticket;
    struct side_call *call;
};

static int encode(void *arg, const struct upstream_call *call, struct upstream_request *out,
                  struct error *e)
{
    struct provider_count *c = arg;

    return c->ops->encode_count(c->candidate->provider, c->candidate->config->model, c->setup.input,
                                call, out, e);
}

static size_t count_texts(const cJSON *input)
{
    return cJSON_IsArray(input) ? (size_t)cJSON_GetArraySize(input) : 1;
}

static void on_end(void *arg, int rc, const struct buf *body, const struct error *e)
{
    struct provider_count *c = arg;
    struct error failure = {0};
    int64_t tokens = 0;

    if (rc == 0)
        rc = c->ops->decode_count(body->data, body->len, count_texts(c->setup.input), &tokens,
                                  &failure);
    queue_leave(c->dispatcher->engine->queues, &c->ticket);
    c->setup.on_end(c->setup.arg, rc, tokens);
}

/* Whether the candidate may be asked now; if so a slot is held. */
static bool take(struct provider_count *c, const struct route_candidate *candidate)
{
    const struct dispatcher *d = c->dispatcher;
    int provider = counters_find_provider(d->engine->region, candidate->provider->name);
    int target = targets_find(d->targets, candidate->provider->name, candidate->config->model);
    struct queue_place place;
    int64_t wait_ms;

    c->candidate = candidate;
    c->ops = provider_ops_find(candidate->provider->type);
    if (c->ops == NULL || c->ops->encode_count == NULL ||
        targets_bar(d->targets, provider, target < 0 ? NULL : target_at(d->targets, (size_t)target),
                    c->setup.config, loop_now_ms(d->engine->loop), &wait_ms) != TARGET_FREE)
        return false;
    place = queue_place_of(candidate->provider, provider);
    return queue_enter(d->engine->queues, &c->ticket, &place, c->setup.key_id, 0, 0) == 0;
}

static int ask(struct provider_count *c)
{
    const struct side_call_setup setup = {
        .config = c->setup.config,
        .provider = provider_by_account(c->candidate->provider, c->ticket.account),
        .ops = c->ops,
        .request_id = c->setup.request_id,
        .timeout_ms = TIMEOUT_MS,
        .encode = encode,
        .on_end = on_end,
        .arg = c};
    struct error e = {0};

    return side_call_start(c->dispatcher->engine, &setup, &c->call, &e);
}

int provider_count_start(struct dispatcher *dispatcher, const struct provider_count_setup *setup,
                         struct provider_count **out)
{
    struct provider_count *c = calloc(1, sizeof(*c));
    int rc = XR_ENOPROVIDER;

    *out = NULL;
    if (c == NULL)
        return -ENOMEM;
    c->dispatcher = dispatcher;
    c->setup = *setup;
    for (size_t i = 0; i < setup->route->candidate_count && rc == XR_ENOPROVIDER; i++)
        if (take(c, &setup->route->candidates[i]))
            rc = ask(c);
    if (rc == 0)
        *out = c;
    else
        provider_count_free(c);
    return rc;
}

void provider_count_free(struct provider_count *c)
{
    if (c == NULL)
        return;
    side_call_free(c->call);
    queue_leave(c->dispatcher->engine->queues, &c->ticket);
    free(c);
}
