#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/frame.h"
#include "usage/control.h"

#define WORKERS 8
#define PEERS (WORKERS * CONTROL_ASKS_MAX + 32)

/* No operation that needs a ledger is asked for. */
struct fixture {
    char path[64];
    struct control_context context;
    struct loop *loop;
    struct usage_control *control;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    snprintf(f->path, sizeof(f->path), "/tmp/test_usage_control.%d", (int)getpid());
    f->loop = loop_new();
    assert_int_equal(usage_control_open(f->loop, f->path, &f->context, &f->control), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    usage_control_close(f->control);
    assert_int_equal(access(f->path, F_OK), -1);
    loop_free(f->loop);
    free(f);
    return 0;
}

static void turns(struct fixture *f)
{
    for (;;) {
        int64_t next_ms = usage_control_next_ms(f->control);
        int n = loop_turn(f->loop, next_ms == -1 ? 5 : 0);

        usage_control_turn(f->control);
        if (n <= 0 && next_ms == -1)
            return;
    }
}

static void ask(int fd)
{
    struct buf json;

    buf_init(&json, 256);
    buf_str(&json, "{\"op\":\"nothing\"}");
    assert_int_equal(frame_send(fd, &json, 1000), 0);
    buf_clear(&json);
}

static void assert_answered(int fd)
{
    struct buf json;

    buf_init(&json, 4096);
    assert_int_equal(frame_recv(fd, &json, 1000), 0);
    assert_non_null(strstr(buf_text(&json), "unknown_op"));
    buf_clear(&json);
}

static void given_all_asks_of_many_workers_when_they_come_then_each_is_answered(void **state)
{
    struct fixture *f = *state;
    int fds[PEERS];

    for (size_t i = 0; i < PEERS; i++) {
        fds[i] = frame_connect(f->path, 1000);
        assert_true(fds[i] >= 0);
        ask(fds[i]);
        if (i % 32 == 31) /* the backlog ends at 128 */
            turns(f);
    }
    turns(f);
    for (size_t i = 0; i < PEERS; i++) {
        assert_answered(fds[i]);
        close(fds[i]);
    }
    turns(f);
}

static void given_no_free_descriptor_when_a_peer_comes_then_it_waits_without_a_spin(void **state)
{
    struct fixture *f = *state;
    int fd = frame_connect(f->path, 1000);
    struct rlimit before, none;

    ask(fd);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = before;
    none.rlim_cur = (rlim_t)fd + 1;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    assert_int_equal(loop_turn(f->loop, 1000), 1);
    assert_int_equal(loop_turn(f->loop, 20), 0); /* not again and again */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    for (int i = 0; i < 50; i++) {
        loop_turn(f->loop, 10);
        usage_control_turn(f->control);
    }
    assert_answered(fd);
    close(fd);
    turns(f);
}

static void given_a_peer_when_no_new_ones_are_taken_then_it_is_still_served(void **state)
{
    struct fixture *f = *state;
    int fd = frame_connect(f->path, 1000);

    turns(f);
    usage_control_stop(f->control);
    ask(fd); /* who is connected is still served */
    turns(f);
    assert_answered(fd);
    close(fd);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(given_all_asks_of_many_workers_when_they_come_then_each_is_answered),
        T(given_no_free_descriptor_when_a_peer_comes_then_it_waits_without_a_spin),
        T(given_a_peer_when_no_new_ones_are_taken_then_it_is_still_served),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
