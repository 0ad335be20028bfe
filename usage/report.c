#include "usage/report.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/json.h"
#include "common/money.h"
#include "usage/keystore.h"
#include "usage/keytable.h"

#define HOUR_MS INT64_C(3600000)
#define DAY_MS (24 * HOUR_MS)

static const char *const BY_NAMES[] = {
    [REPORT_BY_HOUR] = "hour",
    [REPORT_BY_DAY] = "day",
    [REPORT_BY_MODEL] = "model",
    [REPORT_BY_KEY] = "key",
};

struct sums {
    int64_t requests, errors, tokens_input, tokens_cached, tokens_output, cost_nano;
};

struct row {
    char label[USAGE_NAME_BYTES]; /* a moment in RFC 3339, a model or a key's id */
    struct sums sums;
};

struct report {
    struct report_query query;
    char key_text[KEY_ID_TEXT_BYTES]; /* "" = all keys */
    /* Where the next slice begins: behind this row of usage_hourly. */
    int64_t hour_at_ms;
    char after_key[KEY_ID_TEXT_BYTES];
    char after_model[USAGE_NAME_BYTES];
    struct row *rows; /* sorted by label */
    size_t count, capacity;
    size_t last; /* found last: the next is often the same */
    struct sums total;
};

int report_by_parse(const char *text, enum report_by *out)
{
    for (size_t i = 0; i < sizeof(BY_NAMES) / sizeof(BY_NAMES[0]); i++) {
        if (strcmp(text, BY_NAMES[i]) == 0) {
            *out = (enum report_by)i;
            return 0;
        }
    }
    return -EINVAL;
}

struct report *report_new(const struct report_query *query)
{
    struct report *r = calloc(1, sizeof(*r));

    if (r == NULL)
        return NULL;
    r->query = *query;
    r->query.since_at_ms -= r->query.since_at_ms % HOUR_MS;
    r->hour_at_ms = r->query.since_at_ms;
    if (query->key_id != 0)
        key_id_format(query->key_id, r->key_text);
    return r;
}

void report_free(struct report *r)
{
    if (r == NULL)
        return;
    free(r->rows);
    free(r);
}

static void copy_name(char *out, size_t size, const char *name)
{
    size_t len = strnlen(name, size - 1);

    memcpy(out, name, len);
    out[len] = '\0';
}

static void make_label(const struct report *r, int64_t hour_at_ms, const char *key,
                       const char *model, char out[USAGE_NAME_BYTES])
{
    switch (r->query.by) {
    case REPORT_BY_HOUR:
        clock_format(hour_at_ms, out);
        break;
    case REPORT_BY_DAY:
        clock_format(hour_at_ms - hour_at_ms % DAY_MS, out);
        break;
    case REPORT_BY_MODEL:
        copy_name(out, USAGE_NAME_BYTES, model);
        break;
    case REPORT_BY_KEY:
        copy_name(out, USAGE_NAME_BYTES, key);
        break;
    }
}

/* The label's place in rows, or where it belongs. */
static bool search(const struct report *r, const char *label, size_t *at)
{
    size_t low = 0, high = r->count;

    if (r->last < r->count && strcmp(r->rows[r->last].label, label) == 0) {
        *at = r->last;
        return true;
    }
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(r->rows[middle].label, label);

        if (order == 0) {
            *at = middle;
            return true;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *at = low;
    return false;
}

static int find_row(struct report *r, const char *label, struct row **out)
{
    size_t at;

    if (!search(r, label, &at)) {
        if (r->count == REPORT_ROWS_MAX)
            return -E2BIG;
        if (r->count == r->capacity) {
            size_t capacity = r->capacity == 0 ? 64 : 2 * r->capacity;
            struct row *grown = reallocarray(r->rows, capacity, sizeof(*grown));

            if (grown == NULL)
                return -ENOMEM;
            r->rows = grown;
            r->capacity = capacity;
        }
        memmove(&r->rows[at + 1], &r->rows[at], (r->count - at) * sizeof(*r->rows));
        memset(&r->rows[at], 0, sizeof(r->rows[at]));
        memcpy(r->rows[at].label, label, USAGE_NAME_BYTES);
        r->count++;
    }
    r->last = at;
    *out = &r->rows[at];
    return 0;
}

static void add(int64_t *sum, int64_t value)
{
    if (__builtin_add_overflow(*sum, value, sum))
        *sum = INT64_MAX;
}

static void add_sums(struct sums *to, const struct sums *from)
{
    add(&to->requests, from->requests);
    add(&to->errors, from->errors);
    add(&to->tokens_input, from->tokens_input);
    add(&to->tokens_cached, from->tokens_cached);
    add(&to->tokens_output, from->tokens_output);
    add(&to->cost_nano, from->cost_nano);
}

static int read_row(struct report *r, sqlite3_stmt *stmt)
{
    const char *key = (const char *)sqlite3_column_text(stmt, 1);
    const char *model = (const char *)sqlite3_column_text(stmt, 2);
    char label[USAGE_NAME_BYTES] = "";
    struct sums sums = {
        .requests = sqlite3_column_int64(stmt, 3),
        .errors = sqlite3_column_int64(stmt, 4),
        .tokens_input = sqlite3_column_int64(stmt, 5),
        .tokens_cached = sqlite3_column_int64(stmt, 6),
        .tokens_output = sqlite3_column_int64(stmt, 7),
        .cost_nano = sqlite3_column_int64(stmt, 8),
    };
    struct row *row;
    int rc;

    if (key == NULL || model == NULL)
        return -ENOMEM; /* columns that are NOT NULL */
    r->hour_at_ms = sqlite3_column_int64(stmt, 0);
    copy_name(r->after_key, sizeof(r->after_key), key);
    copy_name(r->after_model, sizeof(r->after_model), model);
    if ((r->key_text[0] != '\0' && strcmp(r->key_text, key) != 0) ||
        (r->query.model[0] != '\0' && strcmp(r->query.model, model) != 0))
        return 0;
    make_label(r, r->hour_at_ms, key, model, label);
    rc = find_row(r, label, &row);
    if (rc < 0)
        return rc;
    add_sums(&row->sums, &sums);
    add_sums(&r->total, &sums);
    return 0;
}

int report_step(struct report *r, struct ledger *l, size_t max)
{
    sqlite3 *db = ledger_db(l);
    sqlite3_stmt *stmt = NULL;
    size_t count = 0;
    int rc;

    if (db == NULL)
        return -EIO;
    /* The filters are looked at here and not by SQL: so each slice reads a bounded number of rows.
     */
    rc = database_prepare(db,
                          "SELECT hour, api_key_id, model, requests, errors, tokens_input,"
                          " tokens_cached, tokens_output, cost FROM usage_hourly"
                          " WHERE (hour, api_key_id, model) > (?1, ?2, ?3) AND hour < ?4"
                          " ORDER BY hour, api_key_id, model LIMIT ?5",
                          &stmt);
    if (rc < 0)
        return rc;
    sqlite3_bind_int64(stmt, 1, r->hour_at_ms);
    sqlite3_bind_text(stmt, 2, r->after_key, -1, SQLITE_TRANSIENT);
    sqlite3_bind_text(stmt, 3, r->after_model, -1, SQLITE_TRANSIENT);
    sqlite3_bind_int64(stmt, 4, r->query.until_at_ms);
    sqlite3_bind_int64(stmt, 5, (int64_t)max);
    for (;;) {
        rc = sqlite3_step(stmt);
        if (rc != SQLITE_ROW) {
            rc = database_errno(rc);
            break;
        }
        count++;
        rc = read_row(r, stmt);
        if (rc < 0)
            break;
    }
    sqlite3_finalize(stmt);
    if (rc < 0)
        return rc;
    return count == max ? 1 : 0;
}

static void put_sums(const struct sums *sums, struct buf *out)
{
    char cost[MONEY_TEXT_BYTES];

    json_put_field_i64(out, "requests", sums->requests);
    json_put_field_i64(out, "errors", sums->errors);
    json_put_field_i64(out, "tokens_input", sums->tokens_input);
    json_put_field_i64(out, "tokens_cached", sums->tokens_cached);
    json_put_field_i64(out, "tokens_output", sums->tokens_output);
    money_format(sums->cost_nano, cost);
    json_put_field_text(out, "cost", cost);
}

static int put_row(const struct report *r, const struct row *row, struct ledger *l, struct buf *out)
{
    char name[KEY_NAME_BYTES];
    int rc;

    buf_byte(out, '{');
    json_put_field_text(out, BY_NAMES[r->query.by], row->label);
    if (r->query.by == REPORT_BY_KEY) {
        rc = keystore_name(l, row->label, name);
        if (rc < 0)
            return rc;
        json_put_field_text(out, "name", name[0] != '\0' ? name : NULL);
    }
    put_sums(&row->sums, out);
    return buf_byte(out, '}');
}

int report_encode(const struct report *r, struct ledger *l, struct buf *out)
{
    buf_byte(out, '{');
    json_put_field_time(out, "since", r->query.since_at_ms);
    json_put_field_time(out, "until", r->query.until_at_ms);
    json_put_field_text(out, "by", BY_NAMES[r->query.by]);
    json_put_key(out, "rows");
    buf_byte(out, '[');
    for (size_t i = 0; i < r->count; i++) {
        int rc = i > 0 ? buf_byte(out, ',') : 0;

        if (rc == 0)
            rc = put_row(r, &r->rows[i], l, out);
        if (rc < 0)
            return rc;
    }
    buf_byte(out, ']');
    json_put_key(out, "total");
    buf_byte(out, '{');
    put_sums(&r->total, out);
    return buf_str(out, "}}");
}
