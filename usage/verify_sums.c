#include "usage/verify_private.h"

#include <errno.h>

#include "common/clock.h"

static int check_hour_row(struct verify *v, sqlite3_stmt *stmt)
{
    static const struct sums nothing;
    bool has_rows = sqlite3_column_int(stmt, 3) != 0, has_day = sqlite3_column_int(stmt, 4) != 0;
    struct drift where;
    struct sums sums = {0};

    if (verify_text(stmt, 1) == NULL || verify_text(stmt, 2) == NULL)
        return -ENOMEM;
    v->at_ms = sqlite3_column_int64(stmt, 0);
    text_copy(v->key, sizeof(v->key), verify_text(stmt, 1));
    text_copy(v->model, sizeof(v->model), verify_text(stmt, 2));
    sums_add_columns(&sums, stmt, 5, 1);
    if (!has_rows && v->at_ms >= v->usage_trimmed_ms) {
        where = drift_at("usage_hourly", v->key, v->model, v->at_ms);
        drifts_compare(&v->drifts, &where, &nothing, &sums);
    }
    if (!has_day && v->at_ms >= v->hourly_trimmed_ms) {
        where = drift_at("usage_daily", v->key, v->model, v->at_ms - v->at_ms % CLOCK_DAY_MS);
        drifts_compare(&v->drifts, &where, &sums, &nothing);
    }
    return 0;
}

int verify_hours(struct verify *v, sqlite3 *db)
{
    sqlite3_stmt *stmt = NULL;
    int count = 0, step = SQLITE_OK;
    int rc = database_prepare(
        db,
        "SELECT hour, api_key_id, model,"
        " EXISTS (SELECT 1 FROM usage u WHERE u.api_key_id = h.api_key_id"
        "  AND u.created_at >= h.hour AND u.created_at < h.hour + 3600000),"
        " EXISTS (SELECT 1 FROM usage_daily d WHERE d.day = h.hour - h.hour % 86400000"
        "  AND d.api_key_id = h.api_key_id AND d.model = h.model), " SUM_COLUMNS
        " FROM usage_hourly h WHERE (hour, api_key_id, model) > (?1, ?2, ?3)"
        " ORDER BY hour, api_key_id, model LIMIT ?4",
        &stmt);

    if (rc < 0)
        return rc;
    sqlite3_bind_int64(stmt, 1, v->at_ms);
    sqlite3_bind_text(stmt, 2, v->key, -1, SQLITE_TRANSIENT);
    sqlite3_bind_text(stmt, 3, v->model, -1, SQLITE_TRANSIENT);
    sqlite3_bind_int(stmt, 4, VERIFY_UNIT_ROWS);
    while (rc == 0 && (step = sqlite3_step(stmt)) == SQLITE_ROW) {
        rc = check_hour_row(v, stmt);
        count++;
    }
    sqlite3_finalize(stmt);
    if (rc == 0)
        rc = database_errno(step);
    return rc < 0 ? rc : count < VERIFY_UNIT_ROWS;
}

/* ---- usage_daily against usage_hourly ---- */

#define H(n) "?1 + 3600000 * " #n
#define DAY_HOURS                                                                                                         \
    H(0)                                                                                                                  \
    "," H(1) "," H(2) "," H(3) "," H(4) "," H(5) "," H(6) "," H(7) "," H(8) "," H(9) "," H(10) "," H(11) "," H(12) "," H( \
        13) "," H(14) "," H(15) "," H(16) "," H(17) "," H(18) "," H(19) "," H(20) "," H(21) "," H(22) "," H(23)

static int add_hours(sqlite3_stmt *stmt, int64_t day_at_ms, const char *key, const char *model,
                     struct sums *out)
{
    int step;

    sqlite3_reset(stmt);
    sqlite3_bind_int64(stmt, 1, day_at_ms);
    sqlite3_bind_text(stmt, 2, key, -1, SQLITE_STATIC);
    sqlite3_bind_text(stmt, 3, model, -1, SQLITE_STATIC);
    while ((step = sqlite3_step(stmt)) == SQLITE_ROW)
        sums_add_columns(out, stmt, 0, 1);
    return database_errno(step);
}

static int check_day_row(struct verify *v, sqlite3_stmt *days, sqlite3_stmt *hours)
{
    struct sums expected = {0}, found = {0};
    struct drift where;
    int rc;

    if (verify_text(days, 1) == NULL || verify_text(days, 2) == NULL)
        return -ENOMEM;
    v->at_ms = sqlite3_column_int64(days, 0);
    text_copy(v->key, sizeof(v->key), verify_text(days, 1));
    text_copy(v->model, sizeof(v->model), verify_text(days, 2));
    if (v->at_ms < v->hourly_trimmed_ms)
        return 0;
    sums_add_columns(&found, days, 3, 1);
    rc = add_hours(hours, v->at_ms, v->key, v->model, &expected);
    if (rc < 0)
        return rc;
    where = drift_at("usage_daily", v->key, v->model, v->at_ms);
    drifts_compare(&v->drifts, &where, &expected, &found);
    v->days++;
    return 0;
}

int verify_days(struct verify *v, sqlite3 *db)
{
    sqlite3_stmt *days = NULL, *hours = NULL;
    int count = 0, step = SQLITE_OK;
    int rc = database_prepare(db,
                              "SELECT day, api_key_id, model, " SUM_COLUMNS " FROM usage_daily"
                              " WHERE (day, api_key_id, model) > (?1, ?2, ?3)"
                              " ORDER BY day, api_key_id, model LIMIT ?4",
                              &days);

    /* 24 look-ups by the whole key: a day of all keys would be a long range. */
    if (rc == 0)
        rc = database_prepare(db,
                              "SELECT " SUM_COLUMNS " FROM usage_hourly WHERE hour IN (" DAY_HOURS
                              ") AND api_key_id = ?2 AND model = ?3",
                              &hours);
    if (rc == 0) {
        sqlite3_bind_int64(days, 1, v->at_ms);
        sqlite3_bind_text(days, 2, v->key, -1, SQLITE_TRANSIENT);
        sqlite3_bind_text(days, 3, v->model, -1, SQLITE_TRANSIENT);
        sqlite3_bind_int(days, 4, VERIFY_UNIT_ROWS / 4);
    }
    while (rc == 0 && (step = sqlite3_step(days)) == SQLITE_ROW) {
        rc = check_day_row(v, days, hours);
        count++;
    }
    sqlite3_finalize(days);
    sqlite3_finalize(hours);
    if (rc == 0)
        rc = database_errno(step);
    return rc < 0 ? rc : count < VERIFY_UNIT_ROWS / 4;
}
