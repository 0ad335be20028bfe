#include "gateway/ctl/ctl.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/frame.h"
#include "common/json.h"

/* What the writer says while it works. */
static bool is_progress(const struct ctl_answer *answer)
{
    return json_get(answer->tree, "progress") != NULL;
}

/* A whole number, or an amount's decimal text; null is none. */
static void add_value(struct ctl_table *table, const cJSON *row, const char *name)
{
    const char *text = json_string(row, name);
    int64_t value;

    if (text == NULL && json_get_i64(row, name, &value) == 0)
        ctl_table_cell_i64(table, value);
    else
        ctl_table_cell(table, text);
}

static int64_t number(const cJSON *object, const char *name)
{
    int64_t value = 0;

    return json_get_i64(object, name, &value) == 0 ? value : 0;
}

static enum ctl_exit ask_writer(const struct ctl *ctl, struct buf *request, bool repeatable,
                                enum ctl_exit (*on_answer)(void *, const struct ctl_answer *))
{
    enum ctl_exit status;

    buf_byte(request, '}');
    status = ctl_call(ctl, &(struct ctl_call){.server = CTL_WRITER,
                                              .repeatable = repeatable,
                                              .request = request,
                                              .on_answer = on_answer,
                                              .arg = (void *)(uintptr_t)ctl});
    buf_clear(request);
    return status;
}

static void begin_request(struct buf *request, const char *op)
{
    buf_init(request, FRAME_MAX);
    buf_byte(request, '{');
    json_put_field_text(request, "op", op);
}

/* ---- ledger verify ---- */

static void put_drifts(const cJSON *verify, struct buf *out)
{
    const cJSON *named = json_get(verify, "named"), *row;
    int64_t drifts = number(verify, "drifts");
    struct ctl_table table;

    ctl_table_init(&table, "lllllrr");
    ctl_table_heading(&table, "TABLE|FIELD|KEY|MODEL|AT|EXPECTED|FOUND");
    cJSON_ArrayForEach(row, named)
    {
        static const char *const texts[] = {"table", "field", "key", "model", "at"};

        for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
            ctl_table_cell(&table, json_string(row, texts[i]));
        add_value(&table, row, "expected");
        add_value(&table, row, "found");
    }
    ctl_table_render(&table, out);
    ctl_table_clear(&table);
    buf_printf(out, "the ledger does not agree with itself in %lld places", (long long)drifts);
    if (drifts > cJSON_GetArraySize(named))
        buf_printf(out, ", the first %d are shown", cJSON_GetArraySize(named));
    buf_byte(out, '\n');
}

static void put_clean(const cJSON *verify, struct buf *out)
{
    const char *cost = json_string(verify, "cost");

    buf_printf(out, "clean: %lld keys, %lld requests in %lld hours, %lld days, cost %s\n",
               (long long)number(verify, "keys"), (long long)number(verify, "requests"),
               (long long)number(verify, "hours"), (long long)number(verify, "days"),
               cost != NULL ? cost : "?");
}

static enum ctl_exit on_verified(void *arg, const struct ctl_answer *answer)
{
    const struct ctl *ctl = arg;
    const cJSON *verify = json_get(answer->tree, "verify");
    bool clean = false;
    enum ctl_exit status;
    struct buf out;

    if (is_progress(answer))
        return CTL_OK;
    if (json_get_bool(verify, "clean", &clean) < 0)
        return ctl_refuse("the usage-writer: an answer that makes no sense");
    if (ctl->options.json) {
        status = ctl_print_member(answer, "verify");
    } else {
        buf_init(&out, 4 * FRAME_MAX);
        if (clean)
            put_clean(verify, &out);
        else
            put_drifts(verify, &out);
        status = ctl_print(&out);
        buf_clear(&out);
    }
    return status == CTL_OK && !clean ? CTL_REFUSED : status;
}

enum ctl_exit ctl_ledger_verify(struct ctl *ctl)
{
    struct buf request;

    begin_request(&request, "ledger.verify");
    return ask_writer(ctl, &request, true, on_verified);
}

/* ---- ledger reprice ---- */

static void add_tally(struct ctl_table *table, const cJSON *row)
{
    static const char *const names[] = {"requests", "cost",         "miscounted", "stored_price",
                                        "changed",  "config_price", "unknown"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        add_value(table, row, names[i]);
}

static void put_repriced(const cJSON *reprice, struct buf *out)
{
    int64_t left_out = number(reprice, "left_out");
    struct ctl_table table;
    const cJSON *row;

    ctl_table_init(&table, "llrrrrrrr");
    ctl_table_heading(&table, "KEY|MODEL|REQUESTS|COST|MISCOUNTED|BY STORED PRICE|CHANGED|BY CONFIG"
                              "|UNKNOWN MODEL");
    cJSON_ArrayForEach(row, json_get(reprice, "rows"))
    {
        const char *name = json_string(row, "name");

        ctl_table_cell(&table, name != NULL ? name : json_string(row, "key"));
        ctl_table_cell(&table, json_string(row, "model"));
        add_tally(&table, row);
    }
    ctl_table_cell(&table, "all requests");
    ctl_table_cell(&table, NULL);
    add_tally(&table, json_get(reprice, "total"));
    ctl_table_render(&table, out);
    ctl_table_clear(&table);
    if (left_out > 0)
        buf_printf(out, "%lld more requests that differ are in no row\n", (long long)left_out);
}

static enum ctl_exit on_repriced(void *arg, const struct ctl_answer *answer)
{
    const struct ctl *ctl = arg;
    enum ctl_exit status;
    struct buf out;

    if (is_progress(answer))
        return CTL_OK;
    if (ctl->options.json)
        return ctl_print_member(answer, "reprice");
    buf_init(&out, 4 * FRAME_MAX);
    put_repriced(json_get(answer->tree, "reprice"), &out);
    status = ctl_print(&out);
    buf_clear(&out);
    return status;
}

enum ctl_exit ctl_ledger_reprice(struct ctl *ctl)
{
    struct buf request;

    if (!ctl->options.dry_run)
        return ctl_usage_error("ledger reprice only reports, it changes nothing: say --dry-run");
    begin_request(&request, "ledger.reprice");
    return ask_writer(ctl, &request, true, on_repriced);
}

/* ---- backup ---- */

static enum ctl_exit on_backup(void *arg, const struct ctl_answer *answer)
{
    const struct ctl *ctl = arg;
    const cJSON *backup = json_get(answer->tree, "backup");
    const char *file = json_string(backup, "file"), *secret = json_string(backup, "key_secret");

    if (is_progress(answer))
        return CTL_OK;
    if (ctl->options.json)
        return ctl_print_member(answer, "backup");
    if (file == NULL || secret == NULL)
        return ctl_refuse("the usage-writer: an answer that makes no sense");
    printf("%s: %lld bytes, checked; the keys' secret is in %s\n", file,
           (long long)number(backup, "bytes"), secret);
    return CTL_OK;
}

/* The server has another working directory. */
static int make_absolute(const char *file, char out[PATH_MAX])
{
    char dir[PATH_MAX];
    int n;

    if (file[0] == '/') {
        n = snprintf(out, PATH_MAX, "%s", file);
    } else {
        if (getcwd(dir, sizeof(dir)) == NULL)
            return -errno;
        n = snprintf(out, PATH_MAX, "%s/%s", dir, file);
    }
    return n < 0 || n >= PATH_MAX ? -ENAMETOOLONG : 0;
}

enum ctl_exit ctl_backup(struct ctl *ctl)
{
    const char *name = ctl->args[0];
    char file[PATH_MAX];
    struct buf request;
    int rc;

    if (name[0] == '\0' || name[strlen(name) - 1] == '/')
        return ctl_usage_error("\"%s\" is no file's name", name);
    rc = make_absolute(name, file);
    if (rc < 0)
        return ctl_refuse("%s: %s", name, strerror(-rc));
    begin_request(&request, "backup");
    json_put_field_text(&request, "file", file);
    json_put_field_bool(&request, "force", ctl->options.force);
    return ask_writer(ctl, &request, false, on_backup);
}
