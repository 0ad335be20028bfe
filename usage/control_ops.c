#include "usage/control_ops.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/frame.h"
#include "common/json.h"
#include "common/log.h"

#define LIST_PAGE 200
#define REPORT_SLICE 2000 /* hourly sums, about 2 ms */
#define HOUR_MS INT64_C(3600000)
#define DAY_MS (24 * HOUR_MS)
#define REPORT_DEFAULT_MS (30 * DAY_MS)

struct request {
    const struct keystore *ks;
    const cJSON *json;
    int64_t now_at_ms;
    struct control_task *task;
    struct buf *out;
};

static void put_frame(struct buf *out, struct buf *json)
{
    if (json->err == 0)
        frame_put(out, json->data, json->len);
    else
        out->err = json->err; /* the connection ends: half an answer must not look like one */
    buf_clear(json);
}

static void json_init(struct buf *json)
{
    buf_init_secret(json, FRAME_MAX);
}

static void fail(struct buf *out, const char *code, const char *message)
{
    struct buf json;

    json_init(&json);
    buf_str(&json, "{\"done\":true,\"error\":{");
    json_put_field_text(&json, "code", code);
    json_put_field_text(&json, "message", message);
    buf_str(&json, "}}");
    put_frame(out, &json);
}

/* The failures any request may meet. */
static void fail_errno(struct buf *out, int rc)
{
    char message[128];

    switch (rc) {
    case -ENOENT:
        fail(out, "key_not_found", "there is no such key");
        return;
    case -EEXIST:
        fail(out, "key_exists", "an active key has this name already");
        return;
    case -EUSERS:
        fail(out, "capacity_reached",
             "the key table is full: raise limits.keys in the config and restart");
        return;
    case -E2BIG:
    case -EMSGSIZE:
        fail(out, "too_many_rows", "the report has too many rows: choose a later since");
        return;
    default:
        snprintf(message, sizeof(message), "the ledger cannot be used right now: %s",
                 strerror(-rc));
        fail(out, "ledger_unavailable", message);
        return;
    }
}

static void put_key(struct buf *out, const struct key_record *record, const char *text,
                    int64_t now_at_ms)
{
    struct buf json;

    json_init(&json);
    buf_str(&json, "{\"done\":true,\"key\":");
    key_record_encode(record, text, now_at_ms, &json);
    buf_byte(&json, '}');
    put_frame(out, &json);
}

/* {"name","models":[],"tier","expires_at","limits":{"rpm","rpd","tpm","tpd","parallel"}}: all may
 * be absent or null. */
static void key_create(struct request *r)
{
    struct key_record record;
    char text[KEY_TEXT_BYTES];
    char why[KEY_WHY_BYTES];
    int rc = key_record_decode(r->json, r->ks->config, &record, why);

    if (rc < 0) {
        fail(r->out, "invalid_request", why);
        return;
    }
    rc = keystore_create(r->ks, r->now_at_ms, &record, text);
    if (rc < 0) {
        fail_errno(r->out, rc);
        return;
    }
    log_event(LOG_INFO, "key_created", "", "key_%016llx", (unsigned long long)record.id);
    put_key(r->out, &record, text, r->now_at_ms);
    explicit_bzero(text, sizeof(text));
}

static void key_list(struct request *r)
{
    r->task->kind = TASK_LIST;
    r->task->after = 0;
}

/* {"key": name or id} */
static const char *wanted_key(struct request *r)
{
    const char *key = json_string(r->json, "key");

    if (key == NULL)
        fail(r->out, "invalid_request", "key: must be a key's name or id");
    return key;
}

static void key_show(struct request *r)
{
    struct key_record record;
    const char *key = wanted_key(r);
    int rc;

    if (key == NULL)
        return;
    rc = keystore_find(r->ks, key, &record);
    if (rc < 0)
        fail_errno(r->out, rc);
    else
        put_key(r->out, &record, NULL, r->now_at_ms);
}

static void key_revoke(struct request *r)
{
    struct key_record record;
    const char *key = wanted_key(r);
    int rc;

    if (key == NULL)
        return;
    rc = keystore_revoke(r->ks, key, r->now_at_ms, &record);
    if (rc < 0) {
        fail_errno(r->out, rc);
        return;
    }
    log_event(LOG_INFO, "key_revoked", "", "key_%016llx", (unsigned long long)record.id);
    put_key(r->out, &record, NULL, r->now_at_ms);
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

/* An optional member that must be a string: 0 with NULL if it is absent or null. */
static int get_text(const cJSON *object, const char *name, const char **out)
{
    const cJSON *item = json_get(object, name);

    *out = json_string(object, name);
    return item == NULL || cJSON_IsNull(item) || *out != NULL ? 0 : -EINVAL;
}

/* 0, or -EINVAL with the reason. */
static int decode_range(struct request *r, struct report_query *query, const char **why)
{
    const char *since, *until, *by;

    *why = "since and until: must be a date like 2026-02-01 or 2026-02-01T10:00:00Z, or how long "
           "ago like 36h, 7d, 4w";
    query->since_at_ms = r->now_at_ms > REPORT_DEFAULT_MS ? r->now_at_ms - REPORT_DEFAULT_MS : 0;
    query->until_at_ms = r->now_at_ms;
    query->by = REPORT_BY_DAY;
    if (get_text(r->json, "since", &since) < 0 || get_text(r->json, "until", &until) < 0)
        return -EINVAL;
    if (since != NULL && parse_since(since, r->now_at_ms, &query->since_at_ms) < 0)
        return -EINVAL;
    if (until != NULL && parse_since(until, r->now_at_ms, &query->until_at_ms) < 0)
        return -EINVAL;
    *why = "by: must be hour, day, model or key";
    if (get_text(r->json, "by", &by) < 0)
        return -EINVAL;
    return by != NULL ? report_by_parse(by, &query->by) : 0;
}

static int decode_model(struct request *r, struct report_query *query, const char **why)
{
    const struct model_config *model;
    const char *name;

    *why = "model: must be a model's name";
    if (get_text(r->json, "model", &name) < 0)
        return -EINVAL;
    if (name == NULL)
        return 0;
    /* A model that the config has no longer still has its usage. */
    model = config_model(r->ks->config, name, strlen(name));
    if (model != NULL)
        name = model->id;
    if (name[0] == '\0' || strlen(name) >= sizeof(query->model))
        return -EINVAL;
    memcpy(query->model, name, strlen(name) + 1);
    return 0;
}

/* {"since","until","by","model","key"}: all may be absent or null. */
static void usage(struct request *r)
{
    struct report_query query = {0};
    const char *key, *why;
    int rc;

    if (decode_range(r, &query, &why) < 0 || decode_model(r, &query, &why) < 0) {
        fail(r->out, "invalid_request", why);
        return;
    }
    if (get_text(r->json, "key", &key) < 0) {
        fail(r->out, "invalid_request", "key: must be a key's name or id");
        return;
    }
    if (key != NULL) {
        struct key_record record;

        rc = keystore_find(r->ks, key, &record);
        if (rc < 0) {
            fail_errno(r->out, rc);
            return;
        }
        query.key_id = record.id;
    }
    r->task->report = report_new(&query);
    if (r->task->report == NULL)
        fail_errno(r->out, -ENOMEM);
    else
        r->task->kind = TASK_REPORT;
}

static const struct op {
    const char *name;
    void (*run)(struct request *r);
} OPS[] = {
    {"key.create", key_create}, {"key.list", key_list}, {"key.show", key_show},
    {"key.revoke", key_revoke}, {"usage", usage},
};

void control_ops_start(const struct keystore *ks, const char *json, size_t len, int64_t now_at_ms,
                       struct control_task *task, struct buf *out)
{
    cJSON *root = json_parse(json, len, &JSON_LIMITS_DEFAULT, NULL, NULL);
    const char *name = json_string(root, "op");
    struct request r = {.ks = ks, .json = root, .now_at_ms = now_at_ms, .task = task, .out = out};

    if (!cJSON_IsObject(root) || name == NULL) {
        fail(out, "invalid_request", "a request is a JSON object with an \"op\"");
        cJSON_Delete(root);
        return;
    }
    for (size_t i = 0; i < sizeof(OPS) / sizeof(OPS[0]); i++) {
        if (strcmp(OPS[i].name, name) == 0) {
            OPS[i].run(&r);
            cJSON_Delete(root);
            return;
        }
    }
    fail(out, "unknown_op", "the usage-writer does not know this request");
    cJSON_Delete(root);
}

static void step_list(const struct keystore *ks, int64_t now_at_ms, struct control_task *task,
                      struct buf *out)
{
    struct buf json;
    int n;

    json_init(&json);
    buf_str(&json, "{\"keys\":[");
    n = keystore_list(ks, &task->after, LIST_PAGE, now_at_ms, &json);
    buf_str(&json, "]}");
    if (n < 0) {
        buf_clear(&json);
        fail_errno(out, n);
        control_task_clear(task);
        return;
    }
    put_frame(out, &json);
    if (n == LIST_PAGE)
        return;
    json_init(&json);
    buf_str(&json, "{\"done\":true}");
    put_frame(out, &json);
    control_task_clear(task);
}

static void step_report(const struct keystore *ks, struct control_task *task, struct buf *out)
{
    struct buf json;
    int rc = report_step(task->report, ks->ledger, REPORT_SLICE);

    if (rc == 1)
        return;
    json_init(&json);
    if (rc == 0) {
        buf_str(&json, "{\"done\":true,\"usage\":");
        rc = report_encode(task->report, ks->ledger, &json);
        if (rc == 0)
            rc = buf_byte(&json, '}');
    }
    if (rc == 0) {
        put_frame(out, &json);
    } else {
        buf_clear(&json);
        fail_errno(out, rc);
    }
    control_task_clear(task);
}

void control_ops_step(const struct keystore *ks, int64_t now_at_ms, struct control_task *task,
                      struct buf *out)
{
    switch (task->kind) {
    case TASK_NONE:
        return;
    case TASK_LIST:
        step_list(ks, now_at_ms, task, out);
        return;
    case TASK_REPORT:
        step_report(ks, task, out);
        return;
    }
}

void control_task_clear(struct control_task *task)
{
    report_free(task->report);
    memset(task, 0, sizeof(*task));
}
