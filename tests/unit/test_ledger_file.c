/* The ledger and its files: lost, emptied, replaced, put back. */
#include "tests/unit/ledger_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "usage/ledger_file.h"

struct fixture {
    char dir[64];
    char path[96], log[112], marker[112], away[112];
    struct ledger *ledger;
    char why[DATABASE_WHY_BYTES];
};

static int set_up(void **state)
{
    static struct fixture f;

    fixture_make_dir(f.dir);
    snprintf(f.path, sizeof(f.path), "%s/xrouter.db", f.dir);
    snprintf(f.log, sizeof(f.log), "%s-wal", f.path);
    snprintf(f.marker, sizeof(f.marker), "%s.created", f.path);
    snprintf(f.away, sizeof(f.away), "%s.away", f.path);
    assert_int_equal(ledger_open(f.path, &f.ledger, f.why), 0);
    fixture_add_key(f.ledger, FIXTURE_KEY_TEXT, "demo");
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    ledger_close(f->ledger);
    f->ledger = NULL;
    fixture_remove_dir(f->dir);
    return 0;
}

static void close_ledger(struct fixture *f)
{
    ledger_close(f->ledger);
    f->ledger = NULL;
}

static bool is_there(const char *path)
{
    return access(path, F_OK) == 0;
}

static off_t size_of(const char *path)
{
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    return st.st_size;
}

static void make_empty(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    assert_int_not_equal(fd, -1);
    close(fd);
}

/* Commits event n: 0, or what failed. */
static int commit(struct fixture *f, uint32_t n)
{
    struct usage_event e = fixture_event(n);
    int rc = ledger_begin(f->ledger);

    if (rc == 0)
        rc = ledger_insert(f->ledger, &e);
    rc = rc < 0 ? rc : ledger_commit(f->ledger);
    if (rc < 0)
        ledger_rollback(f->ledger);
    return rc;
}

static int64_t rows(struct fixture *f)
{
    return fixture_get(f->ledger, "SELECT count(*) FROM usage");
}

/* A whole copy, what is in the log included. */
static void copy_database(struct fixture *f, const char *to)
{
    char sql[256];

    snprintf(sql, sizeof(sql), "VACUUM INTO '%s'", to);
    assert_int_equal(database_exec(ledger_db(f->ledger), sql), 0);
}

static void given_ledger_when_made_then_a_marker_stands_beside_it(void **state)
{
    struct fixture *f = *state;

    assert_true(size_of(f->marker) > 0);
    close_ledger(f);
    assert_int_equal(unlink(f->marker), 0);
    assert_int_equal(ledger_open(f->path, &f->ledger, f->why), 0);
    assert_true(is_there(f->marker)); /* of a database from before there were markers, too */
}

static void given_lost_database_when_opened_then_refused_and_nothing_made(void **state)
{
    struct fixture *f = *state;

    close_ledger(f);
    assert_int_equal(unlink(f->path), 0);
    assert_int_equal(ledger_open(f->path, &f->ledger, f->why), -ENOENT);
    assert_non_null(strstr(f->why, "is missing"));
    assert_non_null(strstr(f->why, f->marker));
    assert_false(is_there(f->path));

    make_empty(f->path);
    assert_int_equal(ledger_open(f->path, &f->ledger, f->why), -ENOENT);
    assert_non_null(strstr(f->why, "is empty"));
    assert_int_equal(size_of(f->path), 0);

    assert_int_equal(unlink(f->marker), 0);
    assert_int_equal(ledger_open(f->path, &f->ledger, f->why), 0);
    assert_int_equal(rows(f), 0);
}

static void given_first_start_that_came_half_way_when_opened_then_it_goes_on(void **state)
{
    struct fixture *f = *state;

    close_ledger(f);
    assert_int_equal(unlink(f->path), 0);
    assert_int_equal(unlink(f->marker), 0);
    make_empty(f->path); /* made, and then the machine went off */
    assert_int_equal(ledger_open(f->path, &f->ledger, f->why), 0);
    assert_true(is_there(f->marker));
}

static void given_log_without_database_when_opened_then_refused_even_without_marker(void **state)
{
    struct fixture *f = *state;
    int fd;

    close_ledger(f);
    assert_int_equal(unlink(f->path), 0);
    assert_int_equal(unlink(f->marker), 0);
    fd = open(f->log, O_WRONLY | O_CREAT, 0600);
    assert_int_equal(write(fd, "committed once", 14), 14);
    close(fd);
    assert_int_equal(ledger_open(f->path, &f->ledger, f->why), -ENOENT);
    assert_int_equal(size_of(f->log), 14);
}

static void given_database_moved_away_when_committing_then_stale_until_it_is_back(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(commit(f, 1), 0);
    assert_int_equal(rename(f->path, f->away), 0);
    assert_int_equal(ledger_look(f->ledger), -ESTALE);
    assert_int_equal(commit(f, 2), -ESTALE);
    assert_null(ledger_db(f->ledger));
    assert_non_null(strstr(ledger_fault(f->ledger), "gone"));
    assert_int_equal(ledger_reopen(f->ledger), -ESTALE);
    assert_false(is_there(f->path));

    assert_int_equal(rename(f->away, f->path), 0);
    assert_int_equal(commit(f, 2), -ESTALE); /* only once it was opened anew */
    assert_int_equal(ledger_reopen(f->ledger), 0);
    assert_int_equal(commit(f, 2), 0);
    assert_int_equal(rows(f), 2);
}

static void given_database_moved_inside_a_batch_when_committed_then_it_does_not_count(void **state)
{
    struct fixture *f = *state;
    struct usage_event e = fixture_event(1);

    assert_int_equal(ledger_begin(f->ledger), 0);
    assert_int_equal(ledger_insert(f->ledger, &e), LEDGER_INSERTED);
    assert_int_equal(rename(f->path, f->away), 0);
    assert_int_equal(ledger_commit(f->ledger), -ESTALE);
    ledger_rollback(f->ledger);

    assert_int_equal(rename(f->away, f->path), 0);
    assert_int_equal(ledger_reopen(f->ledger), 0);
    assert_int_equal(ledger_begin(f->ledger), 0);
    assert_int_equal(ledger_insert(f->ledger, &e),
                     LEDGER_DUPLICATE); /* it was committed after all */
    assert_int_equal(ledger_commit(f->ledger), 0);
    assert_int_equal(fixture_get(f->ledger, "SELECT requests FROM usage_hourly"), 1);
}

static void given_other_database_in_its_place_when_reopened_then_checked_and_told(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(commit(f, 1), 0);
    copy_database(f, f->away);
    assert_int_equal(commit(f, 2), 0); /* goes with the old file */
    assert_int_equal(rename(f->away, f->path), 0);
    assert_int_equal(commit(f, 3), -ESTALE);
    assert_int_equal(ledger_reopen(f->ledger), 1);
    assert_int_equal(rows(f), 1);
    assert_int_equal(commit(f, 3), 0);
    close_ledger(f);
    assert_int_equal(ledger_open(f->path, &f->ledger, f->why), 0);
    assert_int_equal(rows(f), 2);
    assert_int_equal(fixture_get(f->ledger, "SELECT count(*) FROM pragma_integrity_check"
                                            " WHERE integrity_check <> 'ok'"),
                     0);
}

static void
given_bad_database_in_its_place_when_reopened_then_refused_until_a_good_one(void **state)
{
    struct fixture *f = *state;
    int fd;

    assert_int_equal(commit(f, 1), 0);
    copy_database(f, f->away);
    assert_int_equal(unlink(f->path), 0);
    fd = open(f->path, O_WRONLY | O_CREAT, 0600);
    assert_int_equal(write(fd,
                           "no database at all, and longer than its header: ........."
                           "..............................................",
                           100),
                     100);
    close(fd);
    assert_int_equal(commit(f, 2), -ESTALE);
    assert_int_equal(ledger_reopen(f->ledger), -EBADMSG);
    assert_int_equal(ledger_reopen(f->ledger), -EBADMSG);
    assert_int_equal(size_of(f->path), 100);

    assert_int_equal(rename(f->away, f->path), 0);
    assert_int_equal(ledger_reopen(f->ledger), 1);
    assert_int_equal(rows(f), 1);
}

static void given_emptied_database_when_reopened_then_waits_for_one_with_contents(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(commit(f, 1), 0);
    copy_database(f, f->away);
    assert_int_equal(truncate(f->path, 0), 0);
    assert_int_equal(commit(f, 2), -ESTALE);
    assert_int_equal(ledger_reopen(f->ledger), -ESTALE);
    assert_int_equal(ledger_checkpoint(f->ledger, true), -ESTALE);
    assert_int_equal(size_of(f->path), 0);
    assert_int_equal(rename(f->away, f->path), 0);
    assert_int_equal(ledger_reopen(f->ledger), 1);
    assert_int_equal(commit(f, 2), 0);
    assert_int_equal(rows(f), 2);
}

static void given_removed_log_when_reopened_then_its_rows_are_in_the_database(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(commit(f, 1), 0);
    assert_int_equal(unlink(f->log), 0);
    assert_int_equal(commit(f, 2), -ESTALE);
    assert_non_null(strstr(ledger_fault(f->ledger), "removed"));
    assert_int_equal(ledger_reopen(f->ledger), 0);
    assert_int_equal(rows(f), 1);
    assert_int_equal(commit(f, 2), 0);
    assert_int_equal(rows(f), 2);
}

static void given_cut_log_when_committing_then_stale_and_nothing_is_written_behind_it(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(commit(f, 1), 0);
    assert_int_equal(truncate(f->log, 6000), 0); /* in its second page */
    assert_int_equal(commit(f, 2), -ESTALE);
    assert_int_equal(ledger_reopen(f->ledger), -ESTALE);
    assert_int_equal(size_of(f->log), 6000);
    close_ledger(f);
    /* The next start is told by the log's index. */
    assert_int_equal(ledger_open(f->path, &f->ledger, f->why), -EBADMSG);
    assert_non_null(strstr(f->why, "cut or damaged"));
}

static void given_busy_reader_when_checkpointed_then_log_bytes_tell_its_size(void **state)
{
    struct fixture *f = *state;
    sqlite3 *reader;
    int64_t count;

    assert_int_equal(sqlite3_open(f->path, &reader), SQLITE_OK);
    assert_int_equal(database_exec(reader, "BEGIN"), 0);
    assert_int_equal(database_get_i64(reader, "SELECT count(*) FROM usage", -1, &count), 0);
    for (uint32_t i = 0; i < 20; i++)
        assert_int_equal(commit(f, i), 0);
    assert_int_equal(ledger_checkpoint(f->ledger, true), -EBUSY);
    assert_int_equal(ledger_wal_bytes(f->ledger), size_of(f->log));
    assert_true(ledger_wal_bytes(f->ledger) > 20 * 4096);

    assert_int_equal(database_exec(reader, "COMMIT"), 0);
    assert_int_equal(ledger_checkpoint(f->ledger, true), 0);
    assert_int_equal(ledger_wal_bytes(f->ledger), 0);
    sqlite3_close(reader);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(given_ledger_when_made_then_a_marker_stands_beside_it),
        T(given_lost_database_when_opened_then_refused_and_nothing_made),
        T(given_first_start_that_came_half_way_when_opened_then_it_goes_on),
        T(given_log_without_database_when_opened_then_refused_even_without_marker),
        T(given_database_moved_away_when_committing_then_stale_until_it_is_back),
        T(given_database_moved_inside_a_batch_when_committed_then_it_does_not_count),
        T(given_other_database_in_its_place_when_reopened_then_checked_and_told),
        T(given_bad_database_in_its_place_when_reopened_then_refused_until_a_good_one),
        T(given_emptied_database_when_reopened_then_waits_for_one_with_contents),
        T(given_removed_log_when_reopened_then_its_rows_are_in_the_database),
        T(given_cut_log_when_committing_then_stale_and_nothing_is_written_behind_it),
        T(given_busy_reader_when_checkpointed_then_log_bytes_tell_its_size),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
