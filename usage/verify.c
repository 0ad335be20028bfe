#include "usage/verify.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/json.h"
#include "common/money.h"
#include "common/text.h"
#include "usage/meta.h"
#include "usage/verify_private.h"

#define SLICE_US 3000

enum phase { PHASE_BALANCES, PHASE_ROWS, PHASE_HOURS, PHASE_DAYS, PHASE_DONE };

typedef int (*unit_fn)(struct verify *v, sqlite3 *db);

const char *verify_text(sqlite3_stmt *stmt, int column)
{
    return (const char *)sqlite3_column_text(stmt, column);
}

static const unit_fn PHASES[PHASE_DONE] = {
    [PHASE_BALANCES] = verify_balances,
    [PHASE_ROWS] = verify_rows,
    [PHASE_HOURS] = verify_hours,
    [PHASE_DAYS] = verify_days,
};

struct verify *verify_new(struct ledger *ledger)
{
    struct verify *v = calloc(1, sizeof(*v));

    if (v != NULL) {
        v->ledger = ledger;
        v->at_ms = INT64_MIN;
    }
    return v;
}

void verify_free(struct verify *v)
{
    if (v == NULL)
        return;
    verify_rows_end(v);
    free(v->hour.models);
    free(v);
}

static void next_phase(struct verify *v)
{
    if (v->phase == PHASE_ROWS)
        verify_rows_end(v);
    v->phase++;
    v->key[0] = '\0';
    v->model[0] = '\0';
    v->at_ms = INT64_MIN;
    memset(v->id, 0, sizeof(v->id));
}

static int read_trimmed(struct verify *v, sqlite3 *db)
{
    int64_t usage_ms = INT64_MIN;
    int rc = meta_get(db, META_HOURLY_TRIMMED, INT64_MIN, &v->hourly_trimmed_ms);

    if (rc == 0)
        rc = meta_get(db, META_USAGE_TRIMMED, INT64_MIN, &usage_ms);
    if (rc < 0)
        return rc;
    /* Rows are compared with hourly sums: both must be there. */
    v->usage_trimmed_ms = usage_ms > v->hourly_trimmed_ms ? usage_ms : v->hourly_trimmed_ms;
    return 0;
}

/* Everything a unit reads is one moment's state. */
static int run_unit(struct verify *v, sqlite3 *db)
{
    int rc = database_exec(db, "BEGIN");
    int end;

    if (rc == 0)
        rc = read_trimmed(v, db);
    if (rc == 0)
        rc = PHASES[v->phase](v, db);
    if (rc < 0) {
        database_rollback(db);
        return rc;
    }
    end = database_exec(db, "COMMIT");
    return end < 0 ? end : rc;
}

int verify_step(struct verify *v)
{
    int64_t deadline_us = clock_monotonic_us() + SLICE_US;

    while (v->phase != PHASE_DONE) {
        sqlite3 *db = ledger_db(v->ledger);
        int rc = db != NULL ? run_unit(v, db) : -EIO;

        if (rc < 0)
            return rc;
        if (rc == 1)
            next_phase(v);
        if (v->phase != PHASE_DONE && clock_monotonic_us() >= deadline_us)
            return 1;
    }
    return 0;
}

uint64_t verify_drift_count(const struct verify *v)
{
    return v->drifts.count;
}

int verify_encode(const struct verify *v, struct buf *out)
{
    char cost[MONEY_TEXT_BYTES];

    buf_byte(out, '{');
    json_put_field_bool(out, "clean", v->drifts.count == 0);
    json_put_field_u64(out, "drifts", v->drifts.count);
    json_put_key(out, "named");
    drifts_encode(&v->drifts, out);
    json_put_field_u64(out, "keys", v->keys);
    json_put_field_i64(out, "requests", v->total.of[SUM_REQUESTS]);
    json_put_field_u64(out, "hours", v->hours);
    json_put_field_u64(out, "days", v->days);
    money_format(v->total.of[SUM_COST], cost);
    json_put_field_text(out, "cost", cost);
    return buf_byte(out, '}');
}

void verify_describe(const struct verify *v, size_t index, struct buf *out)
{
    drift_describe(&v->drifts.named[index], out);
}
