#define _GNU_SOURCE 1 /* memfd_create */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "gateway/child.h"

static int setup(void **state)
{
    static int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair),
                     0);
    *state = pair;
    return 0;
}

static int teardown(void **state)
{
    int *pair = *state;

    close(pair[0]);
    if (pair[1] != -1)
        close(pair[1]);
    return 0;
}

static void given_order_when_sent_then_received_with_its_argument(void **state)
{
    int *pair = *state, fd = 7;
    struct control message;

    assert_int_equal(control_recv(pair[1], &message, &fd), 0);
    assert_int_equal(fd, -1);
    assert_int_equal(control_send(pair[0], CONTROL_DRAIN, INT64_C(12345678901), -1), 0);
    assert_int_equal(control_send(pair[0], CONTROL_KILL, 0, -1), 0);
    assert_int_equal(control_recv(pair[1], &message, &fd), 1);
    assert_int_equal(message.type, CONTROL_DRAIN);
    assert_true(message.arg == INT64_C(12345678901));
    assert_int_equal(fd, -1);
    assert_int_equal(control_recv(pair[1], &message, &fd), 1);
    assert_int_equal(message.type, CONTROL_KILL);
    assert_int_equal(control_recv(pair[1], &message, &fd), 0);
}

static void given_descriptor_when_sent_then_the_same_file_arrives_close_on_exec(void **state)
{
    int *pair = *state, fd, memory = memfd_create("test", MFD_CLOEXEC);
    struct control message;
    char text[8] = "";

    assert_int_equal(write(memory, "hello", 5), 5);
    assert_int_equal(control_send(pair[0], CONTROL_CONFIG, 0, memory), 0);
    close(memory);
    assert_int_equal(control_recv(pair[1], &message, &fd), 1);
    assert_int_equal(message.type, CONTROL_CONFIG);
    assert_true(fd >= 0);
    assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    assert_int_equal(pread(fd, text, 5, 0), 5);
    assert_string_equal(text, "hello");
    close(fd);
}

static void given_closed_end_when_used_then_epipe(void **state)
{
    int *pair = *state, fd;
    struct control message;

    assert_int_equal(control_send(pair[1], CONTROL_READY, 0, -1), 0);
    close(pair[1]);
    pair[1] = -1;
    assert_int_equal(control_recv(pair[0], &message, &fd), 1); /* what was said before counts */
    assert_int_equal(control_recv(pair[0], &message, &fd), -EPIPE);
    assert_int_equal(control_send(pair[0], CONTROL_DRAIN, 0, -1), -EPIPE);
}

static void given_child_that_does_not_read_when_orders_pile_up_then_sender_never_waits(void **state)
{
    int *pair = *state, sent = 0;

    while (control_send(pair[0], CONTROL_LOG_LEVEL, 0, -1) == 0 && sent < 100000)
        sent++;
    assert_in_range(sent, 1, 99999);
    assert_int_equal(control_send(pair[0], CONTROL_LOG_LEVEL, 0, -1), -EAGAIN);
}

static void given_short_message_when_received_then_eproto(void **state)
{
    int *pair = *state, fd;
    struct control message;

    assert_int_equal(send(pair[0], "xy", 2, 0), 2);
    assert_int_equal(control_recv(pair[1], &message, &fd), -EPROTO);
}

int main(void)
{
#define CHILD_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        CHILD_TEST(given_order_when_sent_then_received_with_its_argument),
        CHILD_TEST(given_descriptor_when_sent_then_the_same_file_arrives_close_on_exec),
        CHILD_TEST(given_closed_end_when_used_then_epipe),
        CHILD_TEST(given_child_that_does_not_read_when_orders_pile_up_then_sender_never_waits),
        CHILD_TEST(given_short_message_when_received_then_eproto),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
