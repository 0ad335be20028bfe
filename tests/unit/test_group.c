#include "tests/unit/keystore_fixture.h"

#include <sys/stat.h>

#include "common/log.h"
#include "usage/group.h"

#define KEYS 2000
#define PAST_ROWS 50 /* of each key: its part of an index takes a page */
#define RING_BYTES (8 * 1024 * 1024)
#define BALANCE "4000000000000000000"
#define COST_NANO INT64_C(1000000000000000)

struct fixture {
    char dir[64];
    char log[160], dead_letters[160];
    struct ledger *ledger;
    struct outbox_region *outbox;
    struct counters counters;
    struct group *group;
    uint8_t *records; /* for all that a ring holds */
};

/* Prepaid keys that have been used before. */
static void add_keys(struct fixture *f)
{
    char sql[1024];

    snprintf(sql, sizeof(sql),
             "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)"
             " INSERT INTO api_keys (id, key_hash, created_at, last_used_at, balance, spend_day,"
             " spend_week, spend_month) SELECT printf('key_%%016x', i), printf('%%064x', i), 1, 1,"
             " " BALANCE ", 1000000000, 1000000000, 1000000000 FROM n",
             KEYS);
    fixture_run(f->ledger, sql);
    snprintf(sql, sizeof(sql),
             "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)"
             " INSERT INTO usage SELECT CAST(printf('%%016d', i * %d + rank) AS BLOB), id, '', "
             "'m', 0, 0, 0, 0,"
             " i, 0, 0, 200, NULL, 0, 1, NULL, 0, 0, 0, 0, 0"
             " FROM n, (SELECT id, row_number() OVER (ORDER BY id) AS rank FROM api_keys)",
             PAST_ROWS, KEYS);
    fixture_run(f->ledger, sql);
    fixture_run(
        f->ledger,
        "INSERT INTO credit_ledger (api_key_id, kind, amount, balance, requests, created_at)"
        " SELECT api_key_id, 'usage', 0, 1, 1, created_at FROM usage ORDER BY created_at");
}

static int set_up(void **state)
{
    static struct fixture f;

    memset(&f, 0, sizeof(f));
    log_to(-1, -1);
    f.ledger = fixture_open(f.dir);
    snprintf(f.log, sizeof(f.log), "%s/xrouter.db-wal", f.dir);
    snprintf(f.dead_letters, sizeof(f.dead_letters), "%s/dead-letters.jsonl", f.dir);
    fixture_run(f.ledger, "PRAGMA synchronous = OFF");
    add_keys(&f);
    f.outbox = forked_memory(outbox_region_spec(1, RING_BYTES).bytes);
    f.records = malloc(RING_BYTES);
    assert_non_null(f.records);
    outbox_region_init(f.outbox, 1, RING_BYTES);
    f.group = group_new(&(struct group_setup){f.ledger, f.outbox, &f.counters, f.dead_letters});
    assert_non_null(f.group);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    group_free(f->group);
    ledger_close(f->ledger);
    munmap(f->outbox, outbox_region_spec(1, RING_BYTES).bytes);
    free(f->records);
    fixture_remove_dir(f->dir);
    return 0;
}

/* The largest there is, and nothing of it is shared: a key and an Idempotency-Key of its own. */
static struct usage_event worst_event(uint32_t n)
{
    struct usage_event e = fixture_event(n);

    e.key_id = 1 + n;
    e.cost_nano = COST_NANO;
    memset(e.provider, 'p', sizeof(e.provider) - 1);
    memset(e.model, 'm', sizeof(e.model) - 1);
    e.attempt_count = USAGE_ATTEMPTS_MAX;
    for (size_t i = 0; i < USAGE_ATTEMPTS_MAX; i++) {
        e.attempts[i] = (struct usage_attempt){.started_at_ms = e.created_at_ms,
                                               .duration_ms = 100000,
                                               .http_status = 200,
                                               .tokens_input = 100000,
                                               .tokens_output = 100000};
        memset(e.attempts[i].provider, 'p', sizeof(e.attempts[i].provider) - 1);
        memset(e.attempts[i].model, 'm', sizeof(e.attempts[i].model) - 1);
    }
    sqlite3_randomness(sizeof(e.idempotency_key), e.idempotency_key);
    sqlite3_randomness(sizeof(e.request_digest), e.request_digest);
    return e;
}

static struct outbox *ring(const struct fixture *f)
{
    return outbox_slot(f->outbox, 0);
}

static void append(struct fixture *f, const struct usage_event *e)
{
    assert_true(outbox_reserve(ring(f)));
    outbox_append(ring(f), e);
}

static void append_worst(struct fixture *f)
{
    for (uint32_t i = 0; i < KEYS; i++) {
        struct usage_event e = worst_event(i);

        append(f, &e);
    }
}

/* What the ring holds, in packets of that size at most. */
static void add_ring(struct fixture *f, size_t packet_bytes)
{
    uint64_t next = 0;
    ssize_t n;

    while ((n = outbox_read(ring(f), next, f->records, packet_bytes, &next)) > 0)
        assert_int_equal(group_add(f->group, 0, next, f->records, (size_t)n), 0);
    assert_true(next == outbox_head(ring(f)));
}

static uint64_t log_size(const struct fixture *f)
{
    struct stat st;

    return stat(f->log, &st) == 0 ? (uint64_t)st.st_size : 0;
}

static void assert_all_committed(struct fixture *f)
{
    assert_true(outbox_committed(ring(f)) == outbox_head(ring(f)));
    assert_int_equal(f->counters.events_committed_total, KEYS);
    assert_int_equal(f->counters.events_duplicate_total, 0);
    assert_int_equal(fixture_get(f->ledger, "SELECT sum(requests) FROM usage_hourly"), KEYS);
    assert_int_equal(fixture_get(f->ledger, "SELECT count(*) FROM usage_attempts"),
                     KEYS * USAGE_ATTEMPTS_MAX);
    assert_int_equal(fixture_get(f->ledger, "SELECT count(*) FROM idempotency"), KEYS);
    assert_true(fixture_get(f->ledger, "SELECT min(" BALANCE " - balance) FROM api_keys") ==
                COST_NANO);
    assert_true(fixture_get(f->ledger, "SELECT max(" BALANCE " - balance) FROM api_keys") ==
                COST_NANO);
}

static void given_events_that_share_no_page_when_committed_then_none_outgrows_its_log(void **state)
{
    struct fixture *f = *state;
    uint64_t largest = 0;

    append_worst(f);
    add_ring(f, OUTBOX_PACKET_MAX);
    while (!group_is_empty(f->group)) {
        assert_int_equal(ledger_checkpoint(f->ledger, true), 0);
        assert_int_equal(group_commit(f->group), 0);
        if (log_size(f) > largest)
            largest = log_size(f);
    }
    assert_in_range(largest, LEDGER_BATCH_LOG_BYTES / 4, LEDGER_BATCH_LOG_BYTES);
    assert_in_range(f->counters.ledger_commits_total, 2, 16);
    assert_all_committed(f);
}

static void given_reader_and_smallest_bound_when_committed_then_log_stays_below_it(void **state)
{
    static const char SMALLEST[] = "{\"ledger\":{\"wal_bytes\":16777216}}";
    static const char SMALLER[] = "{\"ledger\":{\"wal_bytes\":16777215}}";
    struct fixture *f = *state;
    struct config *config = fixture_config(SMALLEST, f->dir), *smaller;
    struct config_error e;
    char path[128];
    sqlite3 *reader;
    int64_t rows;

    assert_true(config_parse(SMALLER, strlen(SMALLER), "x", f->dir, &smaller, &e) < 0);
    assert_int_equal(ledger_checkpoint(f->ledger, true), 0);
    snprintf(path, sizeof(path), "%s/xrouter.db", f->dir);
    assert_int_equal(sqlite3_open(path, &reader), SQLITE_OK);
    assert_int_equal(database_exec(reader, "BEGIN"), 0);
    assert_int_equal(database_get_i64(reader, "SELECT count(*) FROM usage", 0, &rows), 0);
    append_worst(f);
    add_ring(f, OUTBOX_PACKET_MAX);
    while (ledger_make_room(f->ledger, config->wal_bytes) == 0)
        assert_int_equal(group_commit(f->group), 0);
    assert_false(group_is_empty(f->group));
    assert_in_range(log_size(f), config->wal_bytes / 2, config->wal_bytes);

    assert_int_equal(database_exec(reader, "COMMIT"), 0);
    sqlite3_close(reader);
    while (!group_is_empty(f->group)) {
        assert_int_equal(ledger_make_room(f->ledger, config->wal_bytes), 0);
        assert_int_equal(group_commit(f->group), 0);
        assert_true(log_size(f) <= config->wal_bytes);
    }
    assert_all_committed(f);
    config_unref(config);
}

static void
given_packet_larger_than_a_batch_when_committed_then_acked_when_it_is_whole(void **state)
{
    struct fixture *f = *state;

    append_worst(f);
    add_ring(f, RING_BYTES);
    for (size_t left = KEYS; left > 0; left = group_records(f->group)) {
        assert_int_equal(outbox_committed(ring(f)), 0);
        assert_true(group_position(f->group, 0) == outbox_head(ring(f)));
        assert_int_equal(group_commit(f->group), 0);
        assert_int_equal(f->counters.events_committed_total, KEYS - group_records(f->group));
        assert_true(group_records(f->group) < left);
    }
    assert_true(group_is_empty(f->group));
    assert_in_range(f->counters.ledger_commits_total, 2, 16);
    assert_all_committed(f);
}

static void given_dead_letter_in_too_large_batch_when_committed_then_written_once(void **state)
{
    struct fixture *f = *state;
    struct usage_event e = worst_event(KEYS + 1); /* nobody's */
    char line[8192];
    FILE *letters;

    append(f, &e);
    append_worst(f);
    add_ring(f, OUTBOX_PACKET_MAX);
    while (!group_is_empty(f->group))
        assert_int_equal(group_commit(f->group), 0);

    assert_all_committed(f);
    assert_int_equal(f->counters.events_dead_total, 1);
    letters = fopen(f->dead_letters, "r");
    assert_non_null(letters);
    assert_non_null(fgets(line, sizeof(line), letters));
    assert_null(fgets(line, sizeof(line), letters));
    fclose(letters);
}

static void given_events_of_one_key_when_committed_then_as_many_as_may_be(void **state)
{
    struct fixture *f = *state;

    for (uint32_t i = 0; i < GROUP_COMMIT_RECORDS + 7; i++) {
        struct usage_event e = fixture_event(i);

        e.key_id = 1;
        append(f, &e);
    }
    add_ring(f, OUTBOX_PACKET_MAX);
    assert_int_equal(group_commit(f->group), 0);
    assert_in_range(f->counters.events_committed_total, GROUP_COMMIT_RECORDS - 300,
                    GROUP_COMMIT_RECORDS);
    assert_int_equal(group_commit(f->group), 0);
    assert_true(group_is_empty(f->group));
    assert_int_equal(f->counters.events_committed_total, GROUP_COMMIT_RECORDS + 7);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(given_events_that_share_no_page_when_committed_then_none_outgrows_its_log),
        T(given_reader_and_smallest_bound_when_committed_then_log_stays_below_it),
        T(given_packet_larger_than_a_batch_when_committed_then_acked_when_it_is_whole),
        T(given_dead_letter_in_too_large_batch_when_committed_then_written_once),
        T(given_events_of_one_key_when_committed_then_as_many_as_may_be),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
