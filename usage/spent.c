#include "usage/spent.h"

#include <errno.h>
#include <string.h>

#include "common/clock.h"
#include "common/json.h"
#include "usage/sums.h"

int spent_reader_open(struct ledger *ledger, struct spent_reader *reader)
{
    sqlite3 *db = ledger_db(ledger);
    int64_t last_at_ms;
    int rc;

    memset(reader, 0, sizeof(*reader));
    if (db == NULL)
        return -EIO;
    rc = database_get_i64(db, "SELECT max(day) FROM usage_daily", 0, &last_at_ms);
    if (rc == 0)
        rc = database_prepare(db, "SELECT cost FROM usage_daily WHERE day = ?1 AND api_key_id = ?2",
                              &reader->stmt);
    reader->last_day = last_at_ms / CLOCK_DAY_MS;
    return rc;
}

void spent_reader_close(struct spent_reader *reader)
{
    sqlite3_finalize(reader->stmt);
    reader->stmt = NULL;
}

static int read_day(struct spent_reader *reader, const char *key_text, int64_t day, int64_t *nano)
{
    int rc;

    *nano = 0;
    sqlite3_bind_int64(reader->stmt, 1, day * CLOCK_DAY_MS);
    sqlite3_bind_text(reader->stmt, 2, key_text, -1, SQLITE_STATIC);
    while ((rc = sqlite3_step(reader->stmt)) == SQLITE_ROW) {
        sum_add(nano, sqlite3_column_int64(reader->stmt, 0));
    }
    sqlite3_reset(reader->stmt);
    return database_errno(rc);
}

/* The first day of any of the periods, and the last of those after them that the ledger knows. */
static void range(const struct spent_reader *reader, const struct spent spent[SPEND_PERIODS],
                  unsigned wanted, int64_t *first, int64_t *last)
{
    *first = INT64_MAX;
    *last = -1;
    for (enum spend_period p = SPEND_DAY; p < SPEND_PERIODS; p++) {
        int64_t from = spend_period_start_ms(p, spent[p].period) / CLOCK_DAY_MS;
        int64_t to = spend_period_start_ms(p, spent[p].period + 2) / CLOCK_DAY_MS - 1;

        if ((wanted >> p & 1) == 0)
            continue;
        if (from < *first)
            *first = from;
        if (to > *last)
            *last = to;
    }
    if (*last > reader->last_day)
        *last = reader->last_day;
}

int spent_read(struct spent_reader *reader, uint64_t key_id, int64_t now_at_ms, unsigned wanted,
               struct spent out[SPEND_PERIODS])
{
    char key_text[KEY_ID_TEXT_BYTES];
    int64_t first, last;

    for (enum spend_period p = SPEND_DAY; p < SPEND_PERIODS; p++)
        out[p] = (struct spent){.period = spend_period_number(p, now_at_ms)};
    key_id_format(key_id, key_text);
    range(reader, out, wanted, &first, &last);
    for (int64_t day = first; day <= last; day++) {
        int64_t nano;
        int rc = read_day(reader, key_text, day, &nano);

        if (rc < 0)
            return rc;
        for (enum spend_period p = SPEND_DAY; p < SPEND_PERIODS; p++) {
            int64_t number = spend_period_number(p, day * CLOCK_DAY_MS);

            if ((wanted >> p & 1) != 0 && number == out[p].period)
                sum_add(&out[p].nano, nano);
            if ((wanted >> p & 1) != 0 && number == out[p].period + 1)
                sum_add(&out[p].next_nano, nano);
        }
    }
    return 0;
}

int spent_read_all(struct ledger *ledger, uint64_t key_id, int64_t now_at_ms,
                   struct spent out[SPEND_PERIODS])
{
    struct spent_reader reader;
    int rc = spent_reader_open(ledger, &reader);

    if (rc == 0)
        rc = spent_read(&reader, key_id, now_at_ms, SPENT_ALL, out);
    spent_reader_close(&reader);
    return rc;
}

void spent_encode(const struct spent spent[SPEND_PERIODS], const struct key_record *key,
                  const struct account_values *left, struct buf *out)
{
    buf_byte(out, '[');
    for (enum spend_period p = SPEND_DAY; p < SPEND_PERIODS; p++) {
        bool has_left = left != NULL && key->spending_nano[p] != ACCOUNT_UNLIMITED;

        buf_str(out, p == SPEND_DAY ? "{" : ",{");
        json_put_field_text(out, "period", SPEND_PERIOD_NAMES[p]);
        key_credits_encode(out, "limit", key->spending_nano[p]);
        key_credits_encode(out, "spent", spent[p].nano);
        key_credits_encode(out, "left", has_left ? left->spending[p].left_nano : ACCOUNT_UNLIMITED);
        json_put_field_time(out, "resets_at", spend_period_start_ms(p, spent[p].period + 1));
        buf_byte(out, '}');
    }
    buf_byte(out, ']');
}
