#include "usage/control_ops.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/json.h"
#include "common/log.h"
#include "usage/backup.h"
#include "usage/chores.h"
#include "usage/reprice.h"
#include "usage/verify.h"

#define PAUSE_MS 3       /* after a slice that takes as long */
#define PROGRESS_MS 1000 /* so that whoever waits knows that somebody works */
#define SECRET_NAME "key.secret"

/* What a task of this file has in hand: one of the three. */
struct work {
    struct verify *verify;
    struct reprice *reprice;
    struct backup *backup;
    char file[PATH_MAX]; /* of the backup */
    int64_t begun_ms, progress_ms;
};

static void free_work(void *state)
{
    struct work *w = state;

    verify_free(w->verify);
    reprice_free(w->reprice);
    backup_free(w->backup);
    free(w);
}

static struct work *begin_work(struct control_request *r)
{
    struct work *w = calloc(1, sizeof(*w));

    if (w == NULL) {
        control_fail_errno(r->out, -ENOMEM);
        return NULL;
    }
    w->begun_ms = clock_monotonic_ms();
    w->progress_ms = w->begun_ms;
    return w;
}

static void begin_task(struct control_request *r, struct work *w,
                       void (*step)(struct control_task *, const struct control_context *, int64_t,
                                    struct buf *))
{
    r->task->state = w;
    r->task->free_state = free_work;
    r->task->step = step;
}

static void go_on_at(struct control_task *task, int64_t at_ms, struct buf *out)
{
    struct work *w = task->state;
    int64_t now_ms = clock_monotonic_ms();
    struct buf json;

    task->not_before_ms = at_ms;
    if (now_ms < w->progress_ms + PROGRESS_MS)
        return;
    w->progress_ms = now_ms;
    control_json_init(&json);
    buf_str(&json, "{\"progress\":{");
    if (w->backup != NULL) {
        struct backup_progress progress = backup_progress(w->backup);

        json_put_field_i64(&json, "pages", progress.pages);
        json_put_field_i64(&json, "pages_done", progress.pages_done);
        json_put_field_bool(&json, "checking", progress.is_checking);
    }
    buf_str(&json, "}}");
    control_put_frame(out, &json);
}

/* The last frame: json (cleared here) if rc is 0. */
static void end_task(struct control_task *task, int rc, struct buf *json, struct buf *out)
{
    if (rc == 0)
        rc = buf_byte(json, '}');
    if (rc == 0) {
        control_put_frame(out, json);
    } else {
        buf_clear(json);
        control_fail_errno(out, rc);
    }
    control_task_clear(task);
}

/* ---- ledger.verify ---- */

static void step_verify(struct control_task *task, const struct control_context *context,
                        int64_t now_at_ms, struct buf *out)
{
    struct work *w = task->state;
    struct buf json;
    int rc = verify_step(w->verify);

    if (rc == 1) {
        go_on_at(task, clock_monotonic_ms() + PAUSE_MS, out);
        return;
    }
    control_json_init(&json);
    if (rc == 0) {
        chores_tell_verified(w->verify, context->counters, now_at_ms);
        buf_str(&json, "{\"done\":true,\"verify\":");
        rc = verify_encode(w->verify, &json);
    }
    end_task(task, rc, &json, out);
}

static void verify(struct control_request *r)
{
    struct work *w = begin_work(r);

    if (w == NULL)
        return;
    w->verify = verify_new(r->context->keystore->ledger);
    if (w->verify == NULL) {
        free_work(w);
        control_fail_errno(r->out, -ENOMEM);
        return;
    }
    begin_task(r, w, step_verify);
}

/* ---- ledger.reprice ---- */

static void step_reprice(struct control_task *task, const struct control_context *context,
                         int64_t now_at_ms, struct buf *out)
{
    const struct keystore *ks = context->keystore;
    struct work *w = task->state;
    struct buf json;
    int rc = reprice_step(w->reprice, ks->ledger, ks->config);

    if (rc == 1) {
        go_on_at(task, clock_monotonic_ms() + PAUSE_MS, out);
        return;
    }
    control_json_init(&json);
    if (rc == 0) {
        buf_str(&json, "{\"done\":true,\"reprice\":");
        rc = reprice_encode(w->reprice, ks->ledger, &json);
    }
    end_task(task, rc, &json, out);
}

static void reprice(struct control_request *r)
{
    struct work *w = begin_work(r);

    if (w == NULL)
        return;
    w->reprice = reprice_new();
    if (w->reprice == NULL) {
        free_work(w);
        control_fail_errno(r->out, -ENOMEM);
        return;
    }
    begin_task(r, w, step_reprice);
}

/* ---- backup ---- */

static void tell_backup_failed(const struct control_context *context, const char *why,
                               struct buf *out)
{
    counter_inc(&context->counters->backup_failures_total);
    log_event(LOG_ERROR, "backup_failed", "", "%s", why);
    control_fail(out, "backup_failed", why);
}

static void put_backup(const struct work *w, struct buf *json)
{
    struct backup_progress progress = backup_progress(w->backup);
    int64_t took_ms = clock_monotonic_ms() - w->begun_ms;
    char secret[PATH_MAX + sizeof(BACKUP_SECRET_SUFFIX)];
    struct buf name;

    buf_init_fixed(&name, secret, sizeof(secret));
    buf_printf(&name, "%s" BACKUP_SECRET_SUFFIX, w->file);
    buf_str(json, "{\"done\":true,\"backup\":{");
    json_put_field_text(json, "file", w->file);
    json_put_field_text(json, "key_secret", buf_text(&name));
    json_put_field_i64(json, "bytes", progress.bytes);
    json_put_field_i64(json, "duration_ms", took_ms);
    buf_byte(json, '}');
}

static void step_backup(struct control_task *task, const struct control_context *context,
                        int64_t now_at_ms, struct buf *out)
{
    struct work *w = task->state;
    struct buf json;
    int rc = backup_step(w->backup, clock_monotonic_ms());

    if (rc == 1) {
        go_on_at(task, backup_next_ms(w->backup), out);
        return;
    }
    if (rc < 0) {
        tell_backup_failed(context, backup_why(w->backup), out);
        control_task_clear(task);
        return;
    }
    counter_inc(&context->counters->backups_total);
    counter_set(&context->counters->backup_timestamp_seconds, (uint64_t)(now_at_ms / 1000));
    log_event(LOG_INFO, "backup_done", "", "%s", w->file);
    control_json_init(&json);
    put_backup(w, &json);
    end_task(task, json.err, &json, out);
}

/* {"file": absolute path, "force": bool} */
static void backup(struct control_request *r)
{
    const struct keystore *ks = r->context->keystore;
    const char *file = json_string(r->json, "file");
    char secret[PATH_MAX], why[BACKUP_WHY_BYTES];
    struct backup_setup setup = {
        .ledger = ks->ledger, .file = file, .secret = secret, .state_dir = ks->config->state_dir};
    struct work *w;
    int rc;

    if (file == NULL || strlen(file) >= sizeof(w->file) ||
        json_get_bool(r->json, "force", &setup.force) == -EINVAL) {
        control_fail(r->out, "invalid_request", "file: must be an absolute path; force: a boolean");
        return;
    }
    rc = path_join(secret, ks->config->state_dir, SECRET_NAME);
    if (rc < 0) {
        control_fail_errno(r->out, rc);
        return;
    }
    w = begin_work(r);
    if (w == NULL)
        return;
    memcpy(w->file, file, strlen(file) + 1);
    if (backup_start(&setup, &w->backup, why) < 0) {
        free_work(w);
        tell_backup_failed(r->context, why, r->out);
        return;
    }
    begin_task(r, w, step_backup);
}

const struct control_op CONTROL_LEDGER_OPS[] = {
    {"ledger.verify", verify}, {"ledger.reprice", reprice}, {"backup", backup}, {NULL, NULL}};
