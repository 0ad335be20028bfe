#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/frame.h"
#include "common/json.h"
#include "gateway/ask.h"
#include "usage/control.h"

#define REQUEST "{\"op\":\"usage\"}"

/* The writer's end is played by the test itself. */
struct fixture {
    char path[64];
    struct loop *loop;
    struct asker *asker;
    int listen_fd;
    int peer; /* the connection accepted last, -1 = none */
    int answers;
    int rc;
    char text[64];
    char code[64];
    int parts;
    struct ask *next; /* started by the callback */
    bool asks_again;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    snprintf(f->path, sizeof(f->path), "/tmp/test_ask.%d", (int)getpid());
    f->loop = loop_new();
    f->listen_fd = unix_listen(f->path, SOCK_STREAM, 0600);
    f->peer = -1;
    assert_true(f->listen_fd >= 0);
    assert_int_equal(asker_new(f->loop, f->path, &f->asker), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    asker_free(f->asker);
    loop_free(f->loop);
    if (f->peer != -1)
        close(f->peer);
    close(f->listen_fd);
    unlink(f->path);
    free(f);
    return 0;
}

static void on_answer(void *arg, const struct ask_answer *answer)
{
    struct fixture *f = arg;

    f->answers++;
    f->rc = answer->rc;
    f->parts = cJSON_GetArraySize(answer->parts);
    snprintf(f->text, sizeof(f->text), "%.*s", (int)answer->len,
             answer->text != NULL ? answer->text : "");
    snprintf(f->code, sizeof(f->code), "%s",
             answer->error_code != NULL ? answer->error_code : "(none)");
    if (f->asks_again) {
        f->asks_again = false;
        assert_int_equal(
            ask_start(f->asker, REQUEST, strlen(REQUEST), 1000, on_answer, f, &f->next), 0);
    }
}

static struct ask *start(struct fixture *f, int64_t timeout_ms)
{
    struct ask *ask;

    assert_int_equal(ask_start(f->asker, REQUEST, strlen(REQUEST), timeout_ms, on_answer, f, &ask),
                     0);
    assert_non_null(ask);
    return ask;
}

static void accept_peer(struct fixture *f)
{
    f->peer = accept(f->listen_fd, NULL, NULL);
    assert_true(f->peer >= 0);
}

static void turns(struct fixture *f)
{
    while (loop_turn(f->loop, 5) > 0)
        ;
}

static void reply(struct fixture *f, const char *text)
{
    struct buf json;

    buf_init(&json, FRAME_MAX);
    buf_str(&json, text);
    assert_int_equal(frame_send(f->peer, &json, 1000), 0);
    buf_clear(&json);
}

static void given_a_writer_when_asked_then_its_answer_comes_once(void **state)
{
    struct fixture *f = *state;
    struct buf request;

    start(f, 1000);
    assert_int_equal(f->answers, 0);
    accept_peer(f);
    buf_init(&request, 4096);
    assert_int_equal(frame_recv(f->peer, &request, 1000), 0);
    assert_string_equal(buf_text(&request), REQUEST);
    buf_clear(&request);
    reply(f, "{\"done\":true,\"usage\":7}");
    turns(f);

    assert_int_equal(f->answers, 1);
    assert_int_equal(f->rc, 0);
    assert_string_equal(f->text, "{\"done\":true,\"usage\":7}");
    assert_string_equal(f->code, "(none)");
}

static void given_a_reply_when_it_comes_byte_by_byte_then_one_answer(void **state)
{
    static const char bytes[] = "\0\0\0\x0d{\"done\":true}";
    struct fixture *f = *state;

    start(f, 1000);
    accept_peer(f);
    for (size_t i = 0; i < sizeof(bytes) - 1; i++) {
        assert_int_equal(f->answers, 0);
        assert_int_equal(send(f->peer, bytes + i, 1, 0), 1);
        turns(f);
    }
    assert_int_equal(f->answers, 1);
    assert_string_equal(f->text, "{\"done\":true}");
}

static void given_several_frames_when_the_last_is_done_then_the_others_are_parts(void **state)
{
    struct fixture *f = *state;

    start(f, 1000);
    accept_peer(f);
    reply(f, "{\"keys\":[1]}");
    reply(f, "{\"done\":false,\"keys\":[2]}");
    turns(f);
    assert_int_equal(f->answers, 0);
    reply(f, "{\"done\":true}");
    turns(f);
    assert_int_equal(f->answers, 1);
    assert_int_equal(f->parts, 2);
}

static void given_a_refusal_when_read_then_its_code_is_told(void **state)
{
    struct fixture *f = *state;

    start(f, 1000);
    accept_peer(f);
    reply(f, "{\"done\":true,\"error\":{\"code\":\"not_found\",\"message\":\"no\"}}");
    turns(f);
    assert_int_equal(f->rc, 0);
    assert_string_equal(f->code, "not_found");
}

static void given_a_silent_writer_when_the_deadline_passes_then_timeout(void **state)
{
    struct fixture *f = *state;

    start(f, 20);
    accept_peer(f);
    for (int i = 0; i < 100 && f->answers == 0; i++)
        loop_turn(f->loop, 20);
    assert_int_equal(f->answers, 1);
    assert_int_equal(f->rc, -ETIMEDOUT);
}

static void given_a_writer_that_dies_when_waiting_then_connection_reset(void **state)
{
    struct fixture *f = *state;

    start(f, 1000);
    accept_peer(f);
    reply(f, "{\"part\":1}");
    close(f->peer);
    f->peer = -1;
    turns(f);
    assert_int_equal(f->answers, 1);
    assert_int_equal(f->rc, -ECONNRESET);
}

static void given_no_writer_when_asked_then_refused_at_once(void **state)
{
    struct fixture *f = *state;
    struct ask *ask;

    unlink(f->path);
    assert_int_equal(ask_start(f->asker, REQUEST, strlen(REQUEST), 1000, on_answer, f, &ask),
                     -ENOENT);
    assert_null(ask);
    turns(f);
    assert_int_equal(f->answers, 0);
}

static void given_rubbish_when_answered_then_protocol_error(void **state)
{
    static const char *const rubbish[] = {"[1]", "{\"done\":1}", "{\"done\":", "{\"done\":true}x"};
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(rubbish) / sizeof(rubbish[0]); i++) {
        start(f, 1000);
        accept_peer(f);
        reply(f, rubbish[i]);
        turns(f);
        assert_int_equal(f->answers, (int)i + 1);
        assert_int_equal(f->rc, -EPROTO);
        close(f->peer);
    }
    f->peer = -1;
}

static void given_a_length_beyond_the_limit_when_read_then_protocol_error(void **state)
{
    struct fixture *f = *state;

    start(f, 1000);
    accept_peer(f);
    assert_int_equal(send(f->peer, "\x7f\xff\xff\xff", 4, 0), 4);
    turns(f);
    assert_int_equal(f->rc, -EPROTO);
}

/* Each part is small; what counts is all of them. */
static void given_endless_parts_when_read_then_the_limit_ends_them(void **state)
{
    struct fixture *f = *state;
    size_t len = FRAME_MAX / 8;
    char *text = malloc(len + 1);

    memset(text, ' ', len);
    memcpy(text, "{}", 2);
    text[len] = '\0';
    start(f, 1000);
    accept_peer(f);
    for (int i = 0; i < 9 && f->answers == 0; i++) {
        struct buf frame;

        buf_init(&frame, FRAME_MAX + 4);
        assert_int_equal(frame_put(&frame, text, len), 0);
        while (frame.len > 0 && f->answers == 0) {
            ssize_t n = send(f->peer, frame.data, frame.len, MSG_DONTWAIT | MSG_NOSIGNAL);

            if (n > 0)
                buf_drop(&frame, (size_t)n);
            turns(f);
        }
        buf_clear(&frame);
    }
    free(text);
    assert_int_equal(f->answers, 1);
    assert_int_equal(f->rc, -EPROTO);
}

static void given_a_large_request_when_the_socket_is_full_then_the_rest_follows(void **state)
{
    struct fixture *f = *state;
    size_t len = FRAME_MAX;
    char *text = malloc(len);
    struct buf got;
    struct ask *ask;

    memset(text, 'x', len);
    assert_int_equal(ask_start(f->asker, text, len, 5000, on_answer, f, &ask), 0);
    accept_peer(f);
    buf_init(&got, FRAME_MAX + 65536);
    while (got.len < len + 4) {
        char *room = buf_room(&got, 65536);
        ssize_t n = recv(f->peer, room, 65536, MSG_DONTWAIT);

        if (n > 0)
            buf_commit(&got, (size_t)n);
        else
            loop_turn(f->loop, 5);
    }
    assert_memory_equal(got.data + 4, text, len);
    buf_clear(&got);
    free(text);
    reply(f, "{\"done\":true}");
    turns(f);
    assert_int_equal(f->rc, 0);
    assert_int_equal(f->answers, 1);
}

static void given_an_open_ask_when_cancelled_then_no_callback(void **state)
{
    struct fixture *f = *state;
    struct ask *ask = start(f, 20);

    accept_peer(f);
    reply(f, "{\"done\":true}");
    ask_cancel(ask);
    ask_cancel(NULL);
    for (int i = 0; i < 3; i++)
        loop_turn(f->loop, 20);
    assert_int_equal(f->answers, 0);
}

static void given_the_cap_when_reached_then_busy_until_one_ends(void **state)
{
    struct fixture *f = *state;
    struct ask *asks[CONTROL_ASKS_MAX], *more;

    for (size_t i = 0; i < CONTROL_ASKS_MAX; i++)
        asks[i] = start(f, 1000);
    assert_int_equal(ask_start(f->asker, REQUEST, strlen(REQUEST), 1000, on_answer, f, &more),
                     -EBUSY);
    ask_cancel(asks[3]);
    assert_int_equal(ask_start(f->asker, REQUEST, strlen(REQUEST), 1000, on_answer, f, &more), 0);
}

static void given_an_answer_when_its_owner_asks_again_then_both_are_answered(void **state)
{
    struct fixture *f = *state;

    f->asks_again = true;
    start(f, 1000);
    accept_peer(f);
    reply(f, "{\"done\":true}");
    turns(f);
    assert_int_equal(f->answers, 1);
    close(f->peer);
    accept_peer(f);
    reply(f, "{\"done\":true}");
    turns(f);
    assert_int_equal(f->answers, 2);
}

static void given_a_path_that_does_not_fit_when_made_then_name_too_long(void **state)
{
    struct fixture *f = *state;
    char path[256];
    struct asker *a;

    memset(path, 'a', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    assert_int_equal(asker_new(f->loop, path, &a), -ENAMETOOLONG);
    assert_null(a);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(given_a_writer_when_asked_then_its_answer_comes_once),
        TEST(given_a_reply_when_it_comes_byte_by_byte_then_one_answer),
        TEST(given_several_frames_when_the_last_is_done_then_the_others_are_parts),
        TEST(given_a_refusal_when_read_then_its_code_is_told),
        TEST(given_a_silent_writer_when_the_deadline_passes_then_timeout),
        TEST(given_a_writer_that_dies_when_waiting_then_connection_reset),
        TEST(given_no_writer_when_asked_then_refused_at_once),
        TEST(given_rubbish_when_answered_then_protocol_error),
        TEST(given_a_length_beyond_the_limit_when_read_then_protocol_error),
        TEST(given_endless_parts_when_read_then_the_limit_ends_them),
        TEST(given_a_large_request_when_the_socket_is_full_then_the_rest_follows),
        TEST(given_an_open_ask_when_cancelled_then_no_callback),
        TEST(given_the_cap_when_reached_then_busy_until_one_ends),
        TEST(given_an_answer_when_its_owner_asks_again_then_both_are_answered),
        TEST(given_a_path_that_does_not_fit_when_made_then_name_too_long),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
