#include "usage/calibration_store.h"

#include <stdlib.h>
#include <string.h>

#include "usage/database.h"

struct calibration_store {
    struct calibration_region *ratios;
    const struct counters_region *names;
    size_t loaded;              /* models whose rows were read: a reload adds names, none goes */
    struct calibration *stored; /* by model: what the database has */
    struct calibration *known;  /* the words as they were when the writing began */
};

struct calibration_store *calibration_store_new(struct calibration_region *ratios,
                                                const struct counters_region *names)
{
    struct calibration_store *s = calloc(1, sizeof(*s));
    size_t count = calibration_count(ratios);

    if (s == NULL)
        return NULL;
    s->ratios = ratios;
    s->names = names;
    s->stored = calloc(count, sizeof(*s->stored));
    s->known = calloc(count, sizeof(*s->known));
    if (s->stored == NULL || s->known == NULL) {
        calibration_store_free(s);
        return NULL;
    }
    return s;
}

void calibration_store_free(struct calibration_store *s)
{
    if (s == NULL)
        return;
    free(s->stored);
    free(s->known);
    free(s);
}

/* ---- loading ---- */

/* 0 for a number that no ratio has. */
static uint32_t column_u32(sqlite3_stmt *stmt, int column)
{
    int64_t value = sqlite3_column_int64(stmt, column);

    return value >= 0 && value <= UINT32_MAX ? (uint32_t)value : 0;
}

static int load_row(struct calibration_store *s, sqlite3_stmt *stmt, size_t model)
{
    struct calibration row = {.ratio = CALIBRATION_ONE};
    int step;

    sqlite3_bind_text(stmt, 1, counters_model_name(s->names, model), -1, SQLITE_STATIC);
    step = sqlite3_step(stmt);
    if (step == SQLITE_ROW)
        row = (struct calibration){column_u32(stmt, 0), column_u32(stmt, 1)};
    sqlite3_reset(stmt);
    if (step != SQLITE_ROW && step != SQLITE_DONE)
        return database_errno(step);
    s->stored[model] = row;
    calibration_restore(s->ratios, model, row);
    return 0;
}

static bool has_more(const struct calibration_store *s)
{
    return s->loaded < calibration_count(s->ratios) &&
           counters_model_name(s->names, s->loaded) != NULL;
}

int calibration_store_load(struct calibration_store *s, sqlite3 *db)
{
    sqlite3_stmt *stmt = NULL;
    int rc;

    if (!has_more(s))
        return 0;
    rc =
        database_prepare(db, "SELECT ratio, tokens FROM model_calibration WHERE model = ?1", &stmt);
    while (rc == 0 && has_more(s)) {
        rc = load_row(s, stmt, s->loaded);
        if (rc == 0)
            s->loaded++;
    }
    sqlite3_finalize(stmt);
    return rc;
}

void calibration_store_begin_anew(struct calibration_store *s)
{
    s->loaded = 0;
}

/* ---- writing ---- */

static bool is_stored(const struct calibration_store *s, size_t model)
{
    return s->known[model].ratio == s->stored[model].ratio &&
           s->known[model].tokens == s->stored[model].tokens;
}

/* Whether there is something to write. What is not known is not written. */
static bool look(struct calibration_store *s)
{
    bool is_new = false;

    for (size_t i = 0; i < s->loaded; i++) {
        s->known[i] = calibration_get(s->ratios, i);
        if (s->known[i].tokens == 0)
            s->known[i] = s->stored[i];
        is_new |= !is_stored(s, i);
    }
    return is_new;
}

static int write_row(const struct calibration_store *s, sqlite3_stmt *stmt, size_t model,
                     int64_t now_at_ms)
{
    sqlite3_bind_text(stmt, 1, counters_model_name(s->names, model), -1, SQLITE_STATIC);
    sqlite3_bind_int64(stmt, 2, s->known[model].ratio);
    sqlite3_bind_int64(stmt, 3, s->known[model].tokens);
    sqlite3_bind_int64(stmt, 4, now_at_ms);
    return database_step(stmt);
}

static int write_rows(const struct calibration_store *s, sqlite3 *db, int64_t now_at_ms)
{
    sqlite3_stmt *stmt = NULL;
    int rc = database_prepare(
        db, "INSERT OR REPLACE INTO model_calibration VALUES (?1, ?2, ?3, ?4)", &stmt);

    for (size_t i = 0; rc == 0 && i < s->loaded; i++)
        if (!is_stored(s, i))
            rc = write_row(s, stmt, i, now_at_ms);
    sqlite3_finalize(stmt);
    return rc;
}

int calibration_store_write(struct calibration_store *s, sqlite3 *db, int64_t now_at_ms)
{
    int rc = calibration_store_load(s, db);

    if (rc < 0 || !look(s))
        return rc;
    rc = database_exec(db, "BEGIN IMMEDIATE");
    if (rc == 0)
        rc = write_rows(s, db, now_at_ms);
    if (rc == 0)
        rc = database_exec(db, "COMMIT");
    if (rc < 0) {
        database_rollback(db);
        return rc;
    }
    memcpy(s->stored, s->known, s->loaded * sizeof(*s->stored));
    return 1;
}
