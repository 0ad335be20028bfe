#define _GNU_SOURCE 1 /* pipe2 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "gateway/log_writer.h"

#define WAIT_MS 10000

struct fixture {
    char dir[40], error[64], access[64], moved[64];
    int error_pipe[2], access_pipe[2];
    struct log_writer *writer;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    strcpy(f->dir, "/tmp/test_log_writer.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->error, sizeof(f->error), "%s/error.log", f->dir);
    snprintf(f->access, sizeof(f->access), "%s/access.log", f->dir);
    snprintf(f->moved, sizeof(f->moved), "%s/error.log.1", f->dir);
    assert_int_equal(pipe2(f->error_pipe, O_CLOEXEC | O_NONBLOCK), 0);
    assert_int_equal(pipe2(f->access_pipe, O_CLOEXEC | O_NONBLOCK), 0);
    f->writer = log_writer_new(f->error_pipe[0], f->error, f->access_pipe[0], f->access);
    assert_non_null(f->writer);
    *state = f;
    return 0;
}

static void finish(struct fixture *f)
{
    int64_t until_ms = clock_monotonic_ms() + WAIT_MS;

    log_writer_finish(f->writer);
    while (!log_writer_is_done(f->writer) && clock_monotonic_ms() < until_ms)
        usleep(1000);
    assert_true(log_writer_is_done(f->writer));
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    if (!log_writer_is_done(f->writer))
        finish(f);
    log_writer_free(f->writer);
    for (int i = 0; i < 2; i++) {
        close(f->error_pipe[i]);
        close(f->access_pipe[i]);
    }
    unlink(f->error);
    unlink(f->access);
    unlink(f->moved);
    rmdir(f->dir);
    free(f);
    return 0;
}

static void assert_content(const char *path, const char *text)
{
    char got[256] = "";
    int fd = open(path, O_RDONLY);

    assert_true(fd >= 0);
    assert_true(read(fd, got, sizeof(got) - 1) >= 0);
    close(fd);
    assert_string_equal(got, text);
}

static void await_content(const char *path, const char *text)
{
    int64_t until_ms = clock_monotonic_ms() + WAIT_MS;
    char got[256];

    do {
        int fd = open(path, O_RDONLY);
        ssize_t n = fd == -1 ? 0 : read(fd, got, sizeof(got) - 1);

        if (fd != -1)
            close(fd);
        got[n > 0 ? n : 0] = '\0';
        if (strcmp(got, text) == 0)
            return;
        usleep(1000);
    } while (clock_monotonic_ms() < until_ms);
    assert_string_equal(got, text);
}

static void put(int fd, const char *text)
{
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

static void given_lines_in_both_pipes_when_written_then_each_is_in_its_file(void **state)
{
    struct fixture *f = *state;

    put(f->error_pipe[1], "e1\n");
    put(f->access_pipe[1], "a1\n");
    put(f->error_pipe[1], "e2\n");
    await_content(f->error, "e1\ne2\n");
    await_content(f->access, "a1\n");
}

static void given_lines_left_when_finished_then_all_are_written(void **state)
{
    struct fixture *f = *state;

    put(f->error_pipe[1], "last\n");
    put(f->access_pipe[1], "line\n");
    finish(f);
    assert_content(f->error, "last\n");
    assert_content(f->access, "line\n");
    assert_int_equal(log_writer_lost(f->writer), 0);
}

static void given_renamed_file_when_reopened_then_new_lines_go_to_a_new_one(void **state)
{
    struct fixture *f = *state;

    put(f->error_pipe[1], "old\n");
    await_content(f->error, "old\n");
    assert_int_equal(rename(f->error, f->moved), 0);
    log_writer_reopen(f->writer);
    await_content(f->error, "");
    while (access(f->error, F_OK) == -1)
        usleep(1000);
    put(f->error_pipe[1], "new\n");
    finish(f);
    assert_content(f->moved, "old\n");
    assert_content(f->error, "new\n");
}

static void given_many_lines_when_finished_then_none_is_lost_or_repeated(void **state)
{
    struct fixture *f = *state;
    char line[32], got[32];
    FILE *file;

    for (int i = 0; i < 20000; i++) {
        int len = snprintf(line, sizeof(line), "%d\n", i);

        while (write(f->error_pipe[1], line, (size_t)len) == -1)
            assert_int_equal(errno, EAGAIN);
    }
    finish(f);
    file = fopen(f->error, "r");
    for (int i = 0; i < 20000; i++) {
        snprintf(line, sizeof(line), "%d\n", i);
        assert_non_null(fgets(got, sizeof(got), file));
        assert_string_equal(got, line);
    }
    assert_null(fgets(got, sizeof(got), file));
    fclose(file);
}

static void given_file_that_cannot_be_opened_when_made_then_errno_says_why(void **state)
{
    struct fixture *f = *state;

    assert_null(log_writer_new(f->error_pipe[0], "/nonexistent/e.log", f->access_pipe[0], ""));
    assert_int_equal(errno, ENOENT);
}

static void given_full_disk_when_written_then_lines_are_counted_as_lost(void **state)
{
    struct fixture *f = *state;
    struct log_writer *w = log_writer_new(f->error_pipe[0], "/dev/full", f->access_pipe[0], "");

    finish(f); /* the other one must not take the lines */
    assert_non_null(w);
    put(f->error_pipe[1], "1\n2\n");
    log_writer_finish(w);
    while (!log_writer_is_done(w))
        usleep(1000);
    assert_int_equal(log_writer_lost(w), 2);
    log_writer_free(w);
}

int main(void)
{
#define WRITER_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        WRITER_TEST(given_lines_in_both_pipes_when_written_then_each_is_in_its_file),
        WRITER_TEST(given_lines_left_when_finished_then_all_are_written),
        WRITER_TEST(given_renamed_file_when_reopened_then_new_lines_go_to_a_new_one),
        WRITER_TEST(given_many_lines_when_finished_then_none_is_lost_or_repeated),
        WRITER_TEST(given_file_that_cannot_be_opened_when_made_then_errno_says_why),
        WRITER_TEST(given_full_disk_when_written_then_lines_are_counted_as_lost),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
