#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/frame.h"

struct fixture {
    char dir[40];
    char path[64];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    strcpy(f->dir, "/tmp/test_frame.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->path, sizeof(f->path), "%s/s.sock", f->dir);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    unlink(f->path);
    rmdir(f->dir);
    free(f);
    return 0;
}

static void given_frames_when_cut_at_any_byte_then_whole_ones_come_out(void **state)
{
    struct buf wire, in;
    const char *json;
    size_t len;

    buf_init(&wire, 1000);
    assert_int_equal(frame_put(&wire, "{\"a\":1}", 7), 0);
    assert_int_equal(frame_put(&wire, "{}", 2), 0);
    for (size_t cut = 0; cut <= wire.len; cut++) {
        buf_init(&in, 1000);
        buf_append(&in, wire.data, cut);
        assert_int_equal(frame_peek(&in, &json, &len), cut >= 11);
        buf_append(&in, wire.data + cut, wire.len - cut);
        assert_int_equal(frame_peek(&in, &json, &len), 1);
        assert_int_equal(len, 7);
        assert_memory_equal(json, "{\"a\":1}", 7);
        frame_drop(&in);
        assert_int_equal(frame_peek(&in, &json, &len), 1);
        assert_memory_equal(json, "{}", 2);
        frame_drop(&in);
        assert_int_equal(frame_peek(&in, &json, &len), 0);
        buf_clear(&in);
    }
    buf_clear(&wire);
}

static void given_impossible_length_when_peeked_then_protocol_error(void **state)
{
    struct buf in;
    const char *json;
    size_t len;

    buf_init(&in, 100);
    buf_append(&in, "\0\0\0\0", 4);
    assert_int_equal(frame_peek(&in, &json, &len), -EPROTO);
    buf_reset(&in);
    buf_append(&in, "\0\x10\0\1", 4);
    assert_int_equal(frame_peek(&in, &json, &len), -EPROTO);
    buf_reset(&in);
    buf_append(&in, "\0\x10\0\0", 4);
    assert_int_equal(frame_peek(&in, &json, &len), 0);
    buf_clear(&in);
}

static void given_no_room_when_frame_put_then_nothing_added(void **state)
{
    struct buf out;

    buf_init(&out, 8);
    assert_int_equal(frame_put(&out, "12345", 5), -EMSGSIZE);
    assert_int_equal(out.len, 0);
    buf_reset(&out);
    assert_int_equal(frame_put(&out, "", 0), -EMSGSIZE);
    buf_clear(&out);
}

static void given_big_frame_when_sent_then_received_whole(void **state)
{
    const size_t len = FRAME_MAX;
    struct buf json, got;
    int fds[2], status;
    pid_t child;

    buf_init(&json, FRAME_MAX);
    buf_init(&got, FRAME_MAX);
    memset(buf_room(&json, len), ' ', len);
    buf_commit(&json, len);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    child = fork();
    assert_int_not_equal(child, -1);
    if (child == 0)
        _exit(frame_send(fds[1], &json, 5000) == 0 ? 0 : 1);
    assert_int_equal(frame_recv(fds[0], &got, 5000), 0);
    assert_int_equal(got.len, len);
    assert_memory_equal(got.data, json.data, len);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    close(fds[0]);
    close(fds[1]);
    buf_clear(&json);
    buf_clear(&got);
}

static void given_silent_peer_when_receiving_then_deadline_holds(void **state)
{
    int64_t start_ms = clock_monotonic_ms();
    struct buf got;
    int fds[2];

    buf_init(&got, FRAME_MAX);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    assert_int_equal(write(fds[1], "\0\0\0\5{", 5), 5);
    assert_int_equal(frame_recv(fds[0], &got, 50), -ETIMEDOUT);
    assert_true(clock_monotonic_ms() - start_ms < 2000);
    close(fds[1]);
    assert_int_equal(frame_recv(fds[0], &got, 50), -ECONNRESET);
    close(fds[0]);
    buf_clear(&got);
}

static void given_closed_peer_when_sending_then_error_and_no_signal(void **state)
{
    struct buf json;
    int fds[2];

    buf_init(&json, 100);
    buf_str(&json, "{}");
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    close(fds[1]);
    assert_int_equal(frame_send(fds[0], &json, 50), -EPIPE);
    close(fds[0]);
    buf_clear(&json);
}

static void given_listener_when_connected_then_request_and_peer_arrive(void **state)
{
    const struct fixture *f = *state;
    struct buf json, got;
    struct stat st;
    int server = unix_listen(f->path, SOCK_STREAM, 0600);
    int client, accepted;

    assert_true(server >= 0);
    assert_int_equal(stat(f->path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(accept(server, NULL, NULL), -1); /* non-blocking */
    client = frame_connect(f->path, 1000);
    assert_true(client >= 0);
    accepted = accept(server, NULL, NULL);
    assert_true(accepted >= 0);
    assert_int_equal(unix_peer_check(accepted), 0);
    buf_init(&json, 100);
    buf_init(&got, 100);
    buf_str(&json, "{\"op\":\"x\"}");
    assert_int_equal(frame_send(client, &json, 1000), 0);
    assert_int_equal(frame_recv(accepted, &got, 1000), 0);
    assert_string_equal(buf_text(&got), "{\"op\":\"x\"}");
    close(client);
    close(accepted);
    close(server);
    buf_clear(&json);
    buf_clear(&got);
}

static void given_stale_socket_when_listening_then_replaced_but_no_other_file(void **state)
{
    const struct fixture *f = *state;
    int first = unix_listen(f->path, SOCK_SEQPACKET, 0660);
    int second;

    assert_true(first >= 0);
    close(first);
    assert_int_equal(frame_connect(f->path, 100), -ECONNREFUSED);
    second = unix_listen(f->path, SOCK_STREAM, 0600);
    assert_true(second >= 0);
    close(second);
    assert_int_equal(frame_connect(f->path, 100), -ECONNREFUSED);
    unlink(f->path);
    close(open(f->path, O_CREAT | O_WRONLY, 0600));
    assert_int_equal(unix_listen(f->path, SOCK_STREAM, 0600), -EADDRINUSE);
    assert_int_equal(access(f->path, F_OK), 0);
}

static void given_path_too_long_when_used_then_said_so(void **state)
{
    char path[200];

    memset(path, 'x', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    assert_int_equal(unix_listen(path, SOCK_STREAM, 0600), -ENAMETOOLONG);
    assert_int_equal(frame_connect(path, 10), -ENAMETOOLONG);
    assert_int_equal(frame_connect("/nonexistent/socket", 10), -ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_frames_when_cut_at_any_byte_then_whole_ones_come_out),
        cmocka_unit_test(given_impossible_length_when_peeked_then_protocol_error),
        cmocka_unit_test(given_no_room_when_frame_put_then_nothing_added),
        cmocka_unit_test(given_big_frame_when_sent_then_received_whole),
        cmocka_unit_test(given_silent_peer_when_receiving_then_deadline_holds),
        cmocka_unit_test(given_closed_peer_when_sending_then_error_and_no_signal),
        cmocka_unit_test_setup_teardown(given_listener_when_connected_then_request_and_peer_arrive,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(
            given_stale_socket_when_listening_then_replaced_but_no_other_file, setup, teardown),
        cmocka_unit_test(given_path_too_long_when_used_then_said_so),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
