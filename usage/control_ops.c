#include "usage/control_ops.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/frame.h"
#include "common/json.h"

static const struct control_op *const GROUPS[] = {
    CONTROL_KEY_OPS, CONTROL_USAGE_OPS, CONTROL_ANSWER_OPS, CONTROL_CREDIT_OPS, CONTROL_LEDGER_OPS};

bool control_task_is_open(const struct control_task *task)
{
    return task->step != NULL;
}

void control_task_clear(struct control_task *task)
{
    if (task->free_state != NULL)
        task->free_state(task->state);
    else
        free(task->state);
    *task = (struct control_task){0};
}

void control_json_init(struct buf *json)
{
    buf_init_secret(json, FRAME_MAX);
}

void control_put_frame(struct buf *out, struct buf *json)
{
    if (json->err == 0)
        frame_put(out, json->data, json->len);
    else
        out->err = json->err;
    buf_clear(json);
}

void control_fail(struct buf *out, const char *code, const char *message)
{
    struct buf json;

    control_json_init(&json);
    buf_str(&json, "{\"done\":true,\"error\":{");
    json_put_field_text(&json, "code", code);
    json_put_field_text(&json, "message", message);
    buf_str(&json, "}}");
    control_put_frame(out, &json);
}

void control_fail_errno(struct buf *out, int rc)
{
    char message[128];

    switch (rc) {
    case -ENOENT:
        control_fail(out, "key_not_found", "there is no such key");
        return;
    case -EEXIST:
        control_fail(out, "key_exists", "an active key has this name already");
        return;
    case -EKEYREVOKED:
        control_fail(out, "key_revoked", "the key is revoked, for good");
        return;
    case -EUSERS:
        control_fail(out, "capacity_reached",
                     "the key table is full: raise limits.keys in the config and restart");
        return;
    case -E2BIG:
    case -EMSGSIZE:
        control_fail(out, "too_many_rows", "the report has too many rows: choose a later since");
        return;
    default:
        snprintf(message, sizeof(message), "the ledger cannot be used right now: %s",
                 strerror(-rc));
        control_fail(out, "ledger_unavailable", message);
        return;
    }
}

const char *control_wanted_key(struct control_request *r)
{
    const char *key = json_string(r->json, "key");

    if (key == NULL)
        control_fail(r->out, "invalid_request", "key: must be a key's name or id");
    return key;
}

int control_get_text(const cJSON *object, const char *name, const char **out)
{
    const cJSON *item = json_get(object, name);

    *out = json_string(object, name);
    return item == NULL || cJSON_IsNull(item) || *out != NULL ? 0 : -EINVAL;
}

static const struct control_op *find_op(const char *name)
{
    for (size_t i = 0; i < sizeof(GROUPS) / sizeof(GROUPS[0]); i++) {
        for (const struct control_op *op = GROUPS[i]; op->name != NULL; op++) {
            if (strcmp(op->name, name) == 0)
                return op;
        }
    }
    return NULL;
}

void control_ops_start(const struct control_context *context, const char *json, size_t len,
                       int64_t now_at_ms, struct control_task *task, struct buf *out)
{
    cJSON *root = json_parse(json, len, &JSON_LIMITS_DEFAULT, NULL, NULL);
    const char *name = json_string(root, "op");
    struct control_request r = {
        .context = context, .json = root, .now_at_ms = now_at_ms, .task = task, .out = out};
    const struct control_op *op = name != NULL ? find_op(name) : NULL;

    if (!cJSON_IsObject(root) || name == NULL)
        control_fail(out, "invalid_request", "a request is a JSON object with an \"op\"");
    else if (op == NULL)
        control_fail(out, "unknown_op", "the usage-writer does not know this request");
    else
        op->run(&r);
    cJSON_Delete(root);
}
