#include "gateway/orders.h"

#include <errno.h>
#include <string.h>

#include "common/json.h"
#include "common/log.h"
#include "gateway/master.h"
#include "gateway/reload.h"
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

static const struct order {
    const char *op;
    const char *(*carry_out)(struct master *m, const cJSON *request, struct buf *result,
                             struct buf *message);
} orders[] = {
    {"reload", order_reload},       {"drain", order_drain}, {"stop", order_stop},
    {"log-level", order_log_level}, {"kill", order_kill},
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
