#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "usage/database.h"
#include "usage/migrate.h"

static const struct migration TWO[] = {
    {1, "first", "CREATE TABLE a (x INTEGER);", "DROP TABLE a;"},
    {2, "second", "CREATE TABLE b (y INTEGER);", "DROP TABLE b;"},
};
static const struct migration TWO_CHANGED[] = {
    {1, "first", "CREATE TABLE a (x TEXT);", "DROP TABLE a;"},
    {2, "second", "CREATE TABLE b (y INTEGER);", "DROP TABLE b;"},
};
static const struct migration SECOND_FAILS[] = {
    {1, "first", "CREATE TABLE a (x INTEGER);", "DROP TABLE a;"},
    {2, "second", "CREATE TABLE b (y INTEGER); CREATE TABLE b (y INTEGER);", "DROP TABLE b;"},
};

static int set_up(void **state)
{
    sqlite3 *db;

    if (sqlite3_open(":memory:", &db) != SQLITE_OK)
        return -1;
    *state = db;
    return 0;
}

static int tear_down(void **state)
{
    sqlite3_close(*state);
    return 0;
}

static int64_t get(sqlite3 *db, const char *sql)
{
    int64_t value;

    assert_int_equal(database_get_i64(db, sql, -1, &value), 0);
    return value;
}

static int64_t tables(sqlite3 *db, const char *name)
{
    char sql[128];

    snprintf(sql, sizeof(sql), "SELECT count(*) FROM sqlite_schema WHERE name = '%s'", name);
    return get(db, sql);
}

static void given_empty_database_when_migrated_up_then_all_are_applied_once(void **state)
{
    char why[DATABASE_WHY_BYTES] = "";
    int version;

    assert_int_equal(migrate_up(*state, TWO, 2, why), 0);
    assert_int_equal(migrate_up(*state, TWO, 2, why), 0);

    assert_int_equal(migrate_version(*state, &version), 0);
    assert_int_equal(version, 2);
    assert_int_equal(tables(*state, "a"), 1);
    assert_int_equal(tables(*state, "b"), 1);
    assert_int_equal(get(*state, "SELECT count(*) FROM schema_migrations WHERE applied_at > 0"
                                 " AND length(checksum) = 64"),
                     2);
}

static void given_older_database_when_migrated_up_then_only_the_missing_run(void **state)
{
    char why[DATABASE_WHY_BYTES] = "";

    assert_int_equal(migrate_up(*state, TWO, 1, why), 0);
    assert_int_equal(database_exec(*state, "INSERT INTO a VALUES (7)"), 0);
    assert_int_equal(migrate_up(*state, TWO, 2, why), 0);

    assert_int_equal(get(*state, "SELECT x FROM a"), 7);
    assert_int_equal(tables(*state, "b"), 1);
}

static void given_newer_database_when_migrated_up_then_refused_with_a_reason(void **state)
{
    char why[DATABASE_WHY_BYTES] = "";

    assert_int_equal(migrate_up(*state, TWO, 2, why), 0);
    assert_int_equal(migrate_up(*state, TWO, 1, why), -EPROTO);

    assert_non_null(strstr(why, "newer than this xrouter"));
    assert_non_null(strstr(why, "second"));
}

static void given_changed_migration_when_migrated_up_then_refused_and_untouched(void **state)
{
    char why[DATABASE_WHY_BYTES] = "";

    assert_int_equal(migrate_up(*state, TWO, 1, why), 0);
    assert_int_equal(migrate_up(*state, TWO_CHANGED, 2, why), -EPROTO);

    assert_non_null(strstr(why, "differs"));
    assert_int_equal(tables(*state, "b"), 0);
}

static void given_gap_in_applied_when_migrated_up_then_refused(void **state)
{
    char why[DATABASE_WHY_BYTES] = "";

    assert_int_equal(migrate_up(*state, TWO, 2, why), 0);
    assert_int_equal(database_exec(*state, "DELETE FROM schema_migrations WHERE number = 1"), 0);

    assert_int_equal(migrate_up(*state, TWO, 2, why), -EPROTO);
}

static void given_failing_migration_when_migrated_up_then_it_leaves_nothing_behind(void **state)
{
    char why[DATABASE_WHY_BYTES] = "";
    int version;

    assert_true(migrate_up(*state, SECOND_FAILS, 2, why) < 0);

    assert_non_null(strstr(why, "second"));
    assert_int_equal(migrate_version(*state, &version), 0);
    assert_int_equal(version, 1);
    assert_int_equal(tables(*state, "b"), 0);
    assert_int_not_equal(sqlite3_get_autocommit(*state), 0);
}

static void given_two_applied_when_migrated_down_then_newest_first_to_the_number(void **state)
{
    char why[DATABASE_WHY_BYTES] = "";
    int version;

    assert_int_equal(migrate_up(*state, TWO, 2, why), 0);
    assert_int_equal(migrate_down(*state, TWO, 2, 1, why), 0);

    assert_int_equal(migrate_version(*state, &version), 0);
    assert_int_equal(version, 1);
    assert_int_equal(tables(*state, "a"), 1);
    assert_int_equal(tables(*state, "b"), 0);
}

static void given_own_migrations_when_up_down_and_up_then_schema_is_the_same(void **state)
{
    static const char HASH[] = "SELECT count(*) FROM sqlite_schema";
    char why[DATABASE_WHY_BYTES] = "";
    size_t count;
    const struct migration *list = migrate_list(&count);
    int64_t objects;

    assert_int_equal(migrate_up(*state, list, count, why), 0);
    objects = get(*state, HASH);
    assert_int_equal(migrate_down(*state, list, count, 0, why), 0);
    assert_int_equal(get(*state, HASH), 1); /* schema_migrations itself */
    assert_int_equal(migrate_up(*state, list, count, why), 0);
    assert_int_equal(get(*state, HASH), objects);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(given_empty_database_when_migrated_up_then_all_are_applied_once),
        T(given_older_database_when_migrated_up_then_only_the_missing_run),
        T(given_newer_database_when_migrated_up_then_refused_with_a_reason),
        T(given_changed_migration_when_migrated_up_then_refused_and_untouched),
        T(given_gap_in_applied_when_migrated_up_then_refused),
        T(given_failing_migration_when_migrated_up_then_it_leaves_nothing_behind),
        T(given_two_applied_when_migrated_down_then_newest_first_to_the_number),
        T(given_own_migrations_when_up_down_and_up_then_schema_is_the_same),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
