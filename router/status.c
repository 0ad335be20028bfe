#include "router/status.h"

#include <errno.h>
#include <string.h>

#include "common/clock.h"
#include "common/json.h"
#include "router/facts_view.h"
#include "router/queue.h"
#include "router/targets.h"

const char *const PROVIDER_SWITCH_NAMES[] = {"enabled", "disabled", "draining"};

/* What is shown of a target at this moment. */
struct target_view {
    const struct target *target;
    enum breaker_state breaker;
    uint64_t opened_total;
    uint64_t first_byte_us;
    int64_t closed_ms; /* the provider's Retry-After, what is left of it */
};

static struct target_view look(const struct target *t, int64_t now_ms)
{
    int64_t closed_ms = atomic_load_explicit(&t->closed_until_ms, memory_order_relaxed) - now_ms;

    return (struct target_view){
        .target = t,
        .breaker = breaker_state_seen(&t->breaker),
        .opened_total = atomic_load_explicit(&t->breaker.opened_total, memory_order_relaxed),
        .first_byte_us = atomic_load_explicit(&t->first_byte_us, memory_order_relaxed),
        .closed_ms = closed_ms > 0 ? closed_ms : 0};
}

static void put_target_state(struct buf *out, const struct target_view *v)
{
    json_put_field_text(out, "breaker", BREAKER_STATE_NAMES[v->breaker]);
    json_put_field_u64(out, "breaker_opened_total", v->opened_total);
    json_put_field_u64(out, "first_byte_ms", (v->first_byte_us + 500) / 1000);
    json_put_field_i64(out, "left_alone_ms", v->closed_ms);
}

static void put_target(struct buf *out, const struct target_view *v)
{
    buf_byte(out, '{');
    json_put_field_text(out, "provider", v->target->provider);
    json_put_field_text(out, "model", v->target->model);
    put_target_state(out, v);
    buf_byte(out, '}');
}

static void put_queue(struct buf *out, struct targets_region *targets,
                      const struct queue_region *queue, size_t provider, const char *name)
{
    uint32_t taken, waiting;

    queue_look(queue, provider, &taken, &waiting);
    buf_byte(out, '{');
    json_put_field_text(out, "provider", name);
    json_put_field_text(out, "switch", PROVIDER_SWITCH_NAMES[targets_switch(targets, provider)]);
    json_put_field_u64(out, "slots_taken", taken);
    json_put_field_u64(out, "waiting", waiting);
    buf_byte(out, '}');
}

int status_render_json(const struct shm *shm, const struct counters_region *names, struct buf *out)
{
    struct targets_region *targets = targets_region_get(shm);
    const struct queue_region *queue = queue_region_get(shm);
    int64_t now_ms = clock_monotonic_ms();
    const struct target *t;
    const char *name;

    if (targets == NULL || queue == NULL)
        return out->err;
    json_put_key(out, "queues");
    buf_byte(out, '[');
    for (size_t i = 0; (name = counters_provider_name(names, i)) != NULL; i++) {
        buf_str(out, i == 0 ? "" : ",");
        put_queue(out, targets, queue, i, name);
    }
    buf_byte(out, ']');
    json_put_key(out, "targets");
    buf_byte(out, '[');
    for (size_t i = 0; (t = target_at(targets, i)) != NULL; i++) {
        const struct target_view view = look(t, now_ms);

        buf_str(out, i == 0 ? "" : ",");
        put_target(out, &view);
    }
    buf_byte(out, ']');
    return out->err;
}

/* ---- provider list ---- */

static const struct provider_config *find_provider(const struct config *config, const char *name)
{
    for (size_t i = 0; i < config->provider_count; i++)
        if (strcmp(config->providers[i].name, name) == 0)
            return &config->providers[i];
    return NULL;
}

static void put_models(struct buf *out, struct targets_region *targets, const char *provider,
                       const struct facts_models *offered)
{
    int64_t now_ms = clock_monotonic_ms();
    const struct target *t;
    bool is_first = true;

    json_put_key(out, "models");
    buf_byte(out, '[');
    for (size_t i = 0; (t = target_at(targets, i)) != NULL; i++) {
        struct target_view view;

        if (strcmp(t->provider, provider) != 0)
            continue;
        view = look(t, now_ms);
        buf_str(out, is_first ? "" : ",");
        is_first = false;
        buf_byte(out, '{');
        json_put_field_text(out, "model", t->model);
        facts_put_offered(offered, t->model, out);
        put_target_state(out, &view);
        buf_byte(out, '}');
    }
    buf_byte(out, ']');
}

/* What the list reads, all of one instance. */
struct provider_sources {
    struct targets_region *targets;
    const struct queue_region *queue;
    const struct facts_region *facts; /* NULL: none */
    const struct counters_region *names;
    const struct config *config;
};

static void put_provider(struct buf *out, const struct provider_sources *from, size_t provider)
{
    const char *name = counters_provider_name(from->names, provider);
    const struct provider_config *configured = find_provider(from->config, name);
    enum provider_switch position = targets_switch(from->targets, provider);
    struct provider_counters counters;
    struct facts_models offered = {0};
    uint32_t taken, waiting;
    bool is_idle;

    queue_look(from->queue, provider, &taken, &waiting);
    counters_sum_provider(from->names, provider, &counters);
    if (from->facts != NULL)
        facts_load_models(from->facts, provider, &offered);
    is_idle = taken == 0 && waiting == 0 && counters.in_flight == 0;
    buf_byte(out, '{');
    json_put_field_text(out, "name", name);
    json_put_field_bool(out, "configured", configured != NULL);
    json_put_field_text(out, "switch",
                        position == PROVIDER_DRAINING && is_idle ? "drained"
                                                                 : PROVIDER_SWITCH_NAMES[position]);
    json_put_field_u64(out, "slots_taken", taken);
    if (configured != NULL && configured->max_concurrent < QUEUE_SLOTS_MAX)
        json_put_field_u64(out, "slots",
                           configured->max_concurrent * (configured->account_count + 1));
    else
        json_put_field_text(out, "slots", NULL);
    json_put_field_u64(out, "accounts", configured != NULL ? configured->account_count + 1 : 0);
    json_put_field_u64(out, "accounts_resting", queue_resting(from->queue, provider));
    json_put_field_u64(out, "waiting", waiting);
    json_put_field_u64(out, "in_flight", counters.in_flight);
    facts_put_provider(from->facts, provider, out);
    put_models(out, from->targets, name, &offered);
    buf_byte(out, '}');
}

int status_render_providers(const struct shm *shm, const struct counters_region *names,
                            const struct config *config, struct buf *out)
{
    const struct provider_sources from = {.targets = targets_region_get(shm),
                                          .queue = queue_region_get(shm),
                                          .facts = facts_region_get(shm),
                                          .names = names,
                                          .config = config};

    if (from.targets == NULL || from.queue == NULL)
        return -EPROTO;
    buf_byte(out, '[');
    for (size_t i = 0; counters_provider_name(names, i) != NULL; i++) {
        buf_str(out, i == 0 ? "" : ",");
        put_provider(out, &from, i);
    }
    buf_byte(out, ']');
    return out->err;
}

/* ---- Prometheus ---- */

struct target_gauge {
    const char *name, *type, *help;
    uint64_t (*read)(const struct target_view *v);
};

static uint64_t read_breaker(const struct target_view *v)
{
    return (uint64_t)v->breaker;
}

static uint64_t read_opened(const struct target_view *v)
{
    return v->opened_total;
}

static uint64_t read_left_alone(const struct target_view *v)
{
    return v->closed_ms > 0;
}

static const struct target_gauge TARGET_GAUGES[] = {
    {"target_breaker_state", "gauge",
     "The circuit breaker of a provider's model: 0 closed, 1 open, 2 half open", read_breaker},
    {"target_breaker_opened_total", "counter", "How often that breaker has opened", read_opened},
    {"target_left_alone", "gauge", "1 while the provider's Retry-After lasts", read_left_alone},
};

struct queue_view {
    uint32_t taken, waiting, is_off;
};

struct queue_gauge {
    const char *name, *help;
    size_t offset;
};

static const struct queue_gauge QUEUE_GAUGES[] = {
    {"provider_slots_taken", "Requests that hold a slot of the provider's max_concurrent",
     offsetof(struct queue_view, taken)},
    {"provider_waiting", "Requests that wait for such a slot",
     offsetof(struct queue_view, waiting)},
    {"provider_switched_off", "1 while an operator has switched the provider off",
     offsetof(struct queue_view, is_off)},
};

static void put_head(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_printf(out, "# HELP xrouter_%s %s\n# TYPE xrouter_%s %s\n", name, help, name, type);
}

static void put_targets(struct buf *out, struct targets_region *targets,
                        const struct target_gauge *gauge)
{
    int64_t now_ms = clock_monotonic_ms();
    const struct target *t;

    put_head(out, gauge->name, gauge->type, gauge->help);
    for (size_t i = 0; (t = target_at(targets, i)) != NULL; i++) {
        const struct target_view view = look(t, now_ms);

        buf_printf(out, "xrouter_%s{provider=\"", gauge->name);
        counters_put_label(out, t->provider);
        buf_str(out, "\",model=\"");
        counters_put_label(out, t->model);
        buf_printf(out, "\"} %llu\n", (unsigned long long)gauge->read(&view));
    }
}

static void put_queues(struct buf *out, struct targets_region *targets,
                       const struct queue_region *queue, const struct counters_region *names,
                       const struct queue_gauge *gauge)
{
    const char *name;

    put_head(out, gauge->name, "gauge", gauge->help);
    for (size_t i = 0; (name = counters_provider_name(names, i)) != NULL; i++) {
        struct queue_view view = {.is_off = targets_switch(targets, i) != PROVIDER_ENABLED};

        queue_look(queue, i, &view.taken, &view.waiting);
        buf_printf(out, "xrouter_%s{provider=\"", gauge->name);
        counters_put_label(out, name);
        buf_printf(out, "\"} %u\n", *(const uint32_t *)((const char *)&view + gauge->offset));
    }
}

int status_render_prometheus(const struct shm *shm, const struct counters_region *names,
                             struct buf *out)
{
    struct targets_region *targets = targets_region_get(shm);
    const struct queue_region *queue = queue_region_get(shm);

    if (targets == NULL || queue == NULL)
        return out->err;
    for (size_t i = 0; i < sizeof(QUEUE_GAUGES) / sizeof(QUEUE_GAUGES[0]); i++)
        put_queues(out, targets, queue, names, &QUEUE_GAUGES[i]);
    for (size_t i = 0; i < sizeof(TARGET_GAUGES) / sizeof(TARGET_GAUGES[0]); i++)
        put_targets(out, targets, &TARGET_GAUGES[i]);
    facts_put_prometheus(facts_region_get(shm), names, out);
    return out->err;
}
