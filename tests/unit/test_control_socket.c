#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/frame.h"
#include "common/json.h"
#include "gateway/control_socket.h"

struct fixture {
    char path[64];
    struct loop *loop;
    struct control_socket *server;
    int requests;
};

static const char *on_request(void *arg, const cJSON *request, struct buf *result,
                              struct buf *message)
{
    struct fixture *f = arg;

    f->requests++;
    if (strcmp(json_string(request, "op"), "fail") == 0) {
        buf_str(message, "it \"failed\"");
        return "not_found";
    }
    buf_printf(result, "{\"count\":%d}", f->requests);
    return NULL;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    snprintf(f->path, sizeof(f->path), "/tmp/test_control_socket.%d", (int)getpid());
    f->loop = loop_new();
    assert_int_equal(control_socket_open(f->loop, f->path, on_request, f, &f->server), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    control_socket_close(f->server);
    assert_int_equal(access(f->path, F_OK), -1);
    loop_free(f->loop);
    free(f);
    return 0;
}

static void turns(struct fixture *f)
{
    while (loop_turn(f->loop, 5) > 0)
        ;
}

static void send_text(struct fixture *f, int fd, const char *text)
{
    struct buf json;

    buf_init(&json, 4096);
    buf_str(&json, text);
    assert_int_equal(frame_send(fd, &json, 1000), 0);
    buf_clear(&json);
    turns(f);
}

static void assert_answer(int fd, const char *text)
{
    struct buf json;

    buf_init(&json, FRAME_MAX);
    assert_int_equal(frame_recv(fd, &json, 1000), 0);
    assert_string_equal(buf_text(&json), text);
    buf_clear(&json);
}

static void given_request_when_sent_then_result_comes_back(void **state)
{
    struct fixture *f = *state;
    int fd = frame_connect(f->path, 1000);

    send_text(f, fd, "{\"op\":\"x\"}");
    assert_answer(fd, "{\"done\":true,\"result\":{\"count\":1}}");
    send_text(f, fd, "{\"op\":\"x\"}");
    assert_answer(fd, "{\"done\":true,\"result\":{\"count\":2}}");
    close(fd);
    turns(f);
}

static void given_failure_when_answered_then_code_and_message(void **state)
{
    struct fixture *f = *state;
    int fd = frame_connect(f->path, 1000);

    send_text(f, fd, "{\"op\":\"fail\"}");
    assert_answer(fd, "{\"done\":true,\"error\":{\"code\":\"not_found\","
                      "\"message\":\"it \\\"failed\\\"\"}}");
    close(fd);
    turns(f);
}

static void given_bad_requests_when_sent_then_refused_and_not_passed_on(void **state)
{
    static const char *const bad[] = {"{}", "[]", "{\"op\":1}", "nonsense"};
    struct fixture *f = *state;
    int fd = frame_connect(f->path, 1000);

    for (size_t i = 0; i < 4; i++) {
        send_text(f, fd, bad[i]);
        assert_answer(fd, "{\"done\":true,\"error\":{\"code\":\"bad_request\","
                          "\"message\":\"a request is an object with \\\"op\\\"\"}}");
    }
    assert_int_equal(f->requests, 0);
    close(fd);
    turns(f);
}

static void given_request_cut_anywhere_when_it_arrives_then_one_answer(void **state)
{
    static const char frame[] = "\0\0\0\012{\"op\":\"x\"}";
    struct fixture *f = *state;
    int fd = frame_connect(f->path, 1000);

    for (size_t i = 0; i < sizeof(frame) - 1; i++) {
        assert_int_equal(f->requests, 0);
        assert_int_equal(write(fd, frame + i, 1), 1);
        turns(f);
    }
    assert_answer(fd, "{\"done\":true,\"result\":{\"count\":1}}");
    close(fd);
    turns(f);
}

static void given_too_long_a_frame_when_announced_then_closed(void **state)
{
    struct fixture *f = *state;
    int fd = frame_connect(f->path, 1000);
    char c;

    assert_int_equal(write(fd, "\377\377\377\377", 4), 4);
    turns(f);
    assert_int_equal(read(fd, &c, 1), 0);
    close(fd);
}

static void given_more_clients_than_places_when_they_come_then_the_last_is_refused(void **state)
{
    struct fixture *f = *state;
    int fds[17];
    char c;

    for (int i = 0; i < 17; i++) {
        fds[i] = frame_connect(f->path, 1000);
        assert_true(fds[i] >= 0);
        turns(f);
    }
    assert_int_equal(read(fds[16], &c, 1), 0);
    close(fds[0]);
    turns(f);
    close(fds[16]);
    fds[0] = frame_connect(f->path, 1000);
    turns(f);
    send_text(f, fds[0], "{\"op\":\"x\"}");
    assert_answer(fds[0], "{\"done\":true,\"result\":{\"count\":1}}");
    for (int i = 0; i < 16; i++)
        close(fds[i]);
    turns(f);
}

static void given_no_free_descriptor_when_client_comes_then_it_waits_without_a_spin(void **state)
{
    struct fixture *f = *state;
    struct rlimit whole, none;
    int events = 0;
    int fd = frame_connect(f->path, 1000);

    assert_true(fd >= 0);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &whole), 0);
    none = (struct rlimit){(rlim_t)fd, whole.rlim_max}; /* all below it are in use */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    for (int i = 0; i < 10; i++)
        events += loop_turn(f->loop, 1) > 0;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &whole), 0);
    assert_true(events <= 2);
    loop_turn(f->loop, 500); /* it looks again by itself */
    send_text(f, fd, "{\"op\":\"ask\"}");
    assert_answer(fd, "{\"done\":true,\"result\":{\"count\":1}}");
    close(fd);
    turns(f);
}

static void given_socket_file_when_made_then_group_may_use_it_and_others_not(void **state)
{
    struct fixture *f = *state;
    struct stat st;

    assert_int_equal(stat(f->path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0660);
}

int main(void)
{
#define SOCKET_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        SOCKET_TEST(given_request_when_sent_then_result_comes_back),
        SOCKET_TEST(given_failure_when_answered_then_code_and_message),
        SOCKET_TEST(given_bad_requests_when_sent_then_refused_and_not_passed_on),
        SOCKET_TEST(given_request_cut_anywhere_when_it_arrives_then_one_answer),
        SOCKET_TEST(given_too_long_a_frame_when_announced_then_closed),
        SOCKET_TEST(given_more_clients_than_places_when_they_come_then_the_last_is_refused),
        SOCKET_TEST(given_no_free_descriptor_when_client_comes_then_it_waits_without_a_spin),
        SOCKET_TEST(given_socket_file_when_made_then_group_may_use_it_and_others_not),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
