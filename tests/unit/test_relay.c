/* A stream on its way to the client. The HTTP request is one that nobody suspended: what the relay
 * tells it is seen in its fields. */
#include "tests/unit/engine_kit.h"
#include "tests/unit/meter_double.h"

#include "common/container.h"
#include "providers/chat_request.h"
#include "gateway/relay.h"

struct flow {
    struct engine_kit *g;
    struct http_request request;
    struct relay relay;
    unsigned starts;
    struct model_request parsed;
    char text[200];
    struct route route;
    struct meter_double meter;
    struct buf ignored;
    struct usage_event event;
    _Atomic uint32_t has_answer;
    unsigned ends;
};

static const struct answer_identity identity = {"chatcmpl-1", "one", 1700000000};

static void on_start(struct relay *r)
{
    container_of(r, struct flow, relay)->starts++;
}

static int relay_setup(void **state)
{
    struct flow *w = calloc(1, sizeof(*w));

    assert_non_null(w);
    assert_int_equal(engine_setup((void **)&w->g), 0);
    w->request.config = w->g->config; /* pings after 50 ms */
    relay_init(&w->relay, w->g->f->loop, &w->request, on_start);
    buf_init(&w->ignored, 512);
    meter_double_init(&w->meter);
    *state = w;
    return 0;
}

static int relay_teardown(void **state)
{
    struct flow *w = *state;

    relay_clear(&w->relay);
    buf_clear(&w->ignored);
    meter_double_clear(&w->meter);
    model_request_clear(&w->parsed);
    assert_int_equal(engine_teardown((void **)&w->g), 0);
    free(w);
    return 0;
}

static void put(struct flow *w, const char *text)
{
    buf_str(&w->relay.pending, text);
    relay_on_output(&w->relay);
}

static void assert_read(struct flow *w, const char *text)
{
    char got[4096];

    assert_int_equal(relay_read(&w->relay, got, sizeof(got)), strlen(text));
    assert_memory_equal(got, text, strlen(text));
}

static ssize_t read_some(struct flow *w)
{
    char got[4096];

    return relay_read(&w->relay, got, sizeof(got));
}

static void given_the_first_output_when_it_comes_then_the_response_starts_once(void **state)
{
    struct flow *w = *state;

    assert_false(w->request.streaming);
    put(w, "data: 1\n\n");
    put(w, "data: 2\n\n");
    assert_true(w->request.streaming);
    assert_int_equal(w->request.status, 200);
    assert_string_equal(w->request.content_type, "text/event-stream");
    assert_int_equal(w->starts, 1);
    assert_read(w, "data: 1\n\ndata: 2\n\n");
    assert_int_equal(read_some(w), 0);
}

static void given_a_whole_answer_when_read_then_a_tidy_end(void **state)
{
    struct flow *w = *state;

    put(w, "data: [DONE]\n\n");
    assert_true(relay_end(&w->relay, NULL));
    assert_read(w, "data: [DONE]\n\n");
    assert_int_equal(read_some(w), HTTP_STREAM_END);
    assert_int_equal(read_some(w), HTTP_STREAM_END);
}

static void given_nothing_sent_when_it_fails_then_the_status_is_still_free(void **state)
{
    struct flow *w = *state;
    struct error e = {0};

    error_set(&e, XR_EUPSTREAM, NULL, "broken");
    relay_watch(&w->relay);
    assert_false(relay_end(&w->relay, &e));
    assert_false(w->request.answered);
    assert_false(timer_is_set(&w->relay.ping));
    assert_int_equal(w->relay.pending.len, 0);
}

static void given_events_sent_when_it_fails_then_an_error_event_and_no_tidy_end(void **state)
{
    struct flow *w = *state;
    struct error e = {0};

    error_set(&e, XR_EUPSTREAM, NULL, "broken");
    put(w, "data: 1\n\n");
    assert_true(relay_end(&w->relay, &e));
    assert_read(w, "data: 1\n\n"
                   "data: {\"error\":{\"message\":\"broken\",\"type\":\"server_error\","
                   "\"param\":null,\"code\":\"upstream_failed\"}}\n\n");
    assert_int_equal(read_some(w), HTTP_STREAM_ABORT);
}

static void given_a_silent_provider_when_time_passes_then_pings(void **state)
{
    struct flow *w = *state;
    struct error e = {0};

    relay_watch(&w->relay);
    TURN_UNTIL(w->g->f, w->relay.started);
    assert_int_equal(w->starts, 1);
    assert_read(w, ": ping\n\n");
    TURN_UNTIL(w->g->f, w->relay.pending.len > 0);
    /* A client that does not read gets no heap of pings. */
    for (int64_t till_ms = clock_monotonic_ms() + 150; clock_monotonic_ms() < till_ms;)
        assert_true(loop_turn(w->g->f->loop, 10) >= 0);
    assert_read(w, ": ping\n\n");
    error_set(&e, XR_ETIMEOUT, NULL, "late");
    assert_true(relay_end(&w->relay, &e)); /* too late for a status */
    assert_true(w->relay.pending.len > 0);
    assert_false(timer_is_set(&w->relay.ping));
}

static void given_output_when_it_came_then_no_ping_between_events(void **state)
{
    struct flow *w = *state;

    relay_watch(&w->relay);
    put(w, "data: 1\n\n");
    assert_false(timer_is_set(&w->relay.ping));
}

static void given_a_ping_when_cleared_then_it_never_fires(void **state)
{
    struct flow *w = *state;

    relay_watch(&w->relay);
    relay_clear(&w->relay);
    assert_false(timer_is_set(&w->relay.ping));
}

/* Backpressure, with a real provider's connection behind it. */

static void on_output(void *arg)
{
    struct flow *w = arg;

    relay_on_output(&w->relay);
}

static void on_dispatch_end(void *arg, int rc, const struct error *e)
{
    struct flow *w = arg;

    struct dispatch *d = w->relay.dispatch;

    w->ends++;
    (void)relay_end(&w->relay, e);
    dispatch_free(d); /* last: e is its own */
}

static const struct dispatch_callbacks dispatch_callbacks = {.on_output = on_output,
                                                             .on_end = on_dispatch_end};

static int begin_stream(struct flow *w)
{
    static const struct key any_key = {.id = 1};
    struct dispatch_setup setup = {.config = w->g->config,
                                   .route = &w->route,
                                   .request = &w->parsed,
                                   .identity = &identity,
                                   .request_id = "req_1",
                                   .out = &w->relay.pending,
                                   .ignored = &w->ignored,
                                   .meter = &w->meter.meter,
                                   .event = &w->event,
                                   .has_answer = &w->has_answer,
                                   .callbacks = &dispatch_callbacks,
                                   .arg = w};
    struct error e = {0};
    int64_t retry_after_ms;
    int fd;

    strcpy(w->text, "{\"model\":\"one\",\"stream\":true,\"messages\":"
                    "[{\"role\":\"user\",\"content\":\"x\"}]}");
    assert_int_equal(chat_request_parse(w->text, strlen(w->text), &w->parsed, &e), 0);
    assert_int_equal(route_find(w->g->config, "one", &any_key, 0, &w->route, &e), 0);
    assert_int_equal(
        dispatch_start(&w->g->dispatcher, &setup, &w->relay.dispatch, &retry_after_ms, &e), 0);
    fd = server_accept(w->g->f);
    serve_read(w->g, fd, "/oauth");
    serve_token(fd, "first");
    serve_read(w->g, fd, "Bearer first");
    server_say(fd, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
    return fd;
}

/* As much of the text, over and over, as the socket takes; how many bytes. */
static size_t flood(int fd, const struct buf *text, size_t *at)
{
    ssize_t n = send(fd, text->data + *at, text->len - *at, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (n <= 0)
        return 0;
    *at = (*at + (size_t)n) % text->len;
    return (size_t)n;
}

static void given_a_client_that_does_not_read_when_flooded_then_memory_is_bounded(void **state)
{
    struct flow *w = *state;
    int fd = begin_stream(w);
    size_t idle_rounds = 0, resumes = 0, at = 0;
    struct buf text;

    buf_init(&text, 1 << 20);
    while (text.len < 200 * 1024)
        buf_str(&text,
                "data: {\"choices\":[{\"delta\":{\"content\":\"abcdefgh\"},\"index\":0}]}\n\n");
    while (idle_rounds < 50) { /* until the kernel's buffers are full, too */
        idle_rounds = flood(fd, &text, &at) > 0 ? 0 : idle_rounds + 1;
        turn(w->g->f, 1);
        assert_true(w->relay.pending.len < 4 * (size_t)RELAY_HIGH_WATER);
    }
    assert_true(w->relay.paused);
    assert_true(w->relay.pending.len >= RELAY_HIGH_WATER);
    for (size_t read = 0; read < 1 << 20;) { /* a client that reads gets all that is there */
        bool was_paused = w->relay.paused;
        ssize_t n = read_some(w);

        assert_true(n >= 0);
        read += (size_t)n;
        resumes += was_paused && !w->relay.paused;
        if (was_paused && !w->relay.paused)
            assert_true(w->relay.pending.len < RELAY_LOW_WATER);
        turn(w->g->f, 1);
    }
    assert_true(resumes > 1);
    assert_int_equal(w->ends, 0);
    buf_clear(&text);
    close(fd);
    while (w->ends == 0) {
        (void)read_some(w);
        turn(w->g->f, 1);
    }
    while (read_some(w) > 0)
        ;
    assert_int_equal(read_some(w), HTTP_STREAM_ABORT); /* the provider gave no end */
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, relay_setup, relay_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(given_the_first_output_when_it_comes_then_the_response_starts_once),
        TEST(given_a_whole_answer_when_read_then_a_tidy_end),
        TEST(given_nothing_sent_when_it_fails_then_the_status_is_still_free),
        TEST(given_events_sent_when_it_fails_then_an_error_event_and_no_tidy_end),
        TEST(given_a_silent_provider_when_time_passes_then_pings),
        TEST(given_output_when_it_came_then_no_ping_between_events),
        TEST(given_a_ping_when_cleared_then_it_never_fires),
        TEST(given_a_client_that_does_not_read_when_flooded_then_memory_is_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
