#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "gateway/identity.h"
#include "gateway/locks.h"

struct fixture {
    char dir[40], run[64], state[64];
    struct buf why;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    strcpy(f->dir, "/tmp/test_locks.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->run, sizeof(f->run), "%s/run", f->dir);
    snprintf(f->state, sizeof(f->state), "%s/state", f->dir);
    assert_int_equal(identity_make_dir(f->run, 0750), 0);
    assert_int_equal(identity_make_dir(f->state, 0700), 0);
    buf_init(&f->why, 4096);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char path[96];

    snprintf(path, sizeof(path), "%s/xrouter.lock", f->run);
    unlink(path);
    assert_int_equal(rmdir(f->run), 0); /* nothing else was left in it */
    assert_int_equal(rmdir(f->state), 0);
    assert_int_equal(rmdir(f->dir), 0);
    buf_clear(&f->why);
    free(f);
    return 0;
}

static void given_running_instance_when_a_second_starts_then_busy_with_its_pid(void **state)
{
    struct fixture *f = *state;
    struct locks first, second;
    char pid[32];

    assert_int_equal(locks_take(&first, f->run, f->state, &f->why), 0);
    assert_int_equal(f->why.len, 0);
    assert_int_equal(locks_take(&second, f->run, f->state, &f->why), -EBUSY);
    snprintf(pid, sizeof(pid), "(pid %d)", (int)getpid());
    assert_non_null(strstr(buf_text(&f->why), "another instance is running"));
    assert_non_null(strstr(buf_text(&f->why), pid));
    assert_int_equal(second.pid_fd, -1);
    locks_release(&first, f->run);
    assert_int_equal(locks_take(&second, f->run, f->state, &f->why), 0);
    locks_release(&second, f->run);
}

static void given_same_state_dir_when_another_runtime_dir_is_used_then_busy(void **state)
{
    struct fixture *f = *state;
    struct locks first, second;
    char other[96];

    snprintf(other, sizeof(other), "%s/other", f->dir);
    assert_int_equal(identity_make_dir(other, 0750), 0);
    assert_int_equal(locks_take(&first, f->run, f->state, &f->why), 0);
    assert_int_equal(locks_take(&second, other, f->state, &f->why), -EBUSY);
    assert_non_null(strstr(buf_text(&f->why), "state directory"));
    locks_release(&first, f->run);
    assert_int_equal(rmdir(other), 0); /* its pid file was taken back */
}

static void
given_forked_child_that_forgets_when_it_lives_on_then_lock_goes_with_the_master(void **state)
{
    struct fixture *f = *state;
    struct locks first, second;
    int status, gate[2];
    pid_t pid;

    assert_int_equal(pipe(gate), 0);
    assert_int_equal(locks_take(&first, f->run, f->state, &f->why), 0);
    pid = fork();
    if (pid == 0) {
        char c;

        locks_forget(&first);
        close(gate[1]);
        _exit(read(gate[0], &c, 1) == 0 ? 0 : 1);
    }
    /* As if the master were killed: closed, not released. Until the child has closed its copies the
     * lock is held. */
    assert_int_equal(locks_take(&second, f->run, f->state, &f->why), -EBUSY);
    close(first.pid_fd);
    close(first.state_fd);
    while (locks_take(&second, f->run, f->state, &f->why) == -EBUSY)
        usleep(1000);
    assert_true(second.pid_fd >= 0);
    locks_release(&second, f->run);
    close(gate[1]);
    close(gate[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void
given_children_that_share_when_asked_then_their_pids_are_known_until_they_end(void **state)
{
    struct fixture *f = *state;
    int ready[2], status;
    pid_t pids[8], pid;
    char c;

    assert_int_equal(locks_is_unshared(f->run), 1);
    assert_int_equal(pipe(ready), 0);
    pid = fork();
    if (pid == 0) {
        int fd = locks_share(f->run);

        if (fd < 0 || write(ready[1], "x", 1) != 1)
            _exit(1);
        pause();
    }
    assert_int_equal(read(ready[0], &c, 1), 1);
    assert_int_equal(locks_is_unshared(f->run), 0);
    assert_int_equal(locks_sharers(f->run, pids, 8), 1);
    assert_int_equal(pids[0], pid);
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(locks_is_unshared(f->run), 1);
    assert_int_equal(locks_sharers(f->run, pids, 8), 0);
    close(ready[0]);
    close(ready[1]);
}

static void given_missing_directory_when_taken_then_error_names_it(void **state)
{
    struct fixture *f = *state;
    struct locks locks;

    assert_int_equal(locks_take(&locks, "/nonexistent/run", f->state, &f->why), -ENOENT);
    assert_non_null(strstr(buf_text(&f->why), "/nonexistent/run"));
}

int main(void)
{
#define LOCKS_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        LOCKS_TEST(given_running_instance_when_a_second_starts_then_busy_with_its_pid),
        LOCKS_TEST(given_same_state_dir_when_another_runtime_dir_is_used_then_busy),
        LOCKS_TEST(given_forked_child_that_forgets_when_it_lives_on_then_lock_goes_with_the_master),
        LOCKS_TEST(given_children_that_share_when_asked_then_their_pids_are_known_until_they_end),
        LOCKS_TEST(given_missing_directory_when_taken_then_error_names_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
