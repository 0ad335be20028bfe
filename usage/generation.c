#include "usage/generation.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/money.h"
#include "usage/keytable.h"

/* In the order of the columns. */
enum {
    U_KEY,
    U_PROVIDER,
    U_MODEL,
    U_INPUT,
    U_CACHED,
    U_OUTPUT,
    U_COST,
    U_CREATED,
    U_OUTCOME,
    U_SOURCE,
    U_STATUS,
    U_ERROR,
    U_STREAMED,
    U_DURATION,
    U_FIRST_BYTE
};
static const char USAGE_SQL[] =
    "SELECT api_key_id, provider, model, tokens_input, tokens_cached, tokens_output, cost,"
    " created_at, outcome, source, http_status, error, streamed, duration_ms, first_byte_ms"
    " FROM usage WHERE id = ?1";
enum { A_PROVIDER, A_MODEL, A_STATUS, A_ERROR, A_DURATION };
static const char ATTEMPTS_SQL[] = "SELECT provider, model, status, error, duration_ms"
                                   " FROM usage_attempts WHERE usage_id = ?1 ORDER BY number";

static const char *const SOURCES[] = {[USAGE_BY_NOBODY] = "none",
                                      [USAGE_BY_PROVIDER] = "provider",
                                      [USAGE_BY_LOCAL] = "local",
                                      [USAGE_BY_PARTIAL] = "partial"};

int generation_name_parse(const char *name, struct usage_id *out)
{
    static const char *const prefixes[] = {"chatcmpl-", "cmpl-", "req_", ""};

    for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
        size_t len = strlen(prefixes[i]);

        if (strncmp(name, prefixes[i], len) == 0)
            return usage_id_parse(name + len, strlen(name + len), out);
    }
    return -EINVAL;
}

static void put_number(struct buf *out, const char *name, sqlite3_stmt *stmt, int column)
{
    json_put_key(out, name);
    if (sqlite3_column_type(stmt, column) == SQLITE_NULL)
        buf_str(out, "null");
    else
        buf_i64(out, sqlite3_column_int64(stmt, column));
}

/* NULL and "" are null. */
static void put_text(struct buf *out, const char *name, sqlite3_stmt *stmt, int column)
{
    const char *text = (const char *)sqlite3_column_text(stmt, column);

    json_put_field_text(out, name, text != NULL && text[0] != '\0' ? text : NULL);
}

/* latency is the whole request's; generation_time what of it came after the first byte. */
static void put_times(struct buf *out, sqlite3_stmt *stmt)
{
    int64_t duration_ms = sqlite3_column_int64(stmt, U_DURATION);
    int64_t first_ms = sqlite3_column_int64(stmt, U_FIRST_BYTE);

    json_put_field_i64(out, "latency", duration_ms);
    put_number(out, "first_byte_latency", stmt, U_FIRST_BYTE);
    json_put_key(out, "generation_time");
    if (sqlite3_column_type(stmt, U_FIRST_BYTE) == SQLITE_NULL)
        buf_str(out, "null");
    else
        buf_i64(out, duration_ms > first_ms ? duration_ms - first_ms : 0);
}

/* What is not kept (how an answer finished, the provider's own id) is null and not left out:
 * clients read these members without asking whether they are there. */
static void put_usage(struct buf *out, const char *name, sqlite3_stmt *stmt)
{
    int64_t outcome = sqlite3_column_int64(stmt, U_OUTCOME);
    int64_t source = sqlite3_column_int64(stmt, U_SOURCE);
    bool has_failed = outcome == USAGE_ERROR || outcome == USAGE_ABORTED;
    char cost[MONEY_TEXT_BYTES];

    json_put_field_text(out, "id", name);
    put_text(out, "model", stmt, U_MODEL);
    put_text(out, "provider_name", stmt, U_PROVIDER);
    json_put_field_text(out, "upstream_id", NULL);
    json_put_field_time(out, "created_at", sqlite3_column_int64(stmt, U_CREATED));
    json_put_field_bool(out, "streamed", sqlite3_column_int(stmt, U_STREAMED) != 0);
    json_put_field_bool(out, "cancelled", outcome == USAGE_CANCELLED);
    json_put_field_text(out, "finish_reason", has_failed ? "error" : NULL);
    json_put_field_text(out, "native_finish_reason", NULL);
    put_times(out, stmt);
    put_number(out, "tokens_prompt", stmt, U_INPUT);
    put_number(out, "tokens_completion", stmt, U_OUTPUT);
    put_number(out, "native_tokens_prompt", stmt, U_INPUT);
    put_number(out, "native_tokens_completion", stmt, U_OUTPUT);
    json_put_field_text(out, "native_tokens_reasoning", NULL);
    put_number(out, "native_tokens_cached", stmt, U_CACHED);
    json_put_field_text(out, "tokens_source",
                        source >= 0 && source < (int64_t)(sizeof(SOURCES) / sizeof(SOURCES[0]))
                            ? SOURCES[source]
                            : NULL);
    money_format(sqlite3_column_int64(stmt, U_COST), cost);
    json_put_field_text(out, "total_cost", cost);
    json_put_field_text(out, "cache_discount", NULL);
    put_number(out, "http_status", stmt, U_STATUS);
    put_text(out, "error_code", stmt, U_ERROR);
}

static int put_attempts(struct buf *out, struct ledger *ledger, const struct usage_id *id)
{
    sqlite3_stmt *stmt;
    int rc = ledger_prepare(ledger, ATTEMPTS_SQL, &stmt);

    if (rc < 0)
        return rc;
    sqlite3_bind_blob(stmt, 1, id->bytes, USAGE_ID_BYTES, SQLITE_STATIC);
    json_put_key(out, "provider_responses");
    buf_byte(out, '[');
    while ((rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        if (out->len > 0 && out->data[out->len - 1] == '}')
            buf_byte(out, ',');
        buf_byte(out, '{');
        put_text(out, "provider_name", stmt, A_PROVIDER);
        put_text(out, "model", stmt, A_MODEL);
        put_number(out, "status", stmt, A_STATUS);
        put_text(out, "error_code", stmt, A_ERROR);
        put_number(out, "latency", stmt, A_DURATION);
        buf_byte(out, '}');
    }
    buf_byte(out, ']');
    sqlite3_finalize(stmt);
    return database_errno(rc);
}

static bool is_owner(sqlite3_stmt *stmt, uint64_t key_id)
{
    const char *key = (const char *)sqlite3_column_text(stmt, U_KEY);
    char wanted[KEY_ID_TEXT_BYTES];

    key_id_format(key_id, wanted);
    return key != NULL && strcmp(key, wanted) == 0;
}

int generation_encode(struct ledger *ledger, const struct usage_id *id, uint64_t key_id,
                      const char *name, struct buf *out)
{
    sqlite3_stmt *stmt;
    int rc = ledger_prepare(ledger, USAGE_SQL, &stmt);

    if (rc < 0)
        return rc;
    sqlite3_bind_blob(stmt, 1, id->bytes, USAGE_ID_BYTES, SQLITE_STATIC);
    rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW && is_owner(stmt, key_id)) {
        buf_byte(out, '{');
        put_usage(out, name, stmt);
        rc = put_attempts(out, ledger, id);
        buf_byte(out, '}');
    } else {
        rc = rc == SQLITE_ROW || rc == SQLITE_DONE ? -ENOENT : database_errno(rc);
    }
    sqlite3_finalize(stmt);
    return rc;
}
