/* One request to a provider, from the token to the last event, against a scripted provider. */
#include "providers/chat_request.h"
#include "tests/unit/engine_kit.h"
#include "tests/unit/meter_double.h"

#define PLAIN                                                                             \
    "{\"choices\":[{\"message\":{\"role\":\"assistant\",\"content\":\"Hi\"},\"index\":0," \
    "\"finish_reason\":\"stop\"}],\"created\":1,\"model\":\"One\",\"usage\":"             \
    "{\"prompt_tokens\":7,\"completion_tokens\":3,\"total_tokens\":10}}"
#define STREAM_HEAD \
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
#define TEXT_EVENT "data: {\"choices\":[{\"delta\":{\"content\":\"abcdefgh\"},\"index\":0}]}\n\n"
#define FINISH_EVENT                                                                              \
    "data: {\"choices\":[{\"delta\":{\"content\":\"\"},\"index\":0,\"finish_reason\":\"stop\"}]," \
    "\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3,\"total_tokens\":10}}\n\n"
#define DONE_EVENT "data: [DONE]\n\n"
#define LAST_CHUNK "0\r\n\r\n"

struct call {
    struct engine_kit *g;
    struct attempt *a;
    char text[400]; /* borrowed by request */
    struct model_request request;
    struct meter_double meter;
    struct buf out, ignored;
    struct usage_event event;
    struct queue_ticket ticket;
    _Atomic uint32_t has_answer;
    unsigned outputs, ends;
    bool complete_seen, pause_in_output, free_in_end;
    int rc;
    struct error e;
};

static const struct answer_identity identity = {"chatcmpl-1", "one", 1700000000};

static void on_output(void *arg)
{
    struct call *c = arg;

    c->outputs++;
    c->complete_seen |= attempt_is_complete(c->a);
    if (attempt_is_complete(c->a))
        assert_int_equal(c->event.attempt_count, 1); /* all numbers are there */
    if (c->pause_in_output)
        attempt_pause(c->a);
}

static void on_attempt_end(void *arg, int rc, const struct error *e)
{
    struct call *c = arg;

    c->ends++;
    c->rc = rc;
    assert_true((rc < 0) == (e != NULL));
    if (e != NULL)
        c->e = *e;
    if (c->free_in_end) {
        attempt_free(c->a);
        c->a = NULL;
    }
}

static const struct attempt_callbacks attempt_callbacks = {on_output, on_attempt_end};

static int try_begin(struct engine_kit *g, struct call *c, const char *fields)
{
    struct attempt_setup setup = {.config = g->config,
                                  .provider = g->provider,
                                  .candidate = &g->config->models[0].candidates[0],
                                  .request = &c->request,
                                  .identity = &identity,
                                  .request_id = "req_1",
                                  .out = &c->out,
                                  .ignored = &c->ignored,
                                  .meter = &c->meter.meter,
                                  .event = &c->event,
                                  .ticket = &c->ticket,
                                  .has_answer = &c->has_answer,
                                  .callbacks = &attempt_callbacks,
                                  .arg = c};

    memset(c, 0, sizeof(*c));
    c->g = g;
    buf_init(&c->out, 1 << 20);
    buf_init(&c->ignored, 512);
    snprintf(c->text, sizeof(c->text),
             "{\"model\":\"one\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]%s}", fields);
    assert_int_equal(chat_request_parse(c->text, strlen(c->text), &c->request, &c->e), 0);
    meter_double_init(&c->meter);
    return attempt_start(&g->attempt, &setup, &c->a, &c->e);
}

static void begin(struct engine_kit *g, struct call *c, const char *fields)
{
    assert_int_equal(try_begin(g, c, fields), 0);
    assert_non_null(c->a);
    assert_int_equal(c->outputs + c->ends, 0); /* never from inside */
}

static void end(struct call *c)
{
    attempt_free(c->a);
    model_request_clear(&c->request);
    buf_clear(&c->out);
    buf_clear(&c->ignored);
    meter_double_clear(&c->meter);
}

static uint64_t in_flight(struct engine_kit *g)
{
    return value(&counters_provider(g->region, 0, 0)->in_flight);
}

static bool out_has(struct call *c, const char *text)
{
    return c->out.len > 0 && strstr(buf_text(&c->out), text) != NULL;
}

static void say_chunk(int fd, const char *text)
{
    char size[32];

    snprintf(size, sizeof(size), "%zx\r\n", strlen(text));
    server_say(fd, size);
    server_say(fd, text);
    server_say(fd, "\r\n");
}

/* Begins, serves the token, and reads the request for it. */
static int begin_and_serve(struct engine_kit *g, struct call *c, const char *fields)
{
    int fd;

    begin(g, c, fields);
    fd = server_accept(g->f);
    serve_read(g, fd, "/oauth");
    serve_token(fd, "first");
    serve_read(g, fd, "Authorization: Bearer first\r\n");
    assert_int_equal(in_flight(g), 1);
    return fd;
}

static void given_a_plain_request_when_answered_then_whole_and_recorded(void **state)
{
    struct engine_kit *g = *state;
    struct call c;
    int fd = begin_and_serve(g, &c, "");
    bool final;

    serve_json(fd, 200, PLAIN);
    TURN_UNTIL(g->f, c.ends > 0);
    assert_int_equal(c.rc, 0);
    assert_int_equal(c.outputs, 0);
    assert_true(out_has(&c, "\"content\":\"Hi\""));
    assert_int_equal(attempt_usage(c.a, &final)->output, 3);
    assert_true(final);
    assert_int_equal(c.event.attempt_count, 1);
    assert_string_equal(c.event.attempts[0].provider, "giga");
    assert_string_equal(c.event.attempts[0].model, "One");
    assert_int_equal(c.event.attempts[0].http_status, 200);
    assert_int_equal(c.event.attempts[0].tokens_input, 7);
    assert_int_equal(c.event.attempts[0].error, 0);
    assert_int_equal(c.event.tokens_output, 3); /* what a reaper would bill */
    assert_string_equal(buf_text(&c.meter.text), "Hi");
    assert_int_equal(c.meter.counts, 0);
    assert_int_equal(c.has_answer, 1);
    assert_true(attempt_waited_us(c.a) > 0);
    end(&c);
    close(fd);
}

static void given_a_stream_when_whole_then_complete_with_its_last_bytes(void **state)
{
    struct engine_kit *g = *state;
    struct call c;
    int fd = begin_and_serve(g, &c, ",\"stream\":true");

    server_say(fd, STREAM_HEAD);
    say_chunk(fd, TEXT_EVENT);
    TURN_UNTIL(g->f, c.outputs == 1);
    assert_false(c.complete_seen);
    assert_int_equal(c.has_answer, 1);
    assert_string_equal(buf_text(&c.meter.text), "abcdefgh");
    assert_int_equal(c.event.tokens_output, 0); /* while it runs that is the meter's owner's */
    say_chunk(fd, FINISH_EVENT);
    say_chunk(fd, DONE_EVENT);
    server_say(fd, LAST_CHUNK);
    TURN_UNTIL(g->f, c.ends > 0);
    assert_int_equal(c.rc, 0);
    assert_true(c.complete_seen);
    assert_true(out_has(&c, "data: [DONE]\n\n"));
    assert_int_equal(value(&g->f->counters.upstream_connections_idle), 1);
    assert_int_equal(c.event.attempts[0].tokens_output, 3);
    assert_int_equal(c.event.tokens_output, 3);
    assert_string_equal(buf_text(&c.meter.text), "abcdefgh");
    assert_int_equal(c.meter.counts, 0);
    end(&c);
    close(fd);
}

static void given_done_when_the_provider_keeps_its_answer_open_then_it_ends_soon(void **state)
{
    struct engine_kit *g = *state;
    struct call c;
    int fd = begin_and_serve(g, &c, ",\"stream\":true");
    int64_t begun_ms = clock_monotonic_ms();

    server_say(fd, STREAM_HEAD);
    say_chunk(fd, TEXT_EVENT FINISH_EVENT DONE_EVENT TEXT_EVENT);
    TURN_UNTIL(g->f, c.ends > 0);
    assert_true(clock_monotonic_ms() - begun_ms < 1000);
    assert_int_equal(c.rc, 0);
    assert_int_equal(c.event.attempt_count, 1);
    TURN_UNTIL(g->f, is_closed(fd));
    end(&c);
    close(fd);
}

static void given_a_stream_when_cut_then_the_whole_events_and_an_error(void **state)
{
    struct engine_kit *g = *state;
    struct call c;
    int fd = begin_and_serve(g, &c, ",\"stream\":true");

    server_say(fd, STREAM_HEAD);
    say_chunk(fd, TEXT_EVENT);
    say_chunk(fd, "data: {\"choices\":[{\"del");
    TURN_UNTIL(g->f, c.outputs == 1);
    close(fd);
    TURN_UNTIL(g->f, c.ends > 0);
    assert_int_equal(c.rc, XR_EUPSTREAM);
    assert_true(c.e.message[0] != '\0');
    assert_true(out_has(&c, "abcdefgh"));
    assert_false(out_has(&c, "[DONE]"));
    assert_memory_equal(c.out.data + c.out.len - 2, "\n\n", 2);
    assert_int_equal(c.event.attempts[0].error, XR_EUPSTREAM);
    assert_int_equal(value(&g->f->counters.upstream_failures_total), 1);
    end(&c);
}

static void given_a_stream_when_cut_behind_its_finish_then_whole(void **state)
{
    struct engine_kit *g = *state;
    struct call c;
    int fd = begin_and_serve(g, &c, ",\"stream\":true");

    server_say(fd, STREAM_HEAD);
    say_chunk(fd, TEXT_EVENT FINISH_EVENT);
    close(fd);
    TURN_UNTIL(g->f, c.ends > 0);
    assert_int_equal(c.rc, 0);
    assert_true(out_has(&c, "data: [DONE]\n\n"));
    assert_int_equal(c.event.attempts[0].error, 0);
    end(&c);
}

static void given_a_stream_of_garbage_when_decoded_then_an_error_that_says_so(void **state)
{
    struct engine_kit *g = *state;
    struct call c;
    int fd = begin_and_serve(g, &c, ",\"stream\":true");

    server_say(fd, STREAM_HEAD);
    say_chunk(fd, TEXT_EVENT "data: {\n\ndata: {\n\n" TEXT_EVENT);
    TURN_UNTIL(g->f, c.ends > 0);
    assert_int_equal(c.rc, XR_EUPSTREAM);
    assert_non_null(strstr(c.e.message, "could not be understood"));
    TURN_UNTIL(g->f, is_closed(fd));
    end(&c);
    close(fd);
}

static void given_a_401_when_the_token_is_fresh_again_then_answered(void **state)
{
    struct engine_kit *g = *state;
    struct call c;
    int fd = begin_and_serve(g, &c, ",\"stream\":true,\"seed\":1");

    serve_json(fd, 401, "{\"status\":401,\"message\":\"Token has expired\"}");
    serve_read(g, fd, "/oauth");
    assert_int_equal(in_flight(g), 0);
    serve_token(fd, "second");
    serve_read(g, fd, "Authorization: Bearer second\r\n");
    assert_int_equal(in_flight(g), 1);
    server_say(fd, STREAM_HEAD);
    say_chunk(fd, TEXT_EVENT);
    TURN_UNTIL(g->f, c.outputs == 1);
    say_chunk(fd, FINISH_EVENT);
    server_say(fd, LAST_CHUNK);
    TURN_UNTIL(g->f, c.ends > 0);
    assert_int_equal(c.rc, 0);
    assert_true(out_has(&c, "[DONE]"));
    assert_string_equal(buf_text(&c.ignored), "seed"); /* not twice */
    assert_int_equal(c.event.attempt_count, 2);
    assert_int_equal(c.event.attempts[0].http_status, 401);
    assert_int_equal(c.event.attempts[0].error, XR_EUPSTREAMAUTH);
    assert_int_equal(c.event.attempts[1].http_status, 200);
    assert_int_equal(value(&g->f->counters.upstream_retries_total), 1);
    end(&c);
    close(fd);
}

static void given_a_second_401_when_refreshed_already_then_it_is_the_answer(void **state)
{
    struct engine_kit *g = *state;
    struct call c;
    int fd = begin_and_serve(g, &c, "");

    serve_json(fd, 401, "{}");
    serve_read(g, fd, "/oauth");
    serve_token(fd, "second");
    serve_read(g, fd, "Bearer second");
    serve_json(fd, 401, "{}");
    TURN_UNTIL(g->f, c.ends > 0);
    assert_int_equal(c.rc, XR_EUPSTREAMAUTH);
    assert_int_equal(c.event.attempt_count, 2);
    assert_int_equal(c.has_answer, 0);
    end(&c);
    close(fd);
}

static void given_a_401_when_no_new_token_comes_then_that_is_the_error(void **state)
{
    struct engine_kit *g = *state;
    struct call c;
    int fd = begin_and_serve(g, &c, "");

    c.free_in_end = true; /* from inside the token's callback */
    serve_json(fd, 401, "{}");
    serve_read(g, fd, "/oauth");
    serve_json(fd, 401, "{}");
    TURN_UNTIL(g->f, c.ends > 0);
    assert_int_equal(c.rc, XR_EUPSTREAMAUTH);
    assert_int_equal(c.event.attempt_count, 1);
    end(&c);
    close(fd);
}

static void given_failures_when_reported_then_mapped_and_the_body_is_bounded(void **state)
{
    struct engine_kit *g = *state;
    size_t len = 200 * 1024;
    char *large = malloc(len + 1);
    struct call c;
    int fd = begin_and_serve(g, &c, "");

    c.free_in_end = true;
    memset(large, 'x', len);
    large[len] = '\0';
    serve_json(fd, 500, large);
    TURN_UNTIL(g->f, c.ends > 0);
    assert_int_equal(c.rc, XR_EUPSTREAM);
    assert_int_equal(c.has_answer, 0);
    assert_int_equal(value(&counters_provider(g->region, 0, 0)->failures_total), 1);
    free(large);
    end(&c);
    close(fd);
}

static void given_json_for_a_stream_when_it_ends_then_an_error(void **state)
{
    struct engine_kit *g = *state;
    struct call c;
    int fd = begin_and_serve(g, &c, ",\"stream\":true");

    serve_json(fd, 200, PLAIN);
    TURN_UNTIL(g->f, c.ends > 0);
    assert_int_equal(c.rc, XR_EUPSTREAM);
    assert_int_equal(c.outputs, 0);
    end(&c);
    close(fd);
}

static void given_no_memory_for_output_when_decoding_then_no_half_event(void **state)
{
    struct engine_kit *g = *state;
    struct call c;
    int fd = begin_and_serve(g, &c, ",\"stream\":true");
    size_t room;

    server_say(fd, STREAM_HEAD);
    say_chunk(fd, TEXT_EVENT);
    TURN_UNTIL(g->f, c.outputs == 1);
    room = c.out.len + 100;
    c.out.max = room; /* as if memory had ended: part of the next event fits */
    say_chunk(fd, TEXT_EVENT FINISH_EVENT);
    TURN_UNTIL(g->f, c.ends > 0);
    assert_int_equal(c.rc, XR_EINTERNAL);
    assert_int_equal(c.out.len, room - 100);
    assert_memory_equal(c.out.data + c.out.len - 2, "\n\n", 2);
    assert_int_equal(c.out.err, 0); /* there is room for an error event */
    end(&c);
    close(fd);
}

static void given_a_parameter_the_provider_lacks_when_started_then_refused(void **state)
{
    struct engine_kit *g = *state;
    struct call first, c;
    int fd;

    begin(g, &first, ",\"n\":2"); /* no token yet: it is found out later */
    fd = server_accept(g->f);
    serve_read(g, fd, "/oauth");
    serve_token(fd, "first");
    TURN_UNTIL(g->f, first.ends > 0);
    assert_int_equal(first.rc, XR_EUNSUPPORTED);
    assert_string_equal(first.e.param, "n");
    assert_int_equal(first.event.attempt_count, 0);
    end(&first);
    assert_int_equal(try_begin(g, &c, ",\"n\":2"), XR_EUNSUPPORTED); /* now at once */
    assert_string_equal(c.e.param, "n");
    assert_null(c.a);
    turn(g->f, 3);
    assert_int_equal(c.ends, 0);
    end(&c);
    close(fd);
}

static void given_a_dead_kept_alive_connection_when_used_then_both_tries_are_listed(void **state)
{
    struct engine_kit *g = *state;
    struct call c;
    int fd = begin_and_serve(g, &c, "");

    serve_json(fd, 200, PLAIN);
    TURN_UNTIL(g->f, c.ends > 0);
    end(&c);
    close(fd); /* the loop has no turn to see it */
    begin(g, &c, "");
    fd = server_accept(g->f);
    serve_read(g, fd, "Bearer first");
    serve_json(fd, 200, PLAIN);
    TURN_UNTIL(g->f, c.ends > 0);
    assert_int_equal(c.rc, 0);
    assert_int_equal(c.event.attempt_count, 2);
    assert_int_equal(c.event.attempts[0].error, XR_EUPSTREAM);
    assert_int_equal(c.event.attempts[1].http_status, 200);
    assert_int_equal(value(&counters_provider(g->region, 0, 0)->requests_total), 2);
    end(&c);
    close(fd);
}

static void given_a_slow_client_when_paused_then_nothing_comes_until_resumed(void **state)
{
    struct engine_kit *g = *state;
    struct call c;
    int fd = begin_and_serve(g, &c, ",\"stream\":true");

    c.pause_in_output = true;
    server_say(fd, STREAM_HEAD);
    say_chunk(fd, TEXT_EVENT);
    TURN_UNTIL(g->f, c.outputs == 1);
    say_chunk(fd, FINISH_EVENT DONE_EVENT);
    server_say(fd, LAST_CHUNK);
    turn(g->f, 20);
    assert_int_equal(c.outputs, 1);
    attempt_resume(c.a);
    TURN_UNTIL(g->f, c.ends > 0); /* though paused again by its last output */
    assert_int_equal(c.rc, 0);
    attempt_pause(c.a); /* nothing is there any more: harmless */
    attempt_resume(c.a);
    end(&c);
    close(fd);
}

/* Cancelled in each state: the provider's connection is closed, nobody hears, gauges are even. */

static void cancel(struct engine_kit *g, struct call *c)
{
    unsigned heard = c->outputs + c->ends;

    attempt_free(c->a);
    c->a = NULL;
    assert_int_equal(in_flight(g), 0);
    turn(g->f, 5);
    assert_int_equal(c->outputs + c->ends, heard);
    assert_int_equal(value(&g->f->counters.upstream_failures_total), 0);
    assert_int_equal(value(&counters_provider(g->region, 0, 0)->failures_total), 0);
}

static void given_a_wait_for_the_token_when_cancelled_then_the_token_still_comes(void **state)
{
    struct engine_kit *g = *state;
    struct call c;
    int fd;

    begin(g, &c, "");
    cancel(g, &c);
    assert_int_equal(c.event.attempt_count, 0);
    fd = server_accept(g->f);
    serve_read(g, fd, "/oauth");
    serve_token(fd, "first");
    TURN_UNTIL(g->f, value(&g->f->counters.token_refreshes_total) == 1);
    assert_int_equal(value(&counters_provider(g->region, 0, 0)->requests_total), 0);
    end(&c);
    close(fd);
}

static void given_a_silent_provider_when_cancelled_then_closed(void **state)
{
    struct engine_kit *g = *state;
    struct call c;
    int fd = begin_and_serve(g, &c, "");

    cancel(g, &c);
    TURN_UNTIL(g->f, is_closed(fd));
    assert_int_equal(c.event.attempt_count, 1);
    assert_int_equal(c.event.attempts[0].error, 0);
    assert_int_equal(c.event.attempts[0].http_status, 0);
    end(&c);
    close(fd);
}

static void given_a_head_when_cancelled_then_closed(void **state)
{
    struct engine_kit *g = *state;
    struct call c;
    int fd = begin_and_serve(g, &c, ",\"stream\":true");

    server_say(fd, STREAM_HEAD);
    turn(g->f, 20);
    cancel(g, &c);
    TURN_UNTIL(g->f, is_closed(fd));
    end(&c);
    close(fd);
}

static void given_half_a_stream_when_cancelled_then_closed_and_counted(void **state)
{
    struct engine_kit *g = *state;
    struct call c;
    int fd = begin_and_serve(g, &c, ",\"stream\":true");

    server_say(fd, STREAM_HEAD);
    say_chunk(fd, TEXT_EVENT);
    TURN_UNTIL(g->f, c.outputs == 1);
    cancel(g, &c);
    TURN_UNTIL(g->f, is_closed(fd));
    assert_int_equal(c.event.attempts[0].http_status, 200);
    assert_string_equal(buf_text(&c.meter.text), "abcdefgh");
    end(&c);
    close(fd);
}

static void given_a_paused_stream_when_cancelled_then_closed(void **state)
{
    struct engine_kit *g = *state;
    struct call c;
    int fd = begin_and_serve(g, &c, ",\"stream\":true");

    c.pause_in_output = true;
    server_say(fd, STREAM_HEAD);
    say_chunk(fd, TEXT_EVENT);
    TURN_UNTIL(g->f, c.outputs == 1);
    cancel(g, &c);
    server_say(fd, DONE_EVENT);
    turn(g->f, 5);
    end(&c);
    close(fd);
}

static void given_the_tail_of_a_stream_when_cancelled_then_closed(void **state)
{
    struct engine_kit *g = *state;
    struct call c;
    int fd = begin_and_serve(g, &c, ",\"stream\":true");

    server_say(fd, STREAM_HEAD);
    say_chunk(fd, TEXT_EVENT FINISH_EVENT DONE_EVENT);
    TURN_UNTIL(g->f, c.complete_seen);
    assert_int_equal(c.ends, 0);
    cancel(g, &c);
    TURN_UNTIL(g->f, is_closed(fd));
    assert_int_equal(c.event.attempt_count, 1); /* as it was when complete: nothing changes later */
    assert_int_equal(c.event.attempts[0].tokens_output, 3);
    end(&c);
    close(fd);
}

static void given_an_ended_attempt_when_freed_then_the_connection_is_kept(void **state)
{
    struct engine_kit *g = *state;
    struct call c;
    int fd = begin_and_serve(g, &c, "");

    c.free_in_end = true;
    serve_json(fd, 200, PLAIN);
    TURN_UNTIL(g->f, c.ends > 0);
    assert_int_equal(value(&g->f->counters.upstream_connections_idle), 1);
    assert_int_equal(in_flight(g), 0);
    end(&c);
    close(fd);
}

static void given_a_provider_that_is_down_when_asked_then_an_error_and_a_line(void **state)
{
    struct engine_kit *g = *state;
    struct call c;
    int fd = begin_and_serve(g, &c, "");

    serve_json(fd, 200, PLAIN);
    TURN_UNTIL(g->f, c.ends > 0);
    end(&c);
    shutdown(g->f->listener, SHUT_RDWR);
    close(fd);
    begin(g, &c, "");
    TURN_UNTIL(g->f, c.ends > 0);
    assert_int_equal(c.rc, XR_EUPSTREAM);
    assert_true(c.event.attempt_count > 0);
    end(&c);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, engine_setup, engine_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(given_a_plain_request_when_answered_then_whole_and_recorded),
        TEST(given_a_stream_when_whole_then_complete_with_its_last_bytes),
        TEST(given_done_when_the_provider_keeps_its_answer_open_then_it_ends_soon),
        TEST(given_a_stream_when_cut_then_the_whole_events_and_an_error),
        TEST(given_a_stream_when_cut_behind_its_finish_then_whole),
        TEST(given_a_stream_of_garbage_when_decoded_then_an_error_that_says_so),
        TEST(given_a_401_when_the_token_is_fresh_again_then_answered),
        TEST(given_a_second_401_when_refreshed_already_then_it_is_the_answer),
        TEST(given_a_401_when_no_new_token_comes_then_that_is_the_error),
        TEST(given_failures_when_reported_then_mapped_and_the_body_is_bounded),
        TEST(given_json_for_a_stream_when_it_ends_then_an_error),
        TEST(given_no_memory_for_output_when_decoding_then_no_half_event),
        TEST(given_a_parameter_the_provider_lacks_when_started_then_refused),
        TEST(given_a_dead_kept_alive_connection_when_used_then_both_tries_are_listed),
        TEST(given_a_slow_client_when_paused_then_nothing_comes_until_resumed),
        TEST(given_a_wait_for_the_token_when_cancelled_then_the_token_still_comes),
        TEST(given_a_silent_provider_when_cancelled_then_closed),
        TEST(given_a_head_when_cancelled_then_closed),
        TEST(given_half_a_stream_when_cancelled_then_closed_and_counted),
        TEST(given_a_paused_stream_when_cancelled_then_closed),
        TEST(given_the_tail_of_a_stream_when_cancelled_then_closed),
        TEST(given_an_ended_attempt_when_freed_then_the_connection_is_kept),
        TEST(given_a_provider_that_is_down_when_asked_then_an_error_and_a_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
