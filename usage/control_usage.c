#include "usage/control_ops.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/frame.h"
#include "common/json.h"
#include "usage/report.h"

#define REPORT_SLICE 2000 /* hourly sums, about 2 ms */
#define HOUR_MS INT64_C(3600000)
#define DAY_MS (24 * HOUR_MS)
#define REPORT_DEFAULT_MS (30 * DAY_MS)

static void free_report(void *report)
{
    report_free(report);
}

static void step_report(struct control_task *task, const struct control_context *context,
                        int64_t now_at_ms, struct buf *out)
{
    struct ledger *ledger = context->keystore->ledger;
    struct buf json;
    int rc = report_step(task->state, ledger, REPORT_SLICE);

    if (rc == 1)
        return;
    control_json_init(&json);
    if (rc == 0) {
        buf_str(&json, "{\"done\":true,\"usage\":");
        rc = report_encode(task->state, ledger, &json);
        if (rc == 0)
            rc = buf_byte(&json, '}');
    }
    if (rc == 0) {
        control_put_frame(out, &json);
    } else {
        buf_clear(&json);
        control_fail_errno(out, rc);
    }
    control_task_clear(task);
}

/* A moment, or how long ago: "2026-02-01", "2026-02-01T10:00:00Z", "36h", "7d", "4w". */
static int parse_since(const char *text, int64_t now_at_ms, int64_t *at_ms)
{
    char *end;
    int64_t count, unit_ms;

    if (clock_parse(text, at_ms) == 0)
        return *at_ms >= 0 ? 0 : -EINVAL;
    if (text[0] < '0' || text[0] > '9')
        return -EINVAL;
    errno = 0;
    count = strtoll(text, &end, 10);
    if (errno != 0 || end[0] == '\0' || end[1] != '\0')
        return -EINVAL;
    switch (end[0]) {
    case 'h':
        unit_ms = HOUR_MS;
        break;
    case 'd':
        unit_ms = DAY_MS;
        break;
    case 'w':
        unit_ms = 7 * DAY_MS;
        break;
    default:
        return -EINVAL;
    }
    if (__builtin_mul_overflow(count, unit_ms, &count) || count > now_at_ms)
        return -EINVAL;
    *at_ms = now_at_ms - count;
    return 0;
}

/* 0, or -EINVAL with the reason. */
static int decode_range(struct control_request *r, struct report_query *query, const char **why)
{
    const char *since, *until, *by;

    *why = "since and until: must be a date like 2026-02-01 or 2026-02-01T10:00:00Z, or how long "
           "ago like 36h, 7d, 4w";
    query->since_at_ms = r->now_at_ms > REPORT_DEFAULT_MS ? r->now_at_ms - REPORT_DEFAULT_MS : 0;
    query->until_at_ms = r->now_at_ms;
    query->by = REPORT_BY_DAY;
    if (control_get_text(r->json, "since", &since) < 0 ||
        control_get_text(r->json, "until", &until) < 0)
        return -EINVAL;
    if (since != NULL && parse_since(since, r->now_at_ms, &query->since_at_ms) < 0)
        return -EINVAL;
    if (until != NULL && parse_since(until, r->now_at_ms, &query->until_at_ms) < 0)
        return -EINVAL;
    *why = "by: must be hour, day, model or key";
    if (control_get_text(r->json, "by", &by) < 0)
        return -EINVAL;
    return by != NULL ? report_by_parse(by, &query->by) : 0;
}

static int decode_model(struct control_request *r, struct report_query *query, const char **why)
{
    const struct model_config *model;
    const char *name;

    *why = "model: must be a model's name";
    if (control_get_text(r->json, "model", &name) < 0)
        return -EINVAL;
    if (name == NULL)
        return 0;
    /* A model that the config has no longer still has its usage. */
    model = config_model(r->context->keystore->config, name, strlen(name));
    if (model != NULL)
        name = model->id;
    if (name[0] == '\0' || strlen(name) >= sizeof(query->model))
        return -EINVAL;
    memcpy(query->model, name, strlen(name) + 1);
    return 0;
}

/* {"since","until","by","model","key"}: all may be absent or null. */
static void usage(struct control_request *r)
{
    struct report_query query = {0};
    const char *key, *why;
    int rc;

    if (decode_range(r, &query, &why) < 0 || decode_model(r, &query, &why) < 0) {
        control_fail(r->out, "invalid_request", why);
        return;
    }
    if (control_get_text(r->json, "key", &key) < 0) {
        control_fail(r->out, "invalid_request", "key: must be a key's name or id");
        return;
    }
    if (key != NULL) {
        struct key_record record;

        rc = keystore_find(r->context->keystore, key, &record);
        if (rc < 0) {
            control_fail_errno(r->out, rc);
            return;
        }
        query.key_id = record.id;
    }
    r->task->state = report_new(&query);
    if (r->task->state == NULL) {
        control_fail_errno(r->out, -ENOMEM);
        return;
    }
    r->task->free_state = free_report;
    r->task->step = step_report;
}

const struct control_op CONTROL_USAGE_OPS[] = {{"usage", usage}, {NULL, NULL}};
