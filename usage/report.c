#include "usage/report.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/json.h"
#include "common/money.h"
#include "common/text.h"
#include "usage/key_rows.h"
#include "usage/keytable.h"
#include "usage/meta.h"
#include "usage/sums.h"

#define AT_MAX_MS INT64_C(253402300800000) /* 10000-01-01: what RFC 3339 cannot write */

static const char *const BY_NAMES[] = {
    [REPORT_BY_HOUR] = "hour",
    [REPORT_BY_DAY] = "day",
    [REPORT_BY_MODEL] = "model",
    [REPORT_BY_KEY] = "key",
};

/* The two tables of sums; both have the primary key (period, api_key_id, model). */
enum table { HOURLY, DAILY };
struct table_sql {
    int64_t period_ms;
    const char *bounds; /* the first and the last period that there is, between two moments */
    const char *scan;   /* all keys' rows behind a row */
    const char *lookup; /* one key's rows of one period */
};
/* The filters that are no look-up are not in the SQL: so each slice reads a bounded number of rows.
 */
#define TABLE_SQL(table, period, ms)                                                        \
    {                                                                                       \
        .period_ms = (ms),                                                                  \
        .bounds = "SELECT (SELECT min(" period ") FROM " table " WHERE " period " >= ?1),"  \
                  " (SELECT max(" period ") FROM " table " WHERE " period " < ?2)",         \
        .scan = "SELECT " period ", api_key_id, model, " SUM_COLUMNS " FROM " table         \
                " WHERE (" period ", api_key_id, model) > (?1, ?2, ?3) AND " period " < ?4" \
                " ORDER BY " period ", api_key_id, model LIMIT ?5",                         \
        .lookup = "SELECT " period ", api_key_id, model, " SUM_COLUMNS " FROM " table       \
                  " WHERE " period " = ?1 AND api_key_id = ?2",                             \
    }
static const struct table_sql TABLES[] = {
    [HOURLY] = TABLE_SQL("usage_hourly", "hour", CLOCK_HOUR_MS),
    [DAILY] = TABLE_SQL("usage_daily", "day", CLOCK_DAY_MS),
};

/* A part of the range, and the table that it is read from. */
struct segment {
    enum table table;
    int64_t from_ms, until_ms; /* whole periods */
};
#define SEGMENTS_MAX 3 /* the hours before the first midnight, whole days, the last day's hours */

struct row {
    char label[USAGE_NAME_BYTES]; /* a moment in RFC 3339, a model or a key's id */
    struct sums sums;
};

struct report {
    struct report_query query;
    char key_text[KEY_ID_TEXT_BYTES]; /* "" = all keys */
    bool is_planned;
    int64_t since_ms, until_ms; /* what is covered */
    struct segment segments[SEGMENTS_MAX];
    size_t segment_count, segment;
    /* Where the next slice begins: behind this row; looking up one key's, at this period. */
    bool is_begun; /* the segment */
    int64_t period_ms;
    char after_key[KEY_ID_TEXT_BYTES];
    char after_model[USAGE_NAME_BYTES];
    struct row *rows; /* sorted by label */
    size_t count, capacity;
    size_t last;     /* found last: the next is often the same */
    int64_t last_ms; /* by hour or day: its moment, -1 = none yet */
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
    r->last_ms = -1;
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

/* The row that sums of this period, key and model belong to. */
static int find_target(struct report *r, int64_t period_ms, const char *key, const char *model,
                       struct row **out)
{
    char label[USAGE_NAME_BYTES] = "";
    bool is_moment = r->query.by == REPORT_BY_HOUR || r->query.by == REPORT_BY_DAY;
    int rc;

    if (r->query.by == REPORT_BY_DAY)
        period_ms -= period_ms % CLOCK_DAY_MS;
    if (is_moment && period_ms == r->last_ms) {
        *out = &r->rows[r->last];
        return 0;
    }
    if (is_moment)
        clock_format(period_ms, label);
    else
        text_copy(label, sizeof(label), r->query.by == REPORT_BY_KEY ? key : model);
    rc = find_row(r, label, out);
    if (rc == 0)
        r->last_ms = period_ms;
    return rc;
}

static int read_row(struct report *r, sqlite3_stmt *stmt)
{
    const char *key = (const char *)sqlite3_column_text(stmt, 1);
    const char *model = (const char *)sqlite3_column_text(stmt, 2);
    struct row *row;
    int rc;

    if (key == NULL || model == NULL)
        return -ENOMEM; /* columns that are NOT NULL */
    if (r->key_text[0] == '\0') {
        r->period_ms = sqlite3_column_int64(stmt, 0);
        text_copy(r->after_key, sizeof(r->after_key), key);
        text_copy(r->after_model, sizeof(r->after_model), model);
    }
    if (r->query.model[0] != '\0' && strcmp(r->query.model, model) != 0)
        return 0;
    rc = find_target(r, sqlite3_column_int64(stmt, 0), key, model, &row);
    if (rc < 0)
        return rc;
    sums_add_columns(&row->sums, stmt, 3, 1);
    sums_add_columns(&r->total, stmt, 3, 1);
    return 0;
}

/* Runs the statement to its end, which is reset. *count grows by its rows. */
static int read_rows(struct report *r, sqlite3_stmt *stmt, size_t *count)
{
    int rc, reset;

    for (;;) {
        rc = sqlite3_step(stmt);
        if (rc != SQLITE_ROW)
            break;
        ++*count;
        rc = read_row(r, stmt);
        if (rc < 0) {
            sqlite3_reset(stmt);
            return rc;
        }
    }
    reset = sqlite3_reset(stmt);
    return database_errno(rc == SQLITE_DONE ? reset : rc);
}

static int64_t floor_to(int64_t at_ms, int64_t period_ms)
{
    return at_ms - at_ms % period_ms;
}

static int64_t ceil_to(int64_t at_ms, int64_t period_ms)
{
    return floor_to(at_ms + period_ms - 1, period_ms);
}

static void add_segment(struct report *r, enum table table, int64_t from_ms, int64_t until_ms)
{
    if (from_ms < until_ms)
        r->segments[r->segment_count++] =
            (struct segment){.table = table, .from_ms = from_ms, .until_ms = until_ms};
}

/* Whole days come from the daily sums, the ragged edges from the hourly ones. Of days whose hours
 * are deleted only the whole is known: an edge in one is moved outwards to midnight, and a report
 * by the hour begins after them. */
static int plan(struct report *r, sqlite3 *db)
{
    int64_t trimmed_ms, first_ms, last_ms;
    int rc = meta_get(db, META_HOURLY_TRIMMED, 0, &trimmed_ms);

    if (rc < 0)
        return rc;
    r->is_planned = true;
    r->since_ms = floor_to(r->query.since_at_ms, CLOCK_HOUR_MS);
    r->until_ms = r->query.until_at_ms < AT_MAX_MS ? r->query.until_at_ms : AT_MAX_MS;
    r->until_ms = ceil_to(r->until_ms, CLOCK_HOUR_MS);
    if (r->query.by == REPORT_BY_HOUR) {
        if (r->since_ms < trimmed_ms)
            r->since_ms = trimmed_ms;
        add_segment(r, HOURLY, r->since_ms, r->until_ms);
        return 0;
    }
    if (r->since_ms < trimmed_ms)
        r->since_ms = floor_to(r->since_ms, CLOCK_DAY_MS);
    if (r->until_ms < trimmed_ms)
        r->until_ms = ceil_to(r->until_ms, CLOCK_DAY_MS);
    first_ms = ceil_to(r->since_ms, CLOCK_DAY_MS);
    last_ms = floor_to(r->until_ms, CLOCK_DAY_MS);
    if (first_ms > last_ms) { /* within one day */
        add_segment(r, HOURLY, r->since_ms, r->until_ms);
        return 0;
    }
    add_segment(r, HOURLY, r->since_ms, first_ms);
    add_segment(r, DAILY, first_ms, last_ms);
    add_segment(r, HOURLY, last_ms, r->until_ms);
    return 0;
}

/* Leaves out the time before the first row and behind the last one: a range may be centuries. */
static int begin_segment(struct report *r, sqlite3 *db, struct segment *s)
{
    sqlite3_stmt *stmt = NULL;
    int rc = database_prepare(db, TABLES[s->table].bounds, &stmt);

    if (rc < 0)
        return rc;
    sqlite3_bind_int64(stmt, 1, s->from_ms);
    sqlite3_bind_int64(stmt, 2, s->until_ms);
    rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW) {
        int64_t first_ms = sqlite3_column_int64(stmt, 0);
        int64_t last_ms = sqlite3_column_int64(stmt, 1);

        if (sqlite3_column_type(stmt, 0) == SQLITE_NULL ||
            sqlite3_column_type(stmt, 1) == SQLITE_NULL)
            s->until_ms = s->from_ms;
        else
            *s = (struct segment){.table = s->table,
                                  .from_ms = first_ms,
                                  .until_ms = last_ms + TABLES[s->table].period_ms};
    }
    sqlite3_finalize(stmt);
    r->period_ms = s->from_ms;
    r->after_key[0] = '\0';
    r->after_model[0] = '\0';
    r->is_begun = true;
    return database_errno(rc);
}

/* 0 = the segment is complete, 1 = *left is used up, -errno. */
static int scan(struct report *r, const struct segment *s, sqlite3_stmt *stmt, size_t *left)
{
    size_t count = 0;
    int rc;

    sqlite3_bind_int64(stmt, 1, r->period_ms);
    sqlite3_bind_text(stmt, 2, r->after_key, -1, SQLITE_TRANSIENT);
    sqlite3_bind_text(stmt, 3, r->after_model, -1, SQLITE_TRANSIENT);
    sqlite3_bind_int64(stmt, 4, s->until_ms);
    sqlite3_bind_int64(stmt, 5, (int64_t)*left);
    rc = read_rows(r, stmt, &count);
    *left -= count;
    if (rc < 0)
        return rc;
    return *left == 0 ? 1 : 0;
}

/* The same: a look-up of each period, which counts as a row. */
static int look_up(struct report *r, const struct segment *s, sqlite3_stmt *stmt, size_t *left)
{
    sqlite3_bind_text(stmt, 2, r->key_text, -1, SQLITE_STATIC);
    while (r->period_ms < s->until_ms) {
        size_t count = 1;
        int rc;

        if (*left == 0)
            return 1;
        sqlite3_bind_int64(stmt, 1, r->period_ms);
        rc = read_rows(r, stmt, &count);
        if (rc < 0)
            return rc;
        *left -= count < *left ? count : *left;
        r->period_ms += TABLES[s->table].period_ms;
    }
    return 0;
}

static int read_segment(struct report *r, sqlite3 *db, size_t *left)
{
    struct segment *s = &r->segments[r->segment];
    bool has_key = r->key_text[0] != '\0';
    sqlite3_stmt *stmt = NULL;
    int rc = r->is_begun ? 0 : begin_segment(r, db, s);

    if (rc < 0)
        return rc;
    rc = database_prepare(db, has_key ? TABLES[s->table].lookup : TABLES[s->table].scan, &stmt);
    if (rc < 0)
        return rc;
    rc = has_key ? look_up(r, s, stmt, left) : scan(r, s, stmt, left);
    sqlite3_finalize(stmt);
    return rc;
}

int report_step(struct report *r, struct ledger *l, size_t max)
{
    sqlite3 *db = ledger_db(l);
    size_t left = max;
    int rc = 0;

    if (db == NULL)
        return -EIO;
    if (!r->is_planned)
        rc = plan(r, db);
    while (rc == 0 && r->segment < r->segment_count) {
        rc = read_segment(r, db, &left);
        if (rc != 0)
            return rc;
        r->segment++;
        r->is_begun = false;
    }
    return rc;
}

const struct sums *report_total(const struct report *r)
{
    return &r->total;
}

uint64_t report_key_id(const struct report *r)
{
    return r->query.key_id;
}

static void put_sums(const struct sums *sums, struct buf *out)
{
    char cost[MONEY_TEXT_BYTES];

    for (size_t i = 0; i < SUM_FIELDS; i++) {
        if (i == SUM_COST)
            continue;
        json_put_field_i64(out, SUM_FIELD_NAMES[i], sums->of[i]);
    }
    money_format(sums->of[SUM_COST], cost);
    json_put_field_text(out, SUM_FIELD_NAMES[SUM_COST], cost);
}

static int put_row(const struct report *r, const struct row *row, struct key_names *names,
                   struct buf *out)
{
    char name[KEY_NAME_BYTES];
    int rc;

    buf_byte(out, '{');
    json_put_field_text(out, BY_NAMES[r->query.by], row->label);
    if (r->query.by == REPORT_BY_KEY) {
        rc = key_names_get(names, row->label, name);
        if (rc < 0)
            return rc;
        json_put_field_text(out, "name", name[0] != '\0' ? name : NULL);
    }
    put_sums(&row->sums, out);
    return buf_byte(out, '}');
}

static int put_rows(const struct report *r, struct ledger *l, struct buf *out)
{
    struct key_names names = {0};
    int rc = r->query.by == REPORT_BY_KEY ? key_names_open(l, &names) : 0;

    for (size_t i = 0; i < r->count && rc == 0; i++) {
        if (i > 0)
            buf_byte(out, ',');
        rc = put_row(r, &r->rows[i], &names, out);
    }
    key_names_close(&names);
    return rc;
}

int report_encode(const struct report *r, struct ledger *l, struct buf *out)
{
    int rc;

    buf_byte(out, '{');
    json_put_field_time(out, "since", r->since_ms);
    json_put_field_time(out, "until", r->until_ms);
    json_put_field_text(out, "by", BY_NAMES[r->query.by]);
    json_put_key(out, "rows");
    buf_byte(out, '[');
    rc = put_rows(r, l, out);
    if (rc < 0)
        return rc;
    buf_byte(out, ']');
    json_put_key(out, "total");
    buf_byte(out, '{');
    put_sums(&r->total, out);
    return buf_str(out, "}}");
}
