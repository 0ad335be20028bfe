/* Candidates tried in turn, against a provider played by the test. */
#include "providers/chat_request.h"
#include "tests/unit/engine_kit.h"
#include "tests/unit/meter_double.h"

#define PLAIN                                                                             \
    "{\"choices\":[{\"message\":{\"role\":\"assistant\",\"content\":\"Hi\"},\"index\":0," \
    "\"finish_reason\":\"stop\"}],\"created\":1,\"model\":\"One\",\"usage\":"             \
    "{\"prompt_tokens\":7,\"completion_tokens\":3,\"total_tokens\":10}}"
/* Usage, and an end that is none. */
#define FAILED_PLAIN                                                                        \
    "{\"choices\":[{\"message\":{\"role\":\"assistant\",\"content\":\"Hi\"},\"index\":0,"   \
    "\"finish_reason\":\"error\"}],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3," \
    "\"total_tokens\":10}}"
#define STREAM_HEAD "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
#define TEXT_EVENT "data: {\"choices\":[{\"delta\":{\"content\":\"abcdefgh\"},\"index\":0}]}\n\n"
#define SORRY "{\"status\":500,\"message\":\"sorry\"}"

struct call {
    struct engine_kit *g;
    struct dispatch *d;
    char text[200];
    struct model_request request;
    struct route route;
    struct meter_double meter;
    struct buf out, ignored;
    struct usage_event event;
    _Atomic uint32_t has_answer;
    unsigned outputs, ends;
    int rc;
    struct error e;
    int64_t retry_after_ms;
};

static const struct answer_identity identity = {"chatcmpl-1", "one", 1700000000};

static void on_output(void *arg)
{
    ((struct call *)arg)->outputs++;
}

static void on_dispatch_end(void *arg, int rc, const struct error *e)
{
    struct call *c = arg;

    c->ends++;
    c->rc = rc;
    assert_true((rc < 0) == (e != NULL));
    if (e != NULL)
        c->e = *e;
    c->retry_after_ms = dispatch_retry_after_ms(c->d);
}

static const struct dispatch_callbacks dispatch_callbacks = {.on_output = on_output,
                                                             .on_end = on_dispatch_end};

static int try_begin(struct engine_kit *g, struct call *c, const char *model, const char *fields,
                     int64_t deadline_ms)
{
    static const struct key any_key = {.id = 1};
    struct dispatch_setup setup = {.config = g->config,
                                   .route = &c->route,
                                   .request = &c->request,
                                   .identity = &identity,
                                   .request_id = "req_1",
                                   .key_id = 1,
                                   .out = &c->out,
                                   .ignored = &c->ignored,
                                   .meter = &c->meter.meter,
                                   .event = &c->event,
                                   .has_answer = &c->has_answer,
                                   .callbacks = &dispatch_callbacks,
                                   .arg = c};

    memset(c, 0, sizeof(*c));
    c->g = g;
    buf_init(&c->out, 1 << 20);
    buf_init(&c->ignored, 512);
    meter_double_init(&c->meter);
    snprintf(c->text, sizeof(c->text),
             "{\"model\":\"%s\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]%s}", model,
             fields);
    assert_int_equal(chat_request_parse(c->text, strlen(c->text), &c->request, &c->e), 0);
    assert_int_equal(route_find(g->config, model, &any_key, 0, &c->route, &c->e), 0);
    turn(g->f, 1); /* the loop's clock */
    setup.deadline_ms = deadline_ms == 0 ? 0 : loop_now_ms(g->f->loop) + deadline_ms;
    return dispatch_start(&g->dispatcher, &setup, &c->d, &c->retry_after_ms, &c->e);
}

/* Begins, serves the token, and reads the first request. */
static int begin_and_serve(struct engine_kit *g, struct call *c, const char *model,
                           const char *fields)
{
    int fd;

    assert_int_equal(try_begin(g, c, model, fields, 0), 0);
    fd = server_accept(g->f);
    serve_read(g, fd, "/oauth");
    serve_token(fd, "first");
    serve_read(g, fd, "\"One\"");
    return fd;
}

static void end(struct call *c)
{
    dispatch_free(c->d);
    model_request_clear(&c->request);
    buf_clear(&c->out);
    buf_clear(&c->ignored);
    meter_double_clear(&c->meter);
}

static uint32_t slots_taken(struct engine_kit *g)
{
    uint32_t taken, waiting;

    queue_look(g->queue, 0, &taken, &waiting);
    return taken;
}

static struct target *target(struct engine_kit *g, const char *model)
{
    return target_at(g->targets, (size_t)targets_find(g->targets, "giga", model));
}

static void given_a_failure_when_there_is_another_candidate_then_it_answers(void **state)
{
    struct engine_kit *g = *state;
    const struct route_candidate *candidate;
    unsigned attempts;
    struct call c;
    int fd = begin_and_serve(g, &c, "two", "");
    bool final;

    assert_int_equal(slots_taken(g), 1);
    serve_json(fd, 500, SORRY);
    serve_read(g, fd, "\"Two\"");
    assert_int_equal(slots_taken(g), 1);
    serve_json(fd, 200, PLAIN);
    TURN_UNTIL(g->f, c.ends > 0);
    assert_int_equal(c.rc, 0);
    assert_int_equal(slots_taken(g), 0);
    assert_non_null(strstr(buf_text(&c.out), "\"content\":\"Hi\""));
    candidate = dispatch_candidate(c.d, &attempts);
    assert_string_equal(candidate->config->model, "Two");
    assert_int_equal(attempts, 2);
    assert_int_equal(c.event.attempt_count, 2);
    assert_int_equal(c.event.attempts[0].error, XR_EUPSTREAM);
    assert_int_equal(c.event.attempts[1].error, 0);
    assert_int_equal(dispatch_usage(c.d, &final)->output, 3);
    assert_true(final);
    end(&c);
    close(fd);
}

static void given_a_failure_with_usage_when_the_client_leaves_then_nothing_is_left(void **state)
{
    struct engine_kit *g = *state;
    struct call c;
    int fd = begin_and_serve(g, &c, "one", "");
    bool final;

    serve_json(fd, 200, FAILED_PLAIN);
    TURN_UNTIL(g->f, c.event.attempt_count == 1);
    /* It waits to try again. */
    assert_int_equal(c.ends, 0);
    assert_int_equal(c.has_answer, 0);
    assert_int_equal(c.out.len, 0);
    assert_int_equal(dispatch_usage(c.d, &final)->input, -1);
    assert_false(final);
    assert_int_equal(slots_taken(g), 0);
    end(&c);
    close(fd);
}

static void given_no_budget_when_the_only_candidate_fails_then_it_is_not_repeated(void **state)
{
    struct engine_kit *g = *state;
    struct call c;
    int fd;

    g->dispatcher.budget = 0;
    fd = begin_and_serve(g, &c, "one", "");
    serve_json(fd, 500, SORRY);
    TURN_UNTIL(g->f, c.ends > 0);
    assert_int_equal(c.rc, XR_EUPSTREAM);
    assert_int_equal(c.event.attempt_count, 1);
    end(&c);
    close(fd);
}

static void given_a_budget_when_the_only_candidate_fails_then_it_is_repeated(void **state)
{
    struct engine_kit *g = *state;
    struct call c;
    int fd = begin_and_serve(g, &c, "one", "");

    serve_json(fd, 500, SORRY);
    serve_read(g, fd, "\"One\"");
    assert_true(g->dispatcher.budget < DISPATCH_BUDGET_MAX);
    serve_json(fd, 200, PLAIN);
    TURN_UNTIL(g->f, c.ends > 0);
    assert_int_equal(c.rc, 0);
    end(&c);
    close(fd);
}

static void given_a_broken_stream_when_output_has_gone_then_no_other_is_tried(void **state)
{
    struct engine_kit *g = *state;
    struct call c;
    int fd = begin_and_serve(g, &c, "two", ",\"stream\":true");

    server_say(fd, STREAM_HEAD TEXT_EVENT);
    TURN_UNTIL(g->f, c.outputs == 1);
    close(fd);
    TURN_UNTIL(g->f, c.ends > 0);
    assert_int_equal(c.rc, XR_EUPSTREAM);
    assert_int_equal(c.event.attempt_count, 1);
    assert_int_equal(c.has_answer, 1); /* what came is billed */
    end(&c);
}

static void given_a_providers_retry_after_when_asked_again_then_left_alone(void **state)
{
    struct engine_kit *g = *state;
    struct call c, late;
    int fd = begin_and_serve(g, &c, "one", "");

    server_say(fd, "HTTP/1.1 429 X\r\nRetry-After: 7\r\nContent-Type: application/json\r\n"
                   "Content-Length: 2\r\n\r\n{}");
    TURN_UNTIL(g->f, c.ends > 0);
    assert_int_equal(c.rc, XR_EBUSY);
    assert_int_equal(c.retry_after_ms, 7000);
    assert_int_equal(try_begin(g, &late, "one", "", 0), XR_EBUSY);
    assert_null(late.d);
    assert_in_range(late.retry_after_ms, 1, 7000);
    end(&late);
    end(&c);
    close(fd);
}

static void given_a_probe_under_way_when_asked_then_refused_with_a_reason(void **state)
{
    struct engine_kit *g = *state;
    struct breaker *b = &target(g, "One")->breaker;
    struct call c;
    int64_t now_ms;

    turn(g->f, 1);
    now_ms = loop_now_ms(g->f->loop);
    for (uint32_t i = 0; i < g->config->breaker_failures; i++)
        (void)breaker_note(b, g->config, true, now_ms - g->config->breaker_open_ms - 1);
    assert_true(breaker_allows(b, g->config, now_ms)); /* another worker's */
    assert_int_equal(try_begin(g, &c, "one", "", 0), XR_ENOPROVIDER);
    assert_true(c.retry_after_ms > 0);
    assert_int_equal(slots_taken(g), 0);
    end(&c);
}

static void given_a_deadline_when_it_passes_then_the_slot_is_free(void **state)
{
    struct engine_kit *g = *state;
    struct call c;

    assert_int_equal(try_begin(g, &c, "one", "", 30), 0);
    assert_int_equal(slots_taken(g), 1);
    TURN_UNTIL(g->f, c.ends > 0);
    assert_int_equal(c.rc, XR_ETIMEOUT);
    assert_int_equal(slots_taken(g), 0);
    end(&c);
}

static void given_a_switched_off_provider_when_asked_then_refused(void **state)
{
    struct engine_kit *g = *state;
    struct call c;

    targets_set_switch(g->targets, 0, PROVIDER_DISABLED);
    assert_int_equal(try_begin(g, &c, "two", "", 0), XR_ENOPROVIDER);
    assert_int_equal(c.event.attempt_count, 0);
    end(&c);
}

static void given_one_slot_when_it_is_taken_then_the_next_waits_for_it(void **state)
{
    struct engine_kit *g = *state;
    struct call first, second;
    int fd = begin_and_serve(g, &first, "one", "");

    assert_int_equal(try_begin(g, &second, "one", "", 0), 0);
    turn(g->f, 5);
    assert_int_equal(slots_taken(g), 1); /* max_concurrent is 1 */
    assert_int_equal(second.event.attempt_count + second.ends, 0);
    serve_json(fd, 200, PLAIN);
    TURN_UNTIL(g->f, first.ends > 0);
    serve_read(g, fd, "\"One\"");
    serve_json(fd, 200, PLAIN);
    TURN_UNTIL(g->f, second.ends > 0);
    assert_int_equal(second.rc, 0);
    assert_true(dispatch_queued_us(second.d) > 0);
    end(&first);
    end(&second);
    close(fd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, engine_setup, engine_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(given_a_failure_when_there_is_another_candidate_then_it_answers),
        TEST(given_a_failure_with_usage_when_the_client_leaves_then_nothing_is_left),
        TEST(given_no_budget_when_the_only_candidate_fails_then_it_is_not_repeated),
        TEST(given_a_budget_when_the_only_candidate_fails_then_it_is_repeated),
        TEST(given_a_broken_stream_when_output_has_gone_then_no_other_is_tried),
        TEST(given_a_providers_retry_after_when_asked_again_then_left_alone),
        TEST(given_a_probe_under_way_when_asked_then_refused_with_a_reason),
        TEST(given_a_deadline_when_it_passes_then_the_slot_is_free),
        TEST(given_a_switched_off_provider_when_asked_then_refused),
        TEST(given_one_slot_when_it_is_taken_then_the_next_waits_for_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
