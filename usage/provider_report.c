#include "usage/provider_report.h"

#include <inttypes.h>
#include <stdbool.h>

#include "common/json.h"

#define RATE_UNIT 10000 /* the column's: hundredths of a percent */

enum { P_PROVIDER, P_MODEL, P_STATUS, P_LATENCY, P_ERROR_RATE, P_UPDATED };
/* The limit keeps the answer within a frame; a row takes some 300 bytes. */
static const char SQL[] = "SELECT provider, model, status, latency, error_rate, updated_at"
                          " FROM provider_status ORDER BY provider, model LIMIT 2000";

static const char *text(sqlite3_stmt *stmt, int column)
{
    return (const char *)sqlite3_column_text(stmt, column);
}

static void put_row(struct buf *out, sqlite3_stmt *stmt)
{
    int64_t rate = sqlite3_column_int64(stmt, P_ERROR_RATE);

    buf_byte(out, '{');
    json_put_field_text(out, "provider", text(stmt, P_PROVIDER));
    json_put_field_text(out, "model", text(stmt, P_MODEL));
    json_put_field_text(out, "status", text(stmt, P_STATUS));
    json_put_key(out, "latency_ms");
    if (sqlite3_column_type(stmt, P_LATENCY) == SQLITE_NULL)
        buf_str(out, "null");
    else
        buf_i64(out, sqlite3_column_int64(stmt, P_LATENCY));
    json_put_key(out, "error_rate");
    if (sqlite3_column_type(stmt, P_ERROR_RATE) == SQLITE_NULL || rate < 0)
        buf_str(out, "null");
    else
        buf_printf(out, "%" PRId64 ".%04" PRId64, rate / RATE_UNIT, rate % RATE_UNIT);
    json_put_field_time(out, "updated_at", sqlite3_column_int64(stmt, P_UPDATED));
    buf_byte(out, '}');
}

int provider_report_encode(struct ledger *ledger, struct buf *out)
{
    sqlite3_stmt *stmt;
    bool is_first = true;
    int rc = ledger_prepare(ledger, SQL, &stmt);

    if (rc < 0)
        return rc;
    buf_str(out, "{\"object\":\"list\",\"data\":[");
    while ((rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        if (!is_first)
            buf_byte(out, ',');
        is_first = false;
        put_row(out, stmt);
    }
    buf_str(out, "]}");
    sqlite3_finalize(stmt);
    return database_errno(rc);
}
