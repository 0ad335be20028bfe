#include "tests/unit/ledger_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "usage/wal.h"

struct fixture {
    char dir[64];
    char path[96], log[128], index[128];
};

static void run(sqlite3 *db, const char *sql)
{
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
}

/* Leaves a log and its index behind, as a process that was killed does. */
static int set_up(void **state)
{
    static struct fixture f;
    sqlite3 *db;

    fixture_make_dir(f.dir);
    snprintf(f.path, sizeof(f.path), "%s/x.db", f.dir);
    snprintf(f.log, sizeof(f.log), "%s-wal", f.path);
    snprintf(f.index, sizeof(f.index), "%s-shm", f.path);
    assert_int_equal(sqlite3_open(f.path, &db), SQLITE_OK);
    run(db, "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0;"
            "CREATE TABLE t (a TEXT); INSERT INTO t VALUES (hex(randomblob(3000)));"
            "INSERT INTO t VALUES (hex(randomblob(3000)));");
    assert_int_equal(sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    fixture_remove_dir(((struct fixture *)*state)->dir);
    return 0;
}

static off_t size_of(const char *path)
{
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    return st.st_size;
}

static void flip(const char *path, off_t at)
{
    int fd = open(path, O_RDWR);
    uint8_t byte;

    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 0x10;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

static void given_log_of_a_dead_process_when_judged_then_nothing_is_lost(void **state)
{
    const struct fixture *f = *state;

    assert_true(size_of(f->log) > 4 * 4096);
    assert_int_equal(wal_lost_frames(f->path), 0);
}

static void given_log_that_was_cut_when_judged_then_its_frames_are_missed(void **state)
{
    const struct fixture *f = *state;
    off_t size = size_of(f->log);
    int64_t frames = (size - WAL_HEADER_BYTES) / (4096 + WAL_FRAME_HEADER_BYTES);

    assert_int_equal(truncate(f->log, size - 1), 0);
    assert_int_equal(wal_lost_frames(f->path), 1);
    assert_int_equal(truncate(f->log, WAL_HEADER_BYTES + 4096), 0);
    assert_int_equal(wal_lost_frames(f->path), frames);
    assert_int_equal(truncate(f->log, 0), 0);
    assert_int_equal(wal_lost_frames(f->path), frames);
    assert_int_equal(unlink(f->log), 0);
    assert_int_equal(wal_lost_frames(f->path), frames);
}

static void given_any_byte_of_the_log_when_flipped_then_frames_are_missed(void **state)
{
    const struct fixture *f = *state;
    off_t size = size_of(f->log);

    for (off_t at = 0; at < size; at += at < 200 ? 1 : 61) {
        off_t in_frame = (at - WAL_HEADER_BYTES) % (4096 + WAL_FRAME_HEADER_BYTES);

        flip(f->log, at);
        if (wal_lost_frames(f->path) == 0)
            fail_msg("byte %lld, %lld of its frame", (long long)at, (long long)in_frame);
        flip(f->log, at);
    }
    assert_int_equal(wal_lost_frames(f->path), 0);
}

static void given_log_that_was_copied_when_cut_then_nothing_is_lost(void **state)
{
    const struct fixture *f = *state;
    sqlite3 *db;

    assert_int_equal(sqlite3_open(f->path, &db), SQLITE_OK);
    run(db, "PRAGMA wal_checkpoint(PASSIVE)");
    assert_int_equal(sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_int_equal(truncate(f->log, 100), 0);
    assert_int_equal(wal_lost_frames(f->path), 0);
}

static void given_index_torn_in_its_first_copy_when_judged_then_the_second_counts(void **state)
{
    const struct fixture *f = *state;

    flip(f->index, 16);
    assert_int_equal(wal_lost_frames(f->path), 0);
    assert_int_equal(truncate(f->log, size_of(f->log) - 1), 0);
    assert_int_equal(wal_lost_frames(f->path), 1);
    flip(f->index, 48 + 16); /* now neither can be believed */
    assert_int_equal(wal_lost_frames(f->path), 0);
}

static void given_index_from_before_the_boot_when_judged_then_it_tells_nothing(void **state)
{
    const struct fixture *f = *state;
    const struct timespec times[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};

    assert_int_equal(truncate(f->log, 100), 0);
    assert_true(wal_lost_frames(f->path) > 0);
    assert_int_equal(utimensat(AT_FDCWD, f->index, times, 0), 0);
    assert_int_equal(wal_lost_frames(f->path), 0);
}

static void given_no_index_or_a_short_one_when_judged_then_nothing_is_lost(void **state)
{
    const struct fixture *f = *state;

    assert_int_equal(truncate(f->index, 50), 0);
    assert_int_equal(wal_lost_frames(f->path), 0);
    assert_int_equal(unlink(f->index), 0);
    assert_int_equal(wal_lost_frames(f->path), 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(given_log_of_a_dead_process_when_judged_then_nothing_is_lost),
        T(given_log_that_was_cut_when_judged_then_its_frames_are_missed),
        T(given_any_byte_of_the_log_when_flipped_then_frames_are_missed),
        T(given_log_that_was_copied_when_cut_then_nothing_is_lost),
        T(given_index_torn_in_its_first_copy_when_judged_then_the_second_counts),
        T(given_index_from_before_the_boot_when_judged_then_it_tells_nothing),
        T(given_no_index_or_a_short_one_when_judged_then_nothing_is_lost),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
