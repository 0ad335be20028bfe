#include "usage/verify_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "usage/late_rows.h"

#define MODELS_MAX 100000 /* of one key in one hour: more is not a ledger of ours */

static struct model_sums *find_model(struct hour *h, const char *model)
{
    struct model_sums *m;

    if (h->last < h->count && strcmp(h->models[h->last].model, model) == 0)
        return &h->models[h->last];
    for (h->last = 0; h->last < h->count; h->last++)
        if (strcmp(h->models[h->last].model, model) == 0)
            return &h->models[h->last];
    if (h->count == h->capacity) {
        size_t capacity = h->capacity == 0 ? 16 : 2 * h->capacity;
        struct model_sums *grown =
            capacity <= MODELS_MAX ? reallocarray(h->models, capacity, sizeof(*grown)) : NULL;

        if (grown == NULL)
            return NULL;
        h->models = grown;
        h->capacity = capacity;
    }
    m = &h->models[h->count++];
    memset(m, 0, sizeof(*m));
    text_copy(m->model, sizeof(m->model), model);
    return m;
}

static bool is_in_hour(const struct hour *h, const char *key, int64_t created_at_ms)
{
    return h->open && created_at_ms >= h->at_ms && created_at_ms < h->at_ms + CLOCK_HOUR_MS &&
           strcmp(key, h->key) == 0;
}

/* A row that came or went behind the place the scan has reached; of what lies before it the scan
 * itself will see the result. */
static int on_late_row(void *arg, const struct late_row *row)
{
    struct verify *v = arg;
    struct model_sums *m;

    if (!is_in_hour(&v->hour, row->key, row->created_at_ms) || row->created_at_ms > v->at_ms ||
        (row->created_at_ms == v->at_ms && memcmp(row->id, v->id, sizeof(v->id)) > 0))
        return 0;
    m = find_model(&v->hour, row->model);
    if (m == NULL)
        return -ENOMEM;
    for (int i = 0; i < SUM_FIELDS; i++)
        sum_add(&m->sums.of[i], row->sums.of[i]);
    return 0;
}

/* The other connection has seen nothing of what happened meanwhile: the open hour begins anew. */
static int collect_anew(struct verify *v, sqlite3 *db)
{
    int rc = late_rows_open(db, &v->late);

    if (rc == 0 && v->hour.open) {
        text_copy(v->key, sizeof(v->key), v->hour.key);
        v->at_ms = v->hour.at_ms - 1;
        memset(v->id, 0xff, sizeof(v->id));
        v->hour.open = false;
    }
    return rc;
}

static int take_late_rows(struct verify *v, sqlite3 *db)
{
    int rc = -ESTALE;

    if (v->late != 0)
        rc = late_rows_take(db, v->late, on_late_row, v);
    return rc == -ESTALE ? collect_anew(v, db) : rc;
}

static void compare_model(struct verify *v, const char *model, const struct sums *expected,
                          const struct sums *found)
{
    struct drift where = drift_at("usage_hourly", v->hour.key, model, v->hour.at_ms);

    drifts_compare(&v->drifts, &where, expected, found);
}

static int compare_found(struct verify *v, sqlite3_stmt *stmt)
{
    const char *model = verify_text(stmt, 0);
    struct sums found = {0};
    struct model_sums *m = model != NULL ? find_model(&v->hour, model) : NULL;

    if (m == NULL)
        return -ENOMEM;
    sums_add_columns(&found, stmt, 1, 1);
    compare_model(v, model, &m->sums, &found);
    m->compared = true;
    return 0;
}

static int compare_hour(struct verify *v, sqlite3 *db)
{
    static const struct sums nothing;
    sqlite3_stmt *stmt = NULL;
    int step = SQLITE_OK;
    int rc = database_prepare(
        db, "SELECT model, " SUM_COLUMNS " FROM usage_hourly WHERE hour = ?1 AND api_key_id = ?2",
        &stmt);

    if (rc < 0)
        return rc;
    sqlite3_bind_int64(stmt, 1, v->hour.at_ms);
    sqlite3_bind_text(stmt, 2, v->hour.key, -1, SQLITE_STATIC);
    while (rc == 0 && (step = sqlite3_step(stmt)) == SQLITE_ROW)
        rc = compare_found(v, stmt);
    sqlite3_finalize(stmt);
    if (rc == 0)
        rc = database_errno(step);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < v->hour.count; i++) {
        struct model_sums *m = &v->hour.models[i];

        if (!m->compared)
            compare_model(v, m->model, &m->sums, &nothing);
        for (int f = 0; f < SUM_FIELDS; f++)
            sum_add(&v->total.of[f], m->sums.of[f]);
    }
    v->hours++;
    return 0;
}

/* Retention may have taken some of the hour's rows while they were being added up. */
static int close_hour(struct verify *v, sqlite3 *db)
{
    int rc = 0;

    if (v->hour.open && v->hour.at_ms >= v->usage_trimmed_ms)
        rc = compare_hour(v, db);
    v->hour.open = false;
    return rc;
}

static int add_row(struct verify *v, sqlite3 *db, sqlite3_stmt *stmt)
{
    const char *key = verify_text(stmt, 0), *model = verify_text(stmt, 3);
    int64_t created_at_ms = sqlite3_column_int64(stmt, 1);
    const void *id = sqlite3_column_blob(stmt, 2);
    struct model_sums *m;

    if (key == NULL || model == NULL || id == NULL ||
        sqlite3_column_bytes(stmt, 2) != USAGE_ID_BYTES)
        return -ENOMEM; /* columns that are NOT NULL and checked */
    if (!is_in_hour(&v->hour, key, created_at_ms)) {
        int rc = close_hour(v, db);

        if (rc < 0)
            return rc;
        text_copy(v->hour.key, sizeof(v->hour.key), key);
        v->hour.at_ms = created_at_ms - created_at_ms % CLOCK_HOUR_MS;
        v->hour.count = 0;
        v->hour.open = true;
    }
    text_copy(v->key, sizeof(v->key), key);
    v->at_ms = created_at_ms;
    memcpy(v->id, id, sizeof(v->id));
    m = find_model(&v->hour, model);
    if (m == NULL)
        return -ENOMEM;
    sums_add_columns(&m->sums, stmt, 4, 1);
    return 0;
}

int verify_rows(struct verify *v, sqlite3 *db)
{
    sqlite3_stmt *stmt = NULL;
    int count = 0, step = SQLITE_OK;
    int rc = take_late_rows(v, db);

    if (rc == 0)
        rc = database_prepare(db,
                              "SELECT api_key_id, created_at, id, model, " SUM_OF_ROW_COLUMNS
                              " FROM usage WHERE (api_key_id, created_at, id) > (?1, ?2, ?3)"
                              " ORDER BY api_key_id, created_at, id LIMIT ?4",
                              &stmt);
    if (rc < 0)
        return rc;
    /* Copies: the loop moves what they were made of. */
    sqlite3_bind_text(stmt, 1, v->key, -1, SQLITE_TRANSIENT);
    sqlite3_bind_int64(stmt, 2, v->at_ms);
    sqlite3_bind_blob(stmt, 3, v->id, USAGE_ID_BYTES, SQLITE_TRANSIENT);
    sqlite3_bind_int(stmt, 4, VERIFY_UNIT_ROWS);
    while (rc == 0 && (step = sqlite3_step(stmt)) == SQLITE_ROW) {
        rc = add_row(v, db, stmt);
        count++;
    }
    sqlite3_finalize(stmt);
    if (rc == 0)
        rc = database_errno(step);
    if (rc < 0 || count == VERIFY_UNIT_ROWS)
        return rc;
    rc = close_hour(v, db);
    return rc < 0 ? rc : 1;
}

void verify_rows_end(struct verify *v)
{
    sqlite3 *db = ledger_db(v->ledger);

    if (v->late != 0 && db != NULL)
        late_rows_close(db, v->late);
    v->late = 0;
}
