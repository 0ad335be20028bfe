#include "tests/unit/ledger_fixture.h"

#include <time.h>

#include "common/clock.h"
#include "usage/chores.h"
#include "usage/meta.h"

static const char CONFIG[] =
    "{\"state_dir\":\".\",\"runtime_dir\":\".\",\"ledger\":{\"status_ms\":100},"
    "\"providers\":[{\"name\":\"a\",\"type\":\"gigachat\",\"base_url\":\"http://127.0.0.1:1\","
    "\"auth_url\":\"http://127.0.0.1:1/oauth\",\"credentials\":\"YTpi\"}],"
    "\"models\":[{\"id\":\"m\",\"candidates\":[{\"provider\":\"a\",\"model\":\"x\"}]}]}";

struct fixture {
    char dir[64];
    struct ledger *ledger;
    struct config *config;
    struct counters counters;
    struct counters_region *region;
    struct calibration_region *calibration;
    struct chores *chores;
};

static void open_chores(struct fixture *f)
{
    const struct chores_setup setup = {.ledger = f->ledger,
                                       .config = f->config,
                                       .counters = &f->counters,
                                       .region = f->region,
                                       .calibration = f->calibration,
                                       .now_ms = clock_monotonic_ms()};

    f->chores = chores_new(&setup);
    assert_non_null(f->chores);
}

static void close_chores(struct fixture *f)
{
    chores_free(f->chores);
    f->chores = NULL;
}

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
    fixture_add_key(f.ledger, FIXTURE_KEY_TEXT, "demo");
    assert_int_equal(posix_memalign((void **)&f.region, 64, counters_region_spec(1, 4, 4).bytes),
                     0);
    memset(f.region, 0, counters_region_spec(1, 4, 4).bytes);
    counters_region_init(f.region, 1, 4, 4);
    assert_int_equal(counters_register_model(f.region, "m"), 0);
    f.calibration = calloc(1, calibration_region_spec(4).bytes);
    assert_non_null(f.calibration);
    calibration_region_init(f.calibration, 4);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    chores_free(f->chores);
    ledger_close(f->ledger);
    free(f->region);
    free(f->calibration);
    config_unref(f->config);
    fixture_remove_dir(f->dir);
    return 0;
}

static uint64_t load(const _Atomic uint64_t *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

/* Turns until the word is not zero. */
static void wait_for(struct fixture *f, const _Atomic uint64_t *word)
{
    int64_t deadline_ms = clock_monotonic_ms() + 20000;

    while (load(word) == 0) {
        assert_true(clock_monotonic_ms() < deadline_ms);
        (void)chores_turn(f->chores, clock_monotonic_ms(), clock_now_at_ms());
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

static void insert_event(struct fixture *f)
{
    struct usage_event e = fixture_event(1);

    assert_int_equal(ledger_begin(f->ledger), 0);
    assert_int_equal(ledger_insert(f->ledger, &e), LEDGER_INSERTED);
    assert_int_equal(ledger_commit(f->ledger), 0);
}

static void given_start_when_time_passes_then_ledger_is_verified_and_status_written(void **state)
{
    struct fixture *f = *state;

    insert_event(f);
    open_chores(f);
    wait_for(f, &f->counters.ledger_verified_timestamp_seconds);
    assert_int_equal(load(&f->counters.ledger_drift), 0);
    assert_int_equal(fixture_get(f->ledger, "SELECT count(*) FROM provider_status"), 1);
    /* Nothing is due at once then. */
    assert_true(chores_next_ms(f->chores) > 0);
}

static void given_drift_when_verified_then_counted_as_metric(void **state)
{
    struct fixture *f = *state;

    insert_event(f);
    assert_int_equal(database_exec(ledger_db(f->ledger), "UPDATE usage SET cost = cost + 1"), 0);
    open_chores(f);
    wait_for(f, &f->counters.ledger_verified_timestamp_seconds);
    assert_int_equal(load(&f->counters.ledger_drift), 1);
}

static void given_clean_stop_when_started_then_no_check_of_all(void **state)
{
    struct fixture *f = *state;
    int64_t clean;

    open_chores(f);
    close_chores(f);
    assert_int_equal(meta_get(ledger_db(f->ledger), META_CLEAN, -1, &clean), 0);
    assert_int_equal(clean, 1);
    open_chores(f);
    assert_int_equal(meta_get(ledger_db(f->ledger), META_CLEAN, -1, &clean), 0);
    assert_int_equal(clean, 0);
    wait_for(f, &f->counters.ledger_verified_timestamp_seconds);
    assert_int_equal(load(&f->counters.database_checked_timestamp_seconds), 0);
}

static void given_unclean_stop_when_started_then_all_is_checked(void **state)
{
    struct fixture *f = *state;
    int64_t clean;

    assert_int_equal(meta_set(ledger_db(f->ledger), META_CLEAN, 0), 0);
    open_chores(f);
    wait_for(f, &f->counters.database_checked_timestamp_seconds);
    assert_int_equal(load(&f->counters.database_damaged), 0);
    close_chores(f);
    assert_int_equal(meta_get(ledger_db(f->ledger), META_CLEAN, -1, &clean), 0);
    assert_int_equal(clean, 1);
}

static void given_damage_when_checked_then_told_and_due_again(void **state)
{
    struct fixture *f = *state;
    int64_t clean;

    insert_event(f);
    assert_int_equal(database_exec(ledger_db(f->ledger), "PRAGMA foreign_keys = OFF;"
                                                         "DELETE FROM api_keys"),
                     0);
    assert_int_equal(meta_set(ledger_db(f->ledger), META_CLEAN, 0), 0);
    open_chores(f);
    wait_for(f, &f->counters.database_checked_timestamp_seconds);
    assert_int_equal(load(&f->counters.database_damaged), 1);
    close_chores(f);
    assert_int_equal(meta_get(ledger_db(f->ledger), META_CLEAN, -1, &clean), 0);
    assert_int_equal(clean, 0);
}

static void given_check_broken_off_when_stopped_then_due_again(void **state)
{
    struct fixture *f = *state;
    int64_t clean;

    assert_int_equal(meta_set(ledger_db(f->ledger), META_CLEAN, 0), 0);
    open_chores(f);
    for (int i = 0; i < 4; i++)
        (void)chores_turn(f->chores, clock_monotonic_ms(), clock_now_at_ms());
    close_chores(f);
    assert_int_equal(meta_get(ledger_db(f->ledger), META_CLEAN, -1, &clean), 0);
    assert_int_equal(clean, 0);
}

static void given_locked_database_when_turned_then_commits_are_not_touched(void **state)
{
    struct fixture *f = *state;
    char path[128];
    sqlite3 *db;

    open_chores(f);
    snprintf(path, sizeof(path), "%s/xrouter.db", f->dir);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(database_exec(db, "BEGIN IMMEDIATE"), 0);
    for (int i = 0; i < 20; i++)
        (void)chores_turn(f->chores, clock_monotonic_ms(), clock_now_at_ms());
    assert_true(sqlite3_get_autocommit(ledger_db(f->ledger)));
    sqlite3_close(db);
    insert_event(f);
}

static void given_retention_when_config_changes_then_it_begins(void **state)
{
    struct fixture *f = *state;

    insert_event(f);
    open_chores(f);
    f->config->retention_days = 1;
    chores_set_config(f->chores, f->config);
    wait_for(f, &f->counters.retention_rows_total);
    assert_int_equal(fixture_get(f->ledger, "SELECT count(*) FROM usage"), 0);
}

/* Every chore that is due at that moment, once. */
static bool turn_all(struct fixture *f, int64_t now_ms)
{
    bool has_committed = false;

    for (int i = 0; i < 8; i++)
        has_committed |= chores_turn(f->chores, now_ms, clock_now_at_ms());
    return has_committed;
}

static int64_t stored_tokens(struct fixture *f)
{
    return fixture_get(f->ledger, "SELECT coalesce(sum(tokens), 0) FROM model_calibration");
}

static void given_ratio_that_changes_when_turned_then_written_once_an_interval(void **state)
{
    struct fixture *f = *state;
    int64_t now_ms;

    open_chores(f);
    now_ms = clock_monotonic_ms();
    calibration_learn(f->calibration, 0, 100, 110);
    assert_true(turn_all(f, now_ms));
    assert_int_equal(stored_tokens(f), 100);
    calibration_learn(f->calibration, 0, 100, 110);
    turn_all(f, now_ms + 99);
    assert_int_equal(stored_tokens(f), 100);
    turn_all(f, now_ms + 100); /* ledger.status_ms */
    assert_int_equal(stored_tokens(f), 200);
}

static void given_ratio_when_stopped_and_started_then_it_is_known_at_once(void **state)
{
    struct fixture *f = *state;

    open_chores(f);
    turn_all(f, clock_monotonic_ms());
    calibration_learn(f->calibration, 0, 100, 110);
    close_chores(f);
    assert_int_equal(stored_tokens(f), 100);
    memset(f->calibration, 0, calibration_region_spec(4).bytes);
    calibration_region_init(f->calibration, 4);
    open_chores(f);
    assert_int_equal(calibration_get(f->calibration, 0).ratio, 1100000);
    assert_int_equal(calibration_get(f->calibration, 0).tokens, 100);
}

static void given_another_database_when_begun_anew_then_ratios_are_written_at_once(void **state)
{
    struct fixture *f = *state;
    int64_t now_ms;

    open_chores(f);
    now_ms = clock_monotonic_ms();
    calibration_learn(f->calibration, 0, 100, 110);
    turn_all(f, now_ms);
    assert_int_equal(database_exec(ledger_db(f->ledger), "DELETE FROM model_calibration"), 0);
    turn_all(f, now_ms);
    assert_int_equal(stored_tokens(f), 0);
    chores_begin_anew(f->chores);
    turn_all(f, now_ms);
    assert_int_equal(stored_tokens(f), 100);
}

static void given_no_ratios_to_keep_when_run_then_the_other_chores_work(void **state)
{
    struct fixture *f = *state;

    free(f->calibration);
    f->calibration = NULL;
    open_chores(f);
    chores_begin_anew(f->chores);
    chores_set_config(f->chores, f->config);
    wait_for(f, &f->counters.ledger_verified_timestamp_seconds);
    assert_int_equal(stored_tokens(f), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(given_start_when_time_passes_then_ledger_is_verified_and_status_written),
        TEST(given_drift_when_verified_then_counted_as_metric),
        TEST(given_clean_stop_when_started_then_no_check_of_all),
        TEST(given_unclean_stop_when_started_then_all_is_checked),
        TEST(given_damage_when_checked_then_told_and_due_again),
        TEST(given_check_broken_off_when_stopped_then_due_again),
        TEST(given_locked_database_when_turned_then_commits_are_not_touched),
        TEST(given_retention_when_config_changes_then_it_begins),
        TEST(given_ratio_that_changes_when_turned_then_written_once_an_interval),
        TEST(given_ratio_when_stopped_and_started_then_it_is_known_at_once),
        TEST(given_another_database_when_begun_anew_then_ratios_are_written_at_once),
        TEST(given_no_ratios_to_keep_when_run_then_the_other_chores_work),
#undef TEST
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
