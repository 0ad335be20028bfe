#include "usage/control_ops.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/error.h"
#include "common/frame.h"
#include "common/json.h"
#include "usage/generation.h"
#include "usage/key_summary.h"
#include "usage/provider_report.h"
#include "usage/report.h"
#include "usage/report_query.h"

#define REPORT_STEP 250 /* sums read between two looks at the clock */
#define REPORT_SLICE_US 2000

static void free_report(void *report)
{
    report_free(report);
}

/* A slice by the clock: the same sums take a hundred times as long when they come from the disk. */
static int read_report(struct report *report, struct ledger *ledger)
{
    int64_t until_us = clock_monotonic_us() + REPORT_SLICE_US;
    int rc;

    do {
        rc = report_step(report, ledger, REPORT_STEP);
    } while (rc == 1 && clock_monotonic_us() < until_us);
    return rc;
}

static void step_report(struct control_task *task, const struct control_context *context,
                        int64_t now_at_ms, struct buf *out)
{
    struct ledger *ledger = context->keystore->ledger;
    struct buf json;
    int rc = read_report(task->state, ledger);

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

/* The key that the request names; false after control_fail(). */
static bool find_key(struct control_request *r, const char *name, struct key_record *out)
{
    int rc = keystore_find(r->context->keystore, name, out);

    if (rc < 0)
        control_fail_errno(r->out, rc);
    return rc == 0;
}

static void begin_report(struct control_request *r, const struct report_query *query,
                         void (*step)(struct control_task *task,
                                      const struct control_context *context, int64_t now_at_ms,
                                      struct buf *out))
{
    r->task->state = report_new(query);
    if (r->task->state == NULL) {
        control_fail_errno(r->out, -ENOMEM);
        return;
    }
    r->task->free_state = free_report;
    r->task->step = step;
}

/* 0, or -EINVAL after control_fail(). */
static int decode_query(struct control_request *r, struct report_query *query)
{
    static const char *const names[] = {"since", "until", "by", "model"};
    const struct model_config *model;
    const char *values[4] = {NULL};
    struct report_words words = {0};
    struct error e = {0};
    char message[sizeof(e.param) + sizeof(e.message)];

    for (size_t i = 0; i < 4; i++) {
        if (control_get_text(r->json, names[i], &values[i]) == 0)
            continue;
        snprintf(message, sizeof(message), "%s: must be text", names[i]);
        control_fail(r->out, "invalid_request", message);
        return -EINVAL;
    }
    words.since = values[0];
    words.until = values[1];
    words.by = values[2];
    words.model = values[3];
    if (report_query_decode(&words, r->now_at_ms, query, &e) < 0) {
        control_fail(r->out, "invalid_request", e.message);
        return -EINVAL;
    }
    /* A model that the config has no longer still has its usage. */
    model = config_model(r->context->keystore->config, query->model, strlen(query->model));
    if (model != NULL)
        usage_name_set(query->model, model->id);
    return 0;
}

/* {"since","until","by","model","key"}: all may be absent or null. */
static void usage(struct control_request *r)
{
    struct report_query query;
    struct key_record record;
    const char *key;

    if (decode_query(r, &query) < 0)
        return;
    if (control_get_text(r->json, "key", &key) < 0) {
        control_fail(r->out, "invalid_request", "key: must be a key's name or id");
        return;
    }
    if (key != NULL) {
        if (!find_key(r, key, &record))
            return;
        query.key_id = record.id;
    }
    begin_report(r, &query, step_report);
}

static void step_summary(struct control_task *task, const struct control_context *context,
                         int64_t now_at_ms, struct buf *out)
{
    const struct keystore *ks = context->keystore;
    struct key_record record;
    char id[KEY_ID_TEXT_BYTES];
    struct buf json;
    int rc = read_report(task->state, ks->ledger);

    if (rc == 1)
        return;
    control_json_init(&json);
    if (rc == 0) {
        key_id_format(report_key_id(task->state), id);
        rc = keystore_find(ks, id, &record);
    }
    if (rc == 0) {
        buf_str(&json, "{\"done\":true,\"summary\":");
        rc = key_summary_encode(ks, &record, report_total(task->state), now_at_ms, &json);
    }
    if (rc == 0) {
        buf_byte(&json, '}');
        control_put_frame(out, &json);
    } else {
        buf_clear(&json);
        control_fail_errno(out, rc);
    }
    control_task_clear(task);
}

/* {"key"}: what its owner may know. */
static void key_summary(struct control_request *r)
{
    /* By model, because that makes the fewest rows: only their total is wanted. */
    struct report_query query = {.until_at_ms = INT64_MAX, .by = REPORT_BY_MODEL};
    struct key_record record;
    const char *key = control_wanted_key(r);

    if (key == NULL || !find_key(r, key, &record))
        return;
    query.key_id = record.id;
    begin_report(r, &query, step_summary);
}

/* {"id","key"}: a request of that key. */
static void generation(struct control_request *r)
{
    const char *name = json_string(r->json, "id");
    const char *key = control_wanted_key(r);
    struct usage_id id;
    uint64_t key_id;
    struct buf json;
    int rc;

    if (key == NULL)
        return;
    if (name == NULL || generation_name_parse(name, &id) < 0 || key_id_parse(key, &key_id) < 0) {
        control_fail(r->out, "invalid_request", "id and key: must be a request's and a key's id");
        return;
    }
    control_json_init(&json);
    buf_str(&json, "{\"done\":true,\"generation\":");
    rc = generation_encode(r->context->keystore->ledger, &id, key_id, name, &json);
    buf_byte(&json, '}');
    if (rc == 0) {
        control_put_frame(r->out, &json);
        return;
    }
    buf_clear(&json);
    if (rc == -ENOENT)
        control_fail(r->out, "not_found", "there is no such request of this key");
    else
        control_fail_errno(r->out, rc);
}

/* {}: what the providers' last requests say about them. */
static void provider_status(struct control_request *r)
{
    struct buf json;
    int rc;

    control_json_init(&json);
    buf_str(&json, "{\"done\":true,\"providers\":");
    rc = provider_report_encode(r->context->keystore->ledger, &json);
    buf_byte(&json, '}');
    if (rc == 0) {
        control_put_frame(r->out, &json);
        return;
    }
    buf_clear(&json);
    control_fail_errno(r->out, rc);
}

const struct control_op CONTROL_USAGE_OPS[] = {
    {"usage", usage},
    {"key.summary", key_summary},
    {"generation", generation},
    {"provider.status", provider_status},
    {NULL, NULL},
};
