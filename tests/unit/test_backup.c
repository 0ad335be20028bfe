#include "tests/unit/ledger_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

#include "common/clock.h"
#include "usage/backup.h"
#include "usage/copy_check.h"
#include "usage/integrity.h"

#define SECRET "0123456789abcdef0123456789abcdef"

struct fixture {
    char dir[64], state[80];
    char file[128], part[144], secret[128], secret_copy[144];
    struct ledger *ledger;
    uint32_t next;
    char why[BACKUP_WHY_BYTES];
};

static void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void insert_rows(struct fixture *f, unsigned count)
{
    assert_int_equal(ledger_begin(f->ledger), 0);
    for (unsigned i = 0; i < count; i++) {
        struct usage_event e = fixture_event(f->next++);

        assert_int_equal(ledger_insert(f->ledger, &e), LEDGER_INSERTED);
    }
    assert_int_equal(ledger_commit(f->ledger), 0);
}

static int set_up(void **state)
{
    static struct fixture f;
    char path[128], why[DATABASE_WHY_BYTES];

    memset(&f, 0, sizeof(f));
    fixture_make_dir(f.dir);
    snprintf(f.state, sizeof(f.state), "%s/state", f.dir);
    snprintf(f.file, sizeof(f.file), "%s/copy.db", f.dir);
    snprintf(f.part, sizeof(f.part), "%s.part", f.file);
    snprintf(f.secret, sizeof(f.secret), "%s/key.secret", f.state);
    snprintf(f.secret_copy, sizeof(f.secret_copy), "%s.key.secret", f.file);
    assert_int_equal(mkdir(f.state, 0700), 0);
    write_file(f.secret, SECRET);
    snprintf(path, sizeof(path), "%s/xrouter.db", f.state);
    assert_int_equal(ledger_open(path, &f.ledger, why), 0);
    fixture_add_key(f.ledger, FIXTURE_KEY_TEXT, "demo");
    insert_rows(&f, 10);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    ledger_close(f->ledger);
    fixture_remove_dir(f->dir);
    return 0;
}

static int start(struct fixture *f, bool force, struct backup **out)
{
    const struct backup_setup setup = {.ledger = f->ledger,
                                       .file = f->file,
                                       .secret = f->secret,
                                       .state_dir = f->state,
                                       .force = force};

    return backup_start(&setup, out, f->why);
}

static int finish(struct fixture *f, struct backup *b)
{
    int64_t deadline_ms = clock_monotonic_ms() + 20000;
    int rc;

    while ((rc = backup_step(b, clock_monotonic_ms())) == 1) {
        assert_true(clock_monotonic_ms() < deadline_ms);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    snprintf(f->why, sizeof(f->why), "%s", backup_why(b));
    return rc;
}

/* The next slice, in its time. */
static int slice(struct backup *b)
{
    while (clock_monotonic_ms() < backup_next_ms(b))
        nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
    return backup_step(b, clock_monotonic_ms());
}

static int make_backup(struct fixture *f, bool force)
{
    struct backup *b;
    int rc = start(f, force, &b);

    if (rc == 0)
        rc = finish(f, b);
    backup_free(b);
    return rc;
}

/* A number from the copy. */
static int64_t get(const struct fixture *f, const char *sql)
{
    sqlite3 *db;
    int64_t value;

    assert_int_equal(sqlite3_open_v2(f->file, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    assert_int_equal(database_get_i64(db, sql, -1, &value), 0);
    sqlite3_close(db);
    return value;
}

static bool exists(const char *path)
{
    return access(path, F_OK) == 0;
}

static mode_t mode_of(const char *path)
{
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    return st.st_mode & 07777;
}

static void given_ledger_when_backed_up_then_copy_and_secret_are_private_and_equal(void **state)
{
    struct fixture *f = *state;
    char secret[64] = "";
    FILE *file;

    assert_int_equal(make_backup(f, false), 0);
    assert_int_equal(get(f, "SELECT count(*) FROM usage"), 10);
    assert_int_equal(mode_of(f->file), 0600);
    assert_int_equal(mode_of(f->secret_copy), 0600);
    file = fopen(f->secret_copy, "r");
    assert_non_null(file);
    assert_non_null(fgets(secret, sizeof(secret), file));
    fclose(file);
    assert_string_equal(secret, SECRET);
    assert_false(exists(f->part));
    /* One plain file: it can be read from a medium that cannot be written. */
    assert_int_equal(get(f, "SELECT count(*) FROM pragma_journal_mode WHERE journal_mode ="
                            " 'delete'"),
                     1);
}

static void given_commits_between_slices_when_backed_up_then_they_are_in_it(void **state)
{
    struct fixture *f = *state;
    struct backup *b;
    unsigned commits = 0;
    int64_t rows;

    for (int i = 0; i < 100; i++)
        insert_rows(f, 500);
    rows = fixture_get(f->ledger, "SELECT count(*) FROM usage");
    assert_int_equal(start(f, false, &b), 0);
    while (!backup_progress(b).is_checking) {
        assert_int_equal(slice(b), 1);
        insert_rows(f, 20);
        commits++;
        if (commits % 5 == 0) /* the log is emptied meanwhile */
            assert_int_equal(ledger_checkpoint(f->ledger, commits % 10 == 0), 0);
    }
    assert_true(commits > 5);
    assert_int_equal(finish(f, b), 0);
    backup_free(b);
    assert_int_equal(get(f, "SELECT count(*) FROM usage"), rows + 20 * (commits - 1));
    assert_int_equal(get(f, "SELECT sum(requests) FROM usage_hourly"), rows + 20 * (commits - 1));
}

static void given_rollback_between_slices_when_backed_up_then_copy_is_sound(void **state)
{
    struct fixture *f = *state;
    struct backup *b;

    for (int i = 0; i < 40; i++)
        insert_rows(f, 500);
    assert_int_equal(start(f, false, &b), 0);
    for (int i = 0; i < 3; i++) {
        struct usage_event e = fixture_event(1000000);

        assert_int_equal(slice(b), 1);
        assert_int_equal(ledger_begin(f->ledger), 0);
        assert_int_equal(ledger_insert(f->ledger, &e), LEDGER_INSERTED);
        ledger_rollback(f->ledger);
    }
    assert_int_equal(finish(f, b), 0);
    backup_free(b);
    assert_int_equal(get(f, "SELECT count(*) FROM usage"), 20010);
}

static void given_file_that_exists_when_backed_up_then_refused_unless_forced(void **state)
{
    struct fixture *f = *state;

    write_file(f->file, "precious");
    assert_int_equal(make_backup(f, false), -EEXIST);
    assert_non_null(strstr(f->why, "--force"));
    assert_false(exists(f->part));
    assert_int_equal(make_backup(f, true), 0);
    assert_int_equal(get(f, "SELECT count(*) FROM usage"), 10);
    /* The secret's copy alone is a reason, too. */
    unlink(f->file);
    assert_int_equal(make_backup(f, false), -EEXIST);
    assert_int_equal(make_backup(f, true), 0);
}

static void given_bad_place_when_backed_up_then_refused(void **state)
{
    static const char *const names[] = {"relative.db", "", "/no/such/directory/copy.db", "/"};
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        snprintf(f->file, sizeof(f->file), "%s", names[i]);
        assert_true(make_backup(f, true) < 0);
        assert_true(f->why[0] != '\0');
    }
    /* Not even with force over the database itself, or beside it. */
    snprintf(f->file, sizeof(f->file), "%s/../state/xrouter.db", f->state);
    assert_int_equal(make_backup(f, true), -EINVAL);
    snprintf(f->file, sizeof(f->file), "%s", f->dir);
    assert_int_equal(make_backup(f, true), -EINVAL); /* a directory */
    assert_int_equal(fixture_get(f->ledger, "SELECT count(*) FROM usage"), 10);
}

static void given_backup_under_way_when_another_wants_the_file_then_busy(void **state)
{
    struct fixture *f = *state;
    struct backup *a, *b;

    assert_int_equal(start(f, false, &a), 0);
    assert_int_equal(start(f, false, &b), -EBUSY);
    assert_int_equal(finish(f, a), 0);
    backup_free(a);
    assert_int_equal(get(f, "SELECT count(*) FROM usage"), 10);
}

static void given_part_file_left_over_when_backed_up_then_replaced(void **state)
{
    struct fixture *f = *state;

    write_file(f->part, "half of something");
    assert_int_equal(make_backup(f, false), 0);
    assert_int_equal(get(f, "SELECT count(*) FROM usage"), 10);
}

static void given_symlink_as_part_file_when_backed_up_then_its_target_is_left_alone(void **state)
{
    struct fixture *f = *state;
    char target[128];

    snprintf(target, sizeof(target), "%s/target", f->dir);
    write_file(target, "precious");
    assert_int_equal(symlink(target, f->part), 0);
    assert_true(make_backup(f, false) < 0);
    unlink(f->part);
    assert_int_equal(link(target, f->part), 0);
    assert_int_equal(make_backup(f, false), -EINVAL);
    assert_true(exists(f->part)); /* it is not ours to remove */
    assert_int_equal(truncate(target, 8), 0);
    assert_int_equal(mode_of(target) & 0600, 0600);
}

static void given_broken_off_backup_when_freed_then_no_file_stays(void **state)
{
    struct fixture *f = *state;
    struct backup *b;

    for (int i = 0; i < 20; i++)
        insert_rows(f, 500);
    assert_int_equal(start(f, false, &b), 0);
    assert_int_equal(slice(b), 1);
    assert_true(exists(f->part));
    backup_free(b);
    assert_false(exists(f->part));
    /* And while it is being checked. */
    assert_int_equal(start(f, false, &b), 0);
    while (!backup_progress(b).is_checking)
        assert_int_equal(slice(b), 1);
    backup_free(b);
    assert_false(exists(f->part));
    insert_rows(f, 1);
}

static void given_damaged_database_when_backed_up_then_told_and_no_file(void **state)
{
    struct fixture *f = *state;
    char path[128], why[DATABASE_WHY_BYTES];
    uint8_t page[4096];
    int64_t root;
    int fd;

    insert_rows(f, 500);
    root = fixture_get(f->ledger, "SELECT rootpage FROM sqlite_schema WHERE name ="
                                  " 'usage_attempts'");
    assert_int_equal(ledger_checkpoint(f->ledger, true), 0);
    ledger_close(f->ledger);
    snprintf(path, sizeof(path), "%s/xrouter.db", f->state);
    fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    memset(page, 0x5a, sizeof(page));
    assert_int_equal(pwrite(fd, page, sizeof(page), (root - 1) * 4096), sizeof(page));
    close(fd);
    assert_int_equal(ledger_open(path, &f->ledger, why), 0); /* the keys are sound */
    assert_int_equal(make_backup(f, false), -EBADMSG);
    assert_non_null(strstr(f->why, "damaged"));
    assert_false(exists(f->part));
    assert_false(exists(f->file));
    assert_false(exists(f->secret_copy));
}

static void given_row_without_its_key_when_backed_up_then_told(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(database_exec(ledger_db(f->ledger), "PRAGMA foreign_keys = OFF;"
                                                         "DELETE FROM api_keys"),
                     0);
    assert_int_equal(make_backup(f, false), -EBADMSG);
    assert_non_null(strstr(f->why, "usage refers to a row of api_keys"));
}

static void given_no_secret_when_backed_up_then_told_and_no_file(void **state)
{
    struct fixture *f = *state;

    unlink(f->secret);
    assert_int_equal(make_backup(f, false), -EIO);
    assert_non_null(strstr(f->why, "No such file"));
    assert_false(exists(f->part));
    assert_false(exists(f->file));
}

static void given_reopened_connection_when_stepped_then_told(void **state)
{
    struct fixture *f = *state;
    struct backup *b;

    for (int i = 0; i < 20; i++)
        insert_rows(f, 500);
    assert_int_equal(start(f, false, &b), 0);
    assert_int_equal(slice(b), 1);
    assert_int_equal(ledger_reopen(f->ledger), 0);
    assert_int_equal(finish(f, b), -EIO);
    backup_free(b);
    insert_rows(f, 1);
    assert_int_equal(make_backup(f, false), 0);
}

static void given_disk_that_takes_no_more_when_backed_up_then_told_and_no_file(void **state)
{
    struct fixture *f = *state;
    struct rlimit before, limit;
    struct backup *b;
    int rc;

    for (int i = 0; i < 20; i++)
        insert_rows(f, 500);
    assert_int_equal(start(f, false, &b), 0);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = before;
    limit.rlim_cur = 256 * 1024;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    rc = finish(f, b);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_true(rc < 0);
    assert_non_null(strstr(f->why, f->part));
    backup_free(b);
    assert_false(exists(f->part));
    insert_rows(f, 1);
}

/* ---- the checking process ---- */

static int wait_for(struct copy_check *c, int64_t now_ms)
{
    int64_t deadline_ms = clock_monotonic_ms() + 20000;
    int rc;

    while ((rc = copy_check_poll(c, now_ms)) == 1) {
        assert_true(clock_monotonic_ms() < deadline_ms);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return rc;
}

static void given_killed_check_when_polled_then_told(void **state)
{
    struct fixture *f = *state;
    struct copy_check_order order = {.copy = f->file};
    struct copy_check c = {0};

    assert_int_equal(make_backup(f, false), 0);
    order.lock_fd = open(f->file, O_RDWR);
    assert_int_equal(copy_check_start(&c, &order, 0), 0);
    assert_true(copy_check_is_running(&c));
    kill(c.pid, SIGKILL);
    assert_int_equal(wait_for(&c, 0), -ECHILD);
    assert_false(copy_check_is_running(&c));
    close(order.lock_fd);
}

static void given_check_without_end_when_time_is_over_then_killed(void **state)
{
    struct fixture *f = *state;
    struct copy_check_order order = {.copy = f->file};
    struct copy_check c = {0};

    assert_int_equal(make_backup(f, false), 0);
    order.lock_fd = open(f->file, O_RDWR);
    assert_int_equal(copy_check_start(&c, &order, 0), 0);
    kill(c.pid, SIGSTOP);
    assert_int_equal(wait_for(&c, INT64_MAX), -ETIMEDOUT);
    assert_false(copy_check_is_running(&c));
    close(order.lock_fd);
}

static void given_no_copy_when_check_is_started_then_errno(void **state)
{
    struct fixture *f = *state;
    const struct copy_check_order order = {.copy = f->file};
    struct copy_check c = {0};

    assert_int_equal(copy_check_start(&c, &order, 0), -ENOENT);
    copy_check_stop(&c);
}

/* ---- after an unclean stop ---- */

static void given_marks_when_begun_then_unclean_is_seen(void **state)
{
    struct fixture *f = *state;
    sqlite3 *db = ledger_db(f->ledger);
    bool is_due;

    assert_int_equal(integrity_begin(db, &is_due), 0);
    assert_false(is_due); /* a new database */
    assert_int_equal(integrity_end(db), 0);
    assert_int_equal(integrity_begin(db, &is_due), 0);
    assert_false(is_due);
    /* No end. */
    assert_int_equal(integrity_begin(db, &is_due), 0);
    assert_true(is_due);
}

static void given_sound_database_when_checked_then_no_copy_stays(void **state)
{
    struct fixture *f = *state;
    struct backup *b;
    char path[128];

    assert_int_equal(integrity_start(f->ledger, f->state, &b, f->why), 0);
    assert_int_equal(finish(f, b), 0);
    backup_free(b);
    snprintf(path, sizeof(path), "%s/integrity-check", f->state);
    assert_false(exists(path));
    snprintf(path, sizeof(path), "%s/integrity-check.part", f->state);
    assert_false(exists(path));
    snprintf(path, sizeof(path), "%s/integrity-check.key.secret", f->state);
    assert_false(exists(path));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(given_ledger_when_backed_up_then_copy_and_secret_are_private_and_equal),
        TEST(given_commits_between_slices_when_backed_up_then_they_are_in_it),
        TEST(given_rollback_between_slices_when_backed_up_then_copy_is_sound),
        TEST(given_file_that_exists_when_backed_up_then_refused_unless_forced),
        TEST(given_bad_place_when_backed_up_then_refused),
        TEST(given_backup_under_way_when_another_wants_the_file_then_busy),
        TEST(given_part_file_left_over_when_backed_up_then_replaced),
        TEST(given_symlink_as_part_file_when_backed_up_then_its_target_is_left_alone),
        TEST(given_broken_off_backup_when_freed_then_no_file_stays),
        TEST(given_damaged_database_when_backed_up_then_told_and_no_file),
        TEST(given_row_without_its_key_when_backed_up_then_told),
        TEST(given_no_secret_when_backed_up_then_told_and_no_file),
        TEST(given_reopened_connection_when_stepped_then_told),
        TEST(given_disk_that_takes_no_more_when_backed_up_then_told_and_no_file),
        TEST(given_killed_check_when_polled_then_told),
        TEST(given_check_without_end_when_time_is_over_then_killed),
        TEST(given_no_copy_when_check_is_started_then_errno),
        TEST(given_marks_when_begun_then_unclean_is_seen),
        TEST(given_sound_database_when_checked_then_no_copy_stays),
#undef TEST
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
