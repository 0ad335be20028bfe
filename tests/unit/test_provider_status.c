#include "tests/unit/ledger_fixture.h"

#include "usage/provider_status.h"

#define SLOTS 2

static const char CONFIG[] =
    "{\"state_dir\":\".\",\"runtime_dir\":\".\","
    "\"providers\":[{\"name\":\"a\",\"type\":\"gigachat\",\"base_url\":\"http://127.0.0.1:1\","
    "\"auth_url\":\"http://127.0.0.1:1/oauth\",\"credentials\":\"YTpi\"},"
    "{\"name\":\"b\",\"type\":\"gigachat\",\"base_url\":\"http://127.0.0.1:1\","
    "\"auth_url\":\"http://127.0.0.1:1/oauth\",\"credentials\":\"YTpi\"}],"
    "\"models\":[{\"id\":\"m\",\"candidates\":[{\"provider\":\"a\",\"model\":\"x\"},"
    "{\"provider\":\"b\",\"model\":\"x\"}]},"
    "{\"id\":\"n\",\"candidates\":[{\"provider\":\"a\",\"model\":\"y\"}]}]}";

struct fixture {
    char dir[64];
    struct ledger *ledger;
    struct config *config;
    struct counters_region *region;
    struct provider_status *status;
    int64_t now_at_ms;
};

static int set_up(void **state)
{
    static struct fixture f;
    char path[128], why[DATABASE_WHY_BYTES];
    struct config_error e;

    memset(&f, 0, sizeof(f));
    fixture_make_dir(f.dir);
    snprintf(path, sizeof(path), "%s/xrouter.db", f.dir);
    if (config_parse(CONFIG, strlen(CONFIG), "test.json", f.dir, &f.config, &e) != 0)
        fail_msg("%s: %s", e.path, e.text);
    assert_int_equal(ledger_open(path, &f.ledger, why), 0);
    assert_int_equal(
        posix_memalign((void **)&f.region, 64, counters_region_spec(SLOTS, 4, 4).bytes), 0);
    memset(f.region, 0, counters_region_spec(SLOTS, 4, 4).bytes);
    counters_region_init(f.region, SLOTS, 4, 4);
    assert_int_equal(counters_register_provider(f.region, "a"), 0);
    assert_int_equal(counters_register_provider(f.region, "b"), 1);
    f.status = provider_status_new(f.region);
    assert_non_null(f.status);
    f.now_at_ms = FIXTURE_AT_MS;
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    provider_status_free(f->status);
    free(f->region);
    ledger_close(f->ledger);
    config_unref(f->config);
    fixture_remove_dir(f->dir);
    return 0;
}

/* Requests of a provider since the last interval, counted by two workers. */
static void count(struct fixture *f, size_t provider, unsigned finished, unsigned failures,
                  unsigned first_byte_ms)
{
    for (size_t slot = 0; slot < SLOTS; slot++) {
        struct provider_counters *c = counters_provider(f->region, slot, provider);
        unsigned part = slot == 0 ? finished / 2 : finished - finished / 2;

        counter_add(&c->requests_total, part);
        counter_add(&c->finished_total, part);
    }
    counter_add(&counters_provider(f->region, 1, provider)->failures_total, failures);
    counter_add(&counters_provider(f->region, 0, provider)->answers_total, finished - failures);
    counter_add(&counters_provider(f->region, 0, provider)->first_byte_ms_total,
                (finished - failures) * first_byte_ms);
}

static int write_status(struct fixture *f)
{
    f->now_at_ms += 5000;
    return provider_status_write(f->status, ledger_db(f->ledger), f->config, f->now_at_ms);
}

static void assert_row(struct fixture *f, const char *id, const char *status, int64_t latency,
                       int64_t error_rate)
{
    char sql[256];

    snprintf(sql, sizeof(sql),
             "SELECT count(*) FROM provider_status WHERE id = '%s' AND provider || '/' || model ="
             " id AND status = '%s' AND coalesce(latency, -1) = %lld"
             " AND coalesce(error_rate, -1) = %lld",
             id, status, (long long)latency, (long long)error_rate);
    assert_int_equal(fixture_get(f->ledger, sql), 1);
}

static void given_no_request_when_written_then_a_row_for_each_candidate(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(write_status(f), 1);
    assert_row(f, "a/x", "unused", -1, -1);
    assert_row(f, "a/y", "unused", -1, -1);
    assert_row(f, "b/x", "unused", -1, -1);
    assert_int_equal(fixture_get(f->ledger, "SELECT count(*) FROM provider_status"), 3);
}

static void given_requests_when_written_then_rates_of_the_interval(void **state)
{
    struct fixture *f = *state;

    count(f, 0, 100, 4, 250);
    count(f, 1, 3, 3, 0);
    assert_int_equal(write_status(f), 1);
    assert_row(f, "a/x", "ok", 250, 400);
    assert_row(f, "a/y", "ok", 250, 400);
    assert_row(f, "b/x", "down", -1, 10000);
    /* The next interval counts alone. */
    count(f, 0, 7, 1, 1000);
    count(f, 1, 50, 0, 30);
    assert_int_equal(write_status(f), 1);
    assert_row(f, "a/x", "degraded", 1000, 1428);
    assert_row(f, "b/x", "ok", 30, 0);
}

static void given_quiet_interval_when_written_then_the_last_numbers_stay(void **state)
{
    struct fixture *f = *state;

    count(f, 0, 10, 10, 0);
    assert_int_equal(write_status(f), 1);
    assert_int_equal(write_status(f), 0);
    assert_row(f, "a/x", "down", -1, 10000);
}

static void given_nothing_new_when_a_minute_has_passed_then_written_again(void **state)
{
    struct fixture *f = *state;
    int written = 0;

    assert_int_equal(write_status(f), 1);
    for (int i = 0; i < 12; i++)
        written += write_status(f);
    assert_int_equal(written, 1);
    assert_int_equal(fixture_get(f->ledger, "SELECT min(updated_at) FROM provider_status"),
                     f->now_at_ms);
}

static void given_other_config_when_written_then_rows_follow_it(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(write_status(f), 1);
    f->config->models[0].candidate_count = 1;
    f->config->generation++;
    assert_int_equal(write_status(f), 1);
    assert_int_equal(fixture_get(f->ledger, "SELECT count(*) FROM provider_status"), 2);
    f->config->models[0].candidate_count = 2;
}

static void given_locked_database_when_written_then_written_the_next_time(void **state)
{
    struct fixture *f = *state;
    char path[128];
    sqlite3 *db;

    snprintf(path, sizeof(path), "%s/xrouter.db", f->dir);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(database_exec(db, "BEGIN IMMEDIATE"), 0);
    count(f, 0, 10, 0, 5);
    assert_true(write_status(f) < 0);
    sqlite3_close(db);
    assert_int_equal(write_status(f), 1);
    assert_row(f, "a/x", "ok", 5, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(given_no_request_when_written_then_a_row_for_each_candidate),
        TEST(given_requests_when_written_then_rates_of_the_interval),
        TEST(given_quiet_interval_when_written_then_the_last_numbers_stay),
        TEST(given_nothing_new_when_a_minute_has_passed_then_written_again),
        TEST(given_other_config_when_written_then_rows_follow_it),
        TEST(given_locked_database_when_written_then_written_the_next_time),
#undef TEST
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
