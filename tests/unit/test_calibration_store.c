#include "tests/unit/ledger_fixture.h"

#include <errno.h>

#include "usage/calibration_store.h"

#define MODELS 4

struct fixture {
    char dir[64];
    struct ledger *ledger;
    struct counters_region *names;
    struct calibration_region *ratios;
    struct calibration_store *store;
};

static void *zeroed(size_t bytes)
{
    void *p = NULL;

    assert_int_equal(posix_memalign(&p, 64, bytes), 0);
    return memset(p, 0, bytes);
}

/* Shared memory and writer are new, the database stays. */
static void start(struct fixture *f)
{
    calibration_store_free(f->store);
    free(f->names);
    free(f->ratios);
    f->names = zeroed(counters_region_spec(1, MODELS, 1).bytes);
    counters_region_init(f->names, 1, MODELS, 1);
    f->ratios = zeroed(calibration_region_spec(MODELS).bytes);
    calibration_region_init(f->ratios, MODELS);
    f->store = calibration_store_new(f->ratios, f->names);
    assert_non_null(f->store);
}

static int set_up(void **state)
{
    static struct fixture f;
    char path[128], why[DATABASE_WHY_BYTES];

    memset(&f, 0, sizeof(f));
    fixture_make_dir(f.dir);
    snprintf(path, sizeof(path), "%s/xrouter.db", f.dir);
    assert_int_equal(ledger_open(path, &f.ledger, why), 0);
    start(&f);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    calibration_store_free(f->store);
    free(f->names);
    free(f->ratios);
    ledger_close(f->ledger);
    fixture_remove_dir(f->dir);
    return 0;
}

static size_t name(struct fixture *f, const char *model)
{
    int index = counters_register_model(f->names, model);

    assert_true(index >= 0);
    return (size_t)index;
}

static int load(struct fixture *f)
{
    return calibration_store_load(f->store, ledger_db(f->ledger));
}

static int write_at(struct fixture *f, int64_t now_at_ms)
{
    return calibration_store_write(f->store, ledger_db(f->ledger), now_at_ms);
}

static void run(struct fixture *f, const char *sql)
{
    assert_int_equal(database_exec(ledger_db(f->ledger), sql), 0);
}

static int64_t rows(struct fixture *f, const char *condition)
{
    char sql[256];

    snprintf(sql, sizeof(sql), "SELECT count(*) FROM model_calibration WHERE %s", condition);
    return fixture_get(f->ledger, sql);
}

static void assert_known(const struct fixture *f, size_t model, uint32_t ratio, uint32_t tokens)
{
    struct calibration known = calibration_get(f->ratios, model);

    assert_int_equal(known.ratio, ratio);
    assert_int_equal(known.tokens, tokens);
}

static void given_ratios_when_written_and_started_again_then_they_are_the_same(void **state)
{
    struct fixture *f = *state;
    size_t a = name(f, "a"), b = name(f, "b");

    assert_int_equal(load(f), 0);
    calibration_learn(f->ratios, a, 300, 400);
    calibration_learn(f->ratios, b, 1000, 700);
    assert_int_equal(write_at(f, 5), 1);
    assert_int_equal(rows(f, "model = 'a' AND ratio = 1333333 AND tokens = 300"), 1);
    assert_int_equal(rows(f, "model = 'b' AND ratio = 700000 AND tokens = 1000"), 1);
    assert_int_equal(rows(f, "updated_at = 5"), 2);

    start(f);
    b = name(f, "b"); /* the config names them in another order */
    a = name(f, "a");
    assert_int_equal(load(f), 0);
    assert_known(f, a, 1333333, 300);
    assert_known(f, b, 700000, 1000);
    assert_int_equal(write_at(f, 6), 0); /* it is what the database has */
}

static void given_nothing_learned_when_written_then_no_row(void **state)
{
    struct fixture *f = *state;

    name(f, "a");
    assert_int_equal(load(f), 0);
    assert_int_equal(write_at(f, 5), 0);
    assert_int_equal(rows(f, "1"), 0);
}

static void given_one_change_when_written_then_only_that_row(void **state)
{
    struct fixture *f = *state;
    size_t a = name(f, "a"), b = name(f, "b");

    calibration_learn(f->ratios, a, 100, 110);
    calibration_learn(f->ratios, b, 100, 120);
    assert_int_equal(write_at(f, 5), 1);
    calibration_learn(f->ratios, b, 100, 140);
    assert_int_equal(write_at(f, 6), 1);
    assert_int_equal(rows(f, "model = 'a' AND ratio = 1100000 AND updated_at = 5"), 1);
    assert_int_equal(rows(f, "model = 'b' AND ratio = 1300000 AND updated_at = 6"), 1);
    assert_int_equal(write_at(f, 7), 0);
    calibration_learn(f->ratios, a, 100, 110); /* the ratio stays, what is behind it grows */
    assert_int_equal(write_at(f, 8), 1);
    assert_int_equal(rows(f, "model = 'a' AND tokens = 200 AND updated_at = 8"), 1);
}

static void given_models_nobody_names_when_written_then_their_rows_stay(void **state)
{
    struct fixture *f = *state;
    size_t a = name(f, "a");

    run(f, "INSERT INTO model_calibration VALUES ('gone', 1200000, 77, 3)");
    assert_int_equal(load(f), 0);
    calibration_learn(f->ratios, a, 100, 110);
    assert_int_equal(write_at(f, 5), 1);
    assert_int_equal(rows(f, "model = 'gone' AND ratio = 1200000 AND updated_at = 3"), 1);
    assert_known(f, 1, CALIBRATION_ONE, 0);
}

static void given_model_that_comes_back_by_a_reload_when_written_then_loaded_first(void **state)
{
    struct fixture *f = *state;
    size_t back;

    run(f, "INSERT INTO model_calibration VALUES ('back', 1200000, 77, 3)");
    name(f, "a");
    assert_int_equal(load(f), 0);
    back = name(f, "back");
    assert_known(f, back, CALIBRATION_ONE, 0);
    assert_int_equal(write_at(f, 5), 0);
    assert_known(f, back, 1200000, 77);
    assert_int_equal(rows(f, "model = 'back' AND updated_at = 3"), 1);
}

static void given_ratio_in_memory_when_the_writer_is_another_then_not_overwritten(void **state)
{
    struct fixture *f = *state;
    size_t a = name(f, "a");

    calibration_learn(f->ratios, a, 100, 110);
    assert_int_equal(write_at(f, 5), 1);
    calibration_learn(f->ratios, a, 100, 130); /* and the writer dies */
    calibration_store_free(f->store);
    f->store = calibration_store_new(f->ratios, f->names);
    assert_int_equal(load(f), 0);
    assert_known(f, a, 1200000, 200);
    assert_int_equal(write_at(f, 6), 1);
    assert_int_equal(rows(f, "ratio = 1200000 AND tokens = 200"), 1);
}

static void given_rows_without_sense_when_loaded_then_left_out_and_mended_later(void **state)
{
    struct fixture *f = *state;
    size_t a = name(f, "a"), b = name(f, "b");

    run(f, "INSERT INTO model_calibration VALUES ('a', 9000000000000000000, 100, 3),"
           " ('b', 1000000, 4294967396, 3)");
    assert_int_equal(load(f), 0);
    assert_known(f, a, CALIBRATION_ONE, 0);
    assert_known(f, b, CALIBRATION_ONE, 0);
    assert_int_equal(write_at(f, 4), 0);
    calibration_learn(f->ratios, a, 100, 110);
    assert_int_equal(write_at(f, 5), 1);
    assert_int_equal(rows(f, "model = 'a' AND ratio = 1100000 AND tokens = 100"), 1);
}

static void given_locked_database_when_written_then_tried_again_with_all(void **state)
{
    struct fixture *f = *state;
    size_t a = name(f, "a");
    char path[128];
    sqlite3 *other;

    calibration_learn(f->ratios, a, 100, 110);
    snprintf(path, sizeof(path), "%s/xrouter.db", f->dir);
    assert_int_equal(sqlite3_open(path, &other), SQLITE_OK);
    assert_int_equal(database_exec(other, "BEGIN IMMEDIATE"), 0);
    assert_int_equal(write_at(f, 5), -EBUSY);
    assert_true(sqlite3_get_autocommit(ledger_db(f->ledger)));
    assert_int_equal(rows(f, "1"), 0);
    sqlite3_close(other);
    assert_int_equal(write_at(f, 6), 1);
    assert_int_equal(rows(f, "ratio = 1100000 AND updated_at = 6"), 1);
}

static void given_row_that_is_refused_when_written_then_none_is_and_all_are_later(void **state)
{
    struct fixture *f = *state;
    size_t a = name(f, "a"), b = name(f, "b");

    calibration_learn(f->ratios, a, 100, 110);
    calibration_learn(f->ratios, b, 100, 120);
    run(f, "CREATE TRIGGER no_b BEFORE INSERT ON model_calibration WHEN NEW.model = 'b'"
           " BEGIN SELECT raise(ABORT, 'no'); END");
    assert_int_equal(write_at(f, 5), -EINVAL);
    assert_true(sqlite3_get_autocommit(ledger_db(f->ledger)));
    assert_int_equal(rows(f, "1"), 0);
    run(f, "DROP TRIGGER no_b");
    assert_int_equal(write_at(f, 6), 1);
    assert_int_equal(rows(f, "updated_at = 6"), 2);
}

static void given_another_database_when_begun_anew_then_all_is_written_into_it(void **state)
{
    struct fixture *f = *state;
    size_t a = name(f, "a"), b = name(f, "b");

    calibration_learn(f->ratios, a, 100, 110);
    assert_int_equal(write_at(f, 5), 1);
    /* What a restored backup looks like from here. */
    run(f, "DELETE FROM model_calibration");
    run(f, "INSERT INTO model_calibration VALUES ('b', 1500000, 50, 3)");
    assert_int_equal(write_at(f, 6), 0);
    calibration_store_begin_anew(f->store);
    assert_int_equal(write_at(f, 7), 1);
    assert_int_equal(rows(f, "model = 'a' AND ratio = 1100000 AND updated_at = 7"), 1);
    assert_int_equal(rows(f, "model = 'b' AND updated_at = 3"), 1);
    assert_known(f, b, 1500000, 50);
}

static void given_row_when_looked_at_by_people_then_decimal_and_date(void **state)
{
    struct fixture *f = *state;

    run(f, "INSERT INTO model_calibration VALUES ('a', 1083400, 70, 1772366400123)");
    assert_int_equal(fixture_get(f->ledger, "SELECT ratio = '1.083400' AND tokens = 70"
                                            " AND updated_at = '2026-03-01T12:00:00.123Z'"
                                            " FROM model_calibration_view"),
                     1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(given_ratios_when_written_and_started_again_then_they_are_the_same),
        TEST(given_nothing_learned_when_written_then_no_row),
        TEST(given_one_change_when_written_then_only_that_row),
        TEST(given_models_nobody_names_when_written_then_their_rows_stay),
        TEST(given_model_that_comes_back_by_a_reload_when_written_then_loaded_first),
        TEST(given_ratio_in_memory_when_the_writer_is_another_then_not_overwritten),
        TEST(given_rows_without_sense_when_loaded_then_left_out_and_mended_later),
        TEST(given_locked_database_when_written_then_tried_again_with_all),
        TEST(given_row_that_is_refused_when_written_then_none_is_and_all_are_later),
        TEST(given_another_database_when_begun_anew_then_all_is_written_into_it),
        TEST(given_row_when_looked_at_by_people_then_decimal_and_date),
#undef TEST
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
