#include "usage/control_ops.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/log.h"

#define LIST_PAGE 200

static void put_key(struct buf *out, const struct key_record *record, const char *text,
                    int64_t now_at_ms)
{
    struct buf json;

    control_json_init(&json);
    buf_str(&json, "{\"done\":true,\"key\":");
    key_record_encode(record, text, now_at_ms, &json);
    buf_byte(&json, '}');
    control_put_frame(out, &json);
}

/* {"name","models":[],"tier","expires_at","limits":{"rpm","rpd","tpm","tpd","parallel","spend_day",
 * "spend_week","spend_month"},"credits"}: all may be absent or null. Amounts are decimal strings.
 */
static void key_create(struct control_request *r)
{
    struct key_record record;
    char text[KEY_TEXT_BYTES];
    char why[KEY_WHY_BYTES];
    int rc = key_record_decode(r->json, r->context->keystore->config, &record, why);

    if (rc < 0) {
        control_fail(r->out, "invalid_request", why);
        return;
    }
    rc = keystore_create(r->context->keystore, r->now_at_ms, &record, text);
    if (rc < 0) {
        control_fail_errno(r->out, rc);
        return;
    }
    log_event(LOG_INFO, "key_created", "", "key_%016llx", (unsigned long long)record.id);
    put_key(r->out, &record, text, r->now_at_ms);
    explicit_bzero(text, sizeof(text));
}

/* {"key"} and the same but "credits": what is absent stays, what is null goes back to none, or to
 * the tier's. */
static void key_update(struct control_request *r)
{
    const struct keystore *ks = r->context->keystore;
    struct key_record record;
    char why[KEY_WHY_BYTES];
    const char *key = control_wanted_key(r);
    int rc;

    if (key == NULL)
        return;
    if (json_get(r->json, "credits") != NULL) {
        control_fail(r->out, "invalid_request", "credits: a balance changes by credit.add");
        return;
    }
    rc = keystore_find(ks, key, &record);
    if (rc < 0) {
        control_fail_errno(r->out, rc);
        return;
    }
    if (key_record_apply(r->json, ks->config, &record, why) < 0) {
        control_fail(r->out, "invalid_request", why);
        return;
    }
    rc = keystore_update(ks, &record);
    if (rc < 0) {
        control_fail_errno(r->out, rc);
        return;
    }
    log_event(LOG_INFO, "key_updated", "", "key_%016llx", (unsigned long long)record.id);
    put_key(r->out, &record, NULL, r->now_at_ms);
}

/* {"key"}: the same key, another text. */
static void key_rotate(struct control_request *r)
{
    struct key_record record;
    char text[KEY_TEXT_BYTES];
    const char *key = control_wanted_key(r);
    int rc;

    if (key == NULL)
        return;
    rc = keystore_rotate(r->context->keystore, key, &record, text);
    if (rc < 0) {
        control_fail_errno(r->out, rc);
        return;
    }
    log_event(LOG_INFO, "key_rotated", "", "key_%016llx", (unsigned long long)record.id);
    put_key(r->out, &record, text, r->now_at_ms);
    explicit_bzero(text, sizeof(text));
}

static void key_show(struct control_request *r)
{
    struct key_record record;
    const char *key = control_wanted_key(r);
    int rc;

    if (key == NULL)
        return;
    rc = keystore_find(r->context->keystore, key, &record);
    if (rc < 0)
        control_fail_errno(r->out, rc);
    else
        put_key(r->out, &record, NULL, r->now_at_ms);
}

static void key_revoke(struct control_request *r)
{
    struct key_record record;
    const char *key = control_wanted_key(r);
    int rc;

    if (key == NULL)
        return;
    rc = keystore_revoke(r->context->keystore, key, r->now_at_ms, &record);
    if (rc < 0) {
        control_fail_errno(r->out, rc);
        return;
    }
    log_event(LOG_INFO, "key_revoked", "", "key_%016llx", (unsigned long long)record.id);
    put_key(r->out, &record, NULL, r->now_at_ms);
}

/* The keys in pages, each a frame. */
static void step_list(struct control_task *task, const struct control_context *context,
                      int64_t now_at_ms, struct buf *out)
{
    uint64_t *after = task->state; /* the last key shown */
    struct buf json;
    int n;

    control_json_init(&json);
    buf_str(&json, "{\"keys\":[");
    n = keystore_list(context->keystore, after, LIST_PAGE, now_at_ms, &json);
    buf_str(&json, "]}");
    if (n < 0) {
        buf_clear(&json);
        control_fail_errno(out, n);
        control_task_clear(task);
        return;
    }
    control_put_frame(out, &json);
    if (n == LIST_PAGE)
        return;
    control_json_init(&json);
    buf_str(&json, "{\"done\":true}");
    control_put_frame(out, &json);
    control_task_clear(task);
}

static void key_list(struct control_request *r)
{
    r->task->state = calloc(1, sizeof(uint64_t));
    if (r->task->state == NULL)
        control_fail_errno(r->out, -ENOMEM);
    else
        r->task->step = step_list;
}

const struct control_op CONTROL_KEY_OPS[] = {
    {"key.create", key_create},
    {"key.list", key_list},
    {"key.show", key_show},
    {"key.update", key_update},
    {"key.rotate", key_rotate},
    {"key.revoke", key_revoke},
    {NULL, NULL},
};
