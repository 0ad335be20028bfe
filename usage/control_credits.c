#include "usage/control_ops.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/log.h"
#include "common/money.h"
#include "usage/credits.h"

#define HISTORY_PAGE 200

/* ---- paying ---- */

/* It goes into logs and URLs of whoever pays. */
static bool is_operation_id(const char *text)
{
    size_t len = strlen(text);

    for (size_t i = 0; i < len; i++) {
        if (text[i] <= ' ' || text[i] > '~')
            return false;
    }
    return len > 0 && len < CREDIT_OPERATION_BYTES;
}

/* The text has passed json_check(), so it is valid UTF-8. */
static bool is_note(const char *text)
{
    size_t chars = 0;

    for (const uint8_t *p = (const uint8_t *)text; *p != '\0'; p++) {
        if (*p < 0x20 || *p == 0x7f || (p[0] == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f))
            return false;
        if ((*p & 0xc0) != 0x80)
            chars++;
    }
    return chars <= CREDIT_NOTE_CHARS;
}

/* 0, or -EINVAL with a sentence in why. */
static int decode_entry(const cJSON *request, struct credit_entry *e, char why[KEY_WHY_BYTES])
{
    const char *operation_id, *note;

    *e = (struct credit_entry){0};
    snprintf(why, KEY_WHY_BYTES,
             "amount: must be credits as text like \"12.5\" or \"-3\", not 0, at most %lld",
             (long long)(ACCOUNT_MAX_NANO / NANO_PER_CREDIT));
    if (key_credits_decode(json_get(request, "amount"), &e->amount_nano) < 0 || e->amount_nano == 0)
        return -EINVAL;
    snprintf(why, KEY_WHY_BYTES, "operation_id: must be 1 to %d printable ASCII characters",
             CREDIT_OPERATION_BYTES - 1);
    if (control_get_text(request, "operation_id", &operation_id) < 0 ||
        (operation_id != NULL && !is_operation_id(operation_id)))
        return -EINVAL;
    snprintf(why, KEY_WHY_BYTES, "note: must be text of at most %d characters", CREDIT_NOTE_CHARS);
    if (control_get_text(request, "note", &note) < 0 || (note != NULL && !is_note(note)))
        return -EINVAL;
    snprintf(e->operation_id, sizeof(e->operation_id), "%s",
             operation_id != NULL ? operation_id : "");
    snprintf(e->note, sizeof(e->note), "%s", note != NULL ? note : "");
    return 0;
}

static void fail(struct control_request *r, const struct credit_entry *e, int rc)
{
    char message[KEY_WHY_BYTES];

    switch (rc) {
    case -EEXIST:
        snprintf(message, sizeof(message),
                 "the operation id \"%s\" was used before, for another key or amount",
                 e->operation_id);
        control_fail(r->out, "operation_id_reused", message);
        return;
    case -ERANGE:
        snprintf(message, sizeof(message), "a balance cannot pass %lld credits",
                 (long long)(ACCOUNT_MAX_NANO / NANO_PER_CREDIT));
        control_fail(r->out, "balance_out_of_range", message);
        return;
    default:
        control_fail_errno(r->out, rc);
        return;
    }
}

/* {"key","amount":"12.5","operation_id","note"}: the last two may be absent or null. */
static void credit_add(struct control_request *r)
{
    struct credit_entry e;
    char why[KEY_WHY_BYTES], id[KEY_ID_TEXT_BYTES];
    const char *key = control_wanted_key(r);
    struct buf json;
    int rc;

    if (key == NULL)
        return;
    if (decode_entry(r->json, &e, why) < 0) {
        control_fail(r->out, "invalid_request", why);
        return;
    }
    rc = credits_add(r->context->keystore, key, r->now_at_ms, &e);
    if (rc < 0) {
        fail(r, &e, rc);
        return;
    }
    key_id_format(e.key_id, id);
    log_event(LOG_INFO, "credit_added", "", "%s, entry %lld", id, (long long)e.id);
    control_json_init(&json);
    buf_str(&json, "{\"done\":true,\"credit\":");
    credit_entry_encode(&e, &json);
    buf_byte(&json, '}');
    control_put_frame(r->out, &json);
}

/* ---- looking ---- */

static void credit_show(struct control_request *r)
{
    const char *key = control_wanted_key(r);
    struct buf json;
    int rc;

    if (key == NULL)
        return;
    control_json_init(&json);
    buf_str(&json, "{\"done\":true,\"credit\":{");
    rc = credits_show(r->context->keystore, r->context->requests, key, r->now_at_ms, &json);
    if (rc < 0) {
        buf_clear(&json);
        control_fail_errno(r->out, rc);
        return;
    }
    buf_str(&json, "}}");
    control_put_frame(r->out, &json);
}

struct history {
    uint64_t key_id;
    int64_t before; /* the last entry shown */
    int64_t left;
};

/* In pages, each a frame. */
static void step_history(struct control_task *task, const struct control_context *context,
                         int64_t now_at_ms, struct buf *out)
{
    struct history *h = task->state;
    size_t page = h->left < HISTORY_PAGE ? (size_t)h->left : HISTORY_PAGE;
    struct buf json;
    bool done;
    int n;

    control_json_init(&json);
    buf_str(&json, "{\"entries\":[");
    n = credits_list(context->keystore->ledger, h->key_id, &h->before, page, &json);
    if (n < 0) {
        buf_clear(&json);
        control_fail_errno(out, n);
        control_task_clear(task);
        return;
    }
    h->left -= n;
    done = (size_t)n < page || h->left == 0;
    buf_str(&json, "]");
    json_put_field_bool(&json, "done", done);
    buf_byte(&json, '}');
    control_put_frame(out, &json);
    if (done)
        control_task_clear(task);
}

/* {"key","limit"}: newest first; without a limit, or with 0, all of them. */
static void credit_history(struct control_request *r)
{
    const char *key = control_wanted_key(r);
    struct key_record record;
    struct history *h;
    int64_t limit = 0;
    int rc;

    if (key == NULL)
        return;
    if (json_get_i64(r->json, "limit", &limit) == -EINVAL || limit < 0) {
        control_fail(r->out, "invalid_request", "limit: must be a whole number, not below 0");
        return;
    }
    rc = keystore_find(r->context->keystore, key, &record);
    h = rc == 0 ? calloc(1, sizeof(*h)) : NULL;
    if (h == NULL) {
        control_fail_errno(r->out, rc < 0 ? rc : -ENOMEM);
        return;
    }
    *h = (struct history){record.id, INT64_MAX, limit > 0 ? limit : INT64_MAX};
    r->task->state = h;
    r->task->step = step_history;
}

const struct control_op CONTROL_CREDIT_OPS[] = {
    {"credit.add", credit_add},
    {"credit.show", credit_show},
    {"credit.history", credit_history},
    {NULL, NULL},
};
