#include "gateway/orders.h"

#include <errno.h>
#include <string.h>

#include "common/json.h"
#include "common/log.h"
#include "common/nearest.h"
#include "gateway/master.h"
#include "gateway/reload.h"
#include "router/status.h"
#include "router/targets.h"
#include "usage/event.h"

#define TEXT_MAX 16384
#define ID_PREFIX "req_"

static const char *order_reload(struct master *m, const cJSON *request, struct buf *result,
                                struct buf *message)
{
    struct buf restart;
    int rc;

    buf_init(&restart, TEXT_MAX);
    rc = master_reload(m, &restart, message);
    if (rc == 0) {
        buf_byte(result, '{');
        json_put_field_u64(result, "generation", m->config->generation);
        json_put_field_text(result, "restart_needed", buf_text(&restart));
        buf_byte(result, '}');
    }
    buf_clear(&restart);
    return rc == 0 ? NULL : "config_invalid";
}

static const char *order_drain(struct master *m, const cJSON *request, struct buf *result,
                               struct buf *message)
{
    int64_t limit_ms = 0;
    int rc = json_get_i64(request, "timeout_ms", &limit_ms);

    if (rc == -EINVAL || limit_ms < 0) {
        buf_str(message, "timeout_ms must be a whole number of milliseconds");
        return "bad_request";
    }
    if (rc == 0 && m->stop < STOP_IN_TIME)
        m->drain_ms = limit_ms;
    master_order_stop(m, rc == 0 ? STOP_IN_TIME : STOP_UNHURRIED);
    buf_str(result, "{\"state\":\"draining\"}");
    return NULL;
}

static const char *order_stop(struct master *m, const cJSON *request, struct buf *result,
                              struct buf *message)
{
    master_order_stop(m, STOP_IN_TIME);
    buf_str(result, "{\"state\":\"draining\"}");
    return NULL;
}

static const char *order_log_level(struct master *m, const cJSON *request, struct buf *result,
                                   struct buf *message)
{
    const char *text = json_string(request, "level");
    enum log_level level;

    if (text == NULL || log_level_parse(text, &level) < 0) {
        buf_str(message, "level must be debug, info, warn or error");
        return "bad_request";
    }
    m->log_level = (int)level;
    log_set_level(level);
    children_tell_all(m->children, CONTROL_LOG_LEVEL, level, -1);
    buf_byte(result, '{');
    json_put_field_text(result, "level", log_level_name(level));
    buf_byte(result, '}');
    return NULL;
}

static bool is_running(struct inflight_row *row, const struct usage_id *id)
{
    /* A FINAL one has nothing left to stop. */
    return atomic_load_explicit(&row->state, memory_order_acquire) == INFLIGHT_RUNNING &&
           memcmp(&row->event.id, id, sizeof(*id)) == 0;
}

static struct inflight_row *find_row(struct master *m, const struct usage_id *id, size_t *slot)
{
    struct inflight_region *r = m->instance.inflight;

    for (*slot = 0; *slot < inflight_slot_count(r); ++*slot)
        for (size_t i = 0; i < inflight_row_count(r); i++) {
            struct inflight_row *row = inflight_row_at(r, *slot, i);

            if (is_running(row, id))
                return row;
        }
    return NULL;
}

static const char *order_kill(struct master *m, const cJSON *request, struct buf *result,
                              struct buf *message)
{
    const char *text = json_string(request, "id");
    struct inflight_row *row;
    struct usage_id id;
    size_t slot;

    if (text != NULL && strncmp(text, ID_PREFIX, strlen(ID_PREFIX)) == 0)
        text += strlen(ID_PREFIX);
    if (text == NULL || usage_id_parse(text, strlen(text), &id) < 0) {
        buf_str(message, "id must be " ID_PREFIX " and 32 hexadecimal digits");
        return "bad_request";
    }
    row = find_row(m, &id, &slot);
    if (row != NULL)
        atomic_store(&row->kill, 1);
    /* Should the row have become another request's meanwhile, take the mark off before anybody is
     * told to look; if it becomes so later, its worker clears the mark with the row. */
    if (row == NULL || !is_running(row, &id)) {
        if (row != NULL)
            atomic_store(&row->kill, 0);
        buf_str(message, "no such request is running");
        return "not_found";
    }
    children_tell_worker(m->children, slot, CONTROL_KILL);
    buf_printf(result, "{\"id\":\"" ID_PREFIX "%s\",\"worker\":%zu}", text, slot);
    return NULL;
}

static bool parse_switch(const char *text, enum provider_switch *out)
{
    static const enum provider_switch ALL[] = {PROVIDER_ENABLED, PROVIDER_DISABLED,
                                               PROVIDER_DRAINING};

    for (size_t i = 0; text != NULL && i < sizeof(ALL) / sizeof(ALL[0]); i++)
        if (strcmp(PROVIDER_SWITCH_NAMES[ALL[i]], text) == 0) {
            *out = ALL[i];
            return true;
        }
    return false;
}

/* Its index in the counters; -ENOENT with a message if the configuration has none of that name. */
static int find_provider(const struct master *m, const char *name, struct buf *message)
{
    struct nearest nearest;

    nearest_init(&nearest, name);
    for (size_t i = 0; i < m->config->provider_count; i++) {
        const char *known = m->config->providers[i].name;

        if (strcmp(known, name) == 0)
            return counters_find_provider(m->instance.counters, name);
        nearest_offer(&nearest, known, strlen(known));
    }
    buf_printf(message, "there is no provider \"%s\"", name);
    if (nearest.name[0] != '\0')
        buf_printf(message, "; did you mean \"%s\"?", nearest.name);
    return -ENOENT;
}

static const char *order_provider_switch(struct master *m, const cJSON *request, struct buf *result,
                                         struct buf *message)
{
    const char *name = json_string(request, "provider");
    struct provider_counters counters;
    enum provider_switch before, to;
    int provider;

    if (name == NULL || !parse_switch(json_string(request, "switch"), &to)) {
        buf_str(message, "an order needs a provider, and switch: enabled, disabled or draining");
        return "bad_request";
    }
    provider = find_provider(m, name, message);
    if (provider < 0)
        return "not_found";
    before = targets_switch(m->instance.targets, (size_t)provider);
    targets_set_switch(m->instance.targets, (size_t)provider, to);
    counters_sum_provider(m->instance.counters, (size_t)provider, &counters);
    log_event(LOG_INFO, "provider_switched", "", "provider %s is %s by order; it was %s", name,
              PROVIDER_SWITCH_NAMES[to], PROVIDER_SWITCH_NAMES[before]);
    buf_byte(result, '{');
    json_put_field_text(result, "provider", name);
    json_put_field_text(result, "switch", PROVIDER_SWITCH_NAMES[to]);
    json_put_field_u64(result, "in_flight", counters.in_flight);
    buf_byte(result, '}');
    return NULL;
}

static const struct order {
    const char *op;
    const char *(*carry_out)(struct master *m, const cJSON *request, struct buf *result,
                             struct buf *message);
} orders[] = {
    {"reload", order_reload}, {"drain", order_drain},
    {"stop", order_stop},     {"log-level", order_log_level},
    {"kill", order_kill},     {"provider.switch", order_provider_switch},
};

const char *orders_carry_out(void *arg, const cJSON *request, struct buf *result,
                             struct buf *message)
{
    const char *op = json_string(request, "op");

    for (size_t i = 0; i < sizeof(orders) / sizeof(orders[0]); i++)
        if (strcmp(orders[i].op, op) == 0)
            return orders[i].carry_out(arg, request, result, message);
    buf_str(message, "the master knows no such order");
    return "unknown_op";
}
