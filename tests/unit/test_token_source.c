/* A worker's access tokens: many callers, one request to the provider. */
#include "tests/unit/engine_kit.h"

#include "common/container.h"

#define CALLERS 50

struct caller {
    struct token_wait wait;
    struct engine_kit *g;
    unsigned calls;
    int rc;
    char token[64];
    struct caller *cancel_in_call, *ask_in_call;
};

static void ask_within(struct caller *c, int64_t timeout_ms);

static void on_token(struct token_wait *wait, int rc, const struct token *token,
                     const struct error *e)
{
    struct caller *c = container_of(wait, struct caller, wait);

    c->calls++;
    c->rc = rc;
    if (rc == 0)
        snprintf(c->token, sizeof(c->token), "%.60s", token->text);
    else
        assert_true(e->number == rc && e->message[0] != '\0');
    if (c->cancel_in_call != NULL)
        token_source_cancel(c->g->tokens, &c->cancel_in_call->wait);
    if (c->ask_in_call != NULL)
        ask_within(c->ask_in_call, 5000);
}

static void ask_within(struct caller *c, int64_t timeout_ms)
{
    c->wait.on_token = on_token;
    token_source_get(c->g->tokens, c->g->config, c->g->provider, c->g->ops, timeout_ms, &c->wait);
}

static void ask(struct engine_kit *g, struct caller *c)
{
    memset(c, 0, sizeof(*c));
    c->g = g;
    ask_within(c, 8000);
}

static void assert_has(const struct caller *c, const char *token)
{
    assert_int_equal(c->calls, 1);
    assert_int_equal(c->rc, 0);
    assert_string_equal(c->token, token);
}

static bool nobody_comes(struct engine_kit *g)
{
    int fd;

    turn(g->f, 5);
    return try_accept(g->f, &fd) == -1;
}

static void given_many_callers_when_none_has_a_token_then_one_fetch_serves_all(void **state)
{
    struct engine_kit *g = *state;
    struct caller callers[CALLERS];
    int fd;

    for (size_t i = 0; i < CALLERS; i++)
        ask(g, &callers[i]);
    fd = server_accept(g->f);
    serve_read(g, fd, "scope=" SCOPE);
    serve_token(fd, "first");
    TURN_UNTIL(g->f, callers[0].calls > 0);
    for (size_t i = 0; i < CALLERS; i++)
        assert_has(&callers[i], "first");
    assert_true(nobody_comes(g));
    assert_int_equal(value(&g->f->counters.token_refreshes_total), 1);
    close(fd);
}

static int fetched(struct engine_kit *g, const char *token)
{
    struct caller c;
    int fd;

    ask(g, &c);
    fd = server_accept(g->f);
    serve_read(g, fd, "/oauth");
    serve_token(fd, token);
    TURN_UNTIL(g->f, c.calls > 0);
    assert_has(&c, token);
    return fd;
}

static void given_a_token_when_asked_then_answered_at_once(void **state)
{
    struct engine_kit *g = *state;
    int fd = fetched(g, "first");
    struct caller c;

    ask(g, &c);
    assert_has(&c, "first");
    close(fd);
}

static void given_a_passing_failure_when_waiting_then_the_second_fetch_serves(void **state)
{
    struct engine_kit *g = *state;
    struct caller a, b;
    int fd;

    ask(g, &a);
    ask(g, &b);
    fd = server_accept(g->f);
    serve_read(g, fd, "/oauth");
    serve_json(fd, 500, "{}");
    serve_read(g, fd, "/oauth");
    assert_int_equal(a.calls + b.calls, 0);
    serve_token(fd, "second");
    TURN_UNTIL(g->f, a.calls > 0);
    assert_has(&a, "second");
    assert_has(&b, "second");
    assert_int_equal(value(&g->f->counters.token_refresh_failures_total), 1);
    close(fd);
}

static void given_failure_after_failure_when_waiting_then_all_are_told(void **state)
{
    struct engine_kit *g = *state;
    struct caller a, b;
    int fd;

    ask(g, &a);
    ask(g, &b);
    fd = server_accept(g->f);
    for (int i = 0; i < 3; i++) {
        serve_read(g, fd, "/oauth");
        assert_int_equal(a.calls + b.calls, 0);
        serve_json(fd, 503, "{}");
    }
    TURN_UNTIL(g->f, a.calls > 0 && b.calls > 0);
    assert_int_equal(a.rc, XR_EUPSTREAM);
    assert_int_equal(b.rc, XR_EUPSTREAM);
    close(fd);
}

static void given_a_provider_that_is_down_when_waiting_then_told_after_some_tries(void **state)
{
    struct engine_kit *g = *state;
    struct caller c;

    shutdown(g->f->listener, SHUT_RDWR); /* refuses from now on */
    ask(g, &c);
    TURN_UNTIL(g->f, c.calls > 0);
    assert_int_equal(c.rc, XR_EUPSTREAM);
    assert_true(value(&g->f->counters.token_refresh_failures_total) >= 3);
}

static void given_refused_credentials_when_asked_again_then_nobody_asks_the_provider(void **state)
{
    struct engine_kit *g = *state;
    struct caller a, b, late;
    int fd;

    ask(g, &a);
    ask(g, &b);
    fd = server_accept(g->f);
    serve_read(g, fd, "/oauth");
    serve_json(fd, 401, "{\"code\":6,\"message\":\"credentials doesn't match db data\"}");
    TURN_UNTIL(g->f, a.calls > 0);
    assert_int_equal(a.rc, XR_EUPSTREAMAUTH);
    assert_int_equal(b.calls, 1);
    assert_int_equal(b.rc, XR_EUPSTREAMAUTH);
    ask(g, &late);
    assert_int_equal(late.calls, 1);
    assert_int_equal(late.rc, XR_EUPSTREAMAUTH);
    assert_true(nobody_comes(g));
    close(fd);
}

static void given_a_token_that_is_too_long_when_fetched_then_it_is_a_failure(void **state)
{
    struct engine_kit *g = *state;
    char *body = calloc(1, TOKEN_TEXT_MAX + 100);
    struct caller c;
    int fd;

    strcpy(body, "{\"access_token\":\"");
    memset(body + strlen(body), 'x', TOKEN_TEXT_MAX);
    strcat(body, "\",\"expires_at\":4000000000000}");
    ask(g, &c);
    fd = server_accept(g->f);
    serve_read(g, fd, "/oauth");
    serve_json(fd, 200, body);
    TURN_UNTIL(g->f, value(&g->f->counters.token_refresh_failures_total) == 1);
    assert_int_equal(c.calls, 0);
    serve_read(g, fd, "/oauth"); /* it is tried again */
    token_source_cancel(g->tokens, &c.wait);
    free(body);
    close(fd);
}

static void given_a_caller_that_left_when_the_token_comes_then_only_the_others_hear(void **state)
{
    struct engine_kit *g = *state;
    struct caller a, b, c;
    int fd;

    ask(g, &a);
    ask(g, &b);
    ask(g, &c);
    token_source_cancel(g->tokens, &b.wait);
    token_source_cancel(g->tokens, &b.wait); /* twice is fine */
    fd = server_accept(g->f);
    serve_read(g, fd, "/oauth");
    serve_token(fd, "first");
    TURN_UNTIL(g->f, a.calls > 0);
    assert_has(&a, "first");
    assert_has(&c, "first");
    assert_int_equal(b.calls, 0);
    close(fd);
}

static void given_nobody_waits_any_more_when_the_token_comes_then_it_is_kept(void **state)
{
    struct engine_kit *g = *state;
    struct caller gone, late;
    int fd;

    ask(g, &gone);
    token_source_cancel(g->tokens, &gone.wait);
    fd = server_accept(g->f);
    serve_read(g, fd, "/oauth");
    serve_token(fd, "first");
    TURN_UNTIL(g->f, value(&g->f->counters.token_refreshes_total) == 1);
    ask(g, &late);
    assert_has(&late, "first");
    assert_int_equal(gone.calls, 0);
    close(fd);
}

static void given_a_silent_provider_when_the_time_is_over_then_a_timeout(void **state)
{
    struct engine_kit *g = *state;
    struct caller c = {.g = g};
    int fd;

    ask_within(&c, 50);
    fd = server_accept(g->f);
    TURN_UNTIL(g->f, c.calls > 0);
    assert_int_equal(c.rc, XR_ETIMEOUT);
    close(fd);
}

static void given_callbacks_that_cancel_and_ask_when_served_then_each_hears_once(void **state)
{
    struct engine_kit *g = *state;
    struct caller a, b, c, d = {.g = g};
    int fd;

    ask(g, &a);
    ask(g, &b);
    ask(g, &c);
    a.cancel_in_call = &b;
    b.cancel_in_call = &a;
    c.ask_in_call = &d;
    fd = server_accept(g->f);
    serve_read(g, fd, "/oauth");
    serve_token(fd, "first");
    TURN_UNTIL(g->f, c.calls > 0);
    assert_int_equal(a.calls + b.calls, 1);
    assert_has(&c, "first");
    assert_has(&d, "first");
    close(fd);
}

static void given_a_refused_token_when_asked_then_a_new_one_is_fetched_once(void **state)
{
    struct engine_kit *g = *state;
    int fd = fetched(g, "first");
    struct caller a, b;

    token_source_invalidate(g->tokens, g->config, g->provider, 1);
    token_source_invalidate(g->tokens, g->config, g->provider, 1); /* another request's 401 */
    ask(g, &a);
    serve_read(g, fd, "/oauth");
    serve_token(fd, "second");
    TURN_UNTIL(g->f, a.calls > 0);
    assert_has(&a, "second");
    token_source_invalidate(g->tokens, g->config, g->provider, 1); /* a late 401 of the old one */
    ask(g, &b);
    assert_has(&b, "second");
    assert_int_equal(value(&g->f->counters.token_refreshes_total), 2);
    close(fd);
}

static void given_another_worker_fetches_when_it_publishes_then_the_caller_hears(void **state)
{
    struct engine_kit *g = *state;
    const struct provider_config *p = g->provider;
    int index = token_lease_find(g->leases, p->auth_url, p->credentials, p->scope);
    int64_t now_ms = clock_monotonic_ms(), now_at_ms = clock_now_at_ms();
    struct token token;
    struct caller c;

    assert_int_equal(token_lease_get(g->leases, index, now_ms, now_at_ms, 20000, &token),
                     TOKEN_FETCH);
    ask(g, &c);
    assert_true(nobody_comes(g));
    assert_int_equal(c.calls, 0);
    token_lease_publish(g->leases, index, "theirs", now_at_ms + 1800000, now_ms, now_at_ms);
    TURN_UNTIL(g->f, c.calls > 0);
    assert_has(&c, "theirs");
    assert_true(nobody_comes(g));
}

static void given_a_worker_that_ends_while_it_fetches_then_another_need_not_wait(void **state)
{
    struct engine_kit *g = *state;
    struct caller c, other;
    int fd;

    ask(g, &c);
    fd = server_accept(g->f);
    serve_read(g, fd, "/oauth");
    token_source_free(g->tokens);
    g->tokens = token_source_new(g->f->loop, g->f->pool, g->leases, &g->f->counters);
    assert_int_equal(c.calls, 0);
    close(fd);
    ask(g, &other);
    fd = server_accept(g->f);
    serve_read(g, fd, "/oauth");
    serve_token(fd, "first");
    TURN_UNTIL(g->f, other.calls > 0);
    assert_has(&other, "first");
    close(fd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, engine_setup, engine_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(given_many_callers_when_none_has_a_token_then_one_fetch_serves_all),
        TEST(given_a_token_when_asked_then_answered_at_once),
        TEST(given_a_passing_failure_when_waiting_then_the_second_fetch_serves),
        TEST(given_failure_after_failure_when_waiting_then_all_are_told),
        TEST(given_a_provider_that_is_down_when_waiting_then_told_after_some_tries),
        TEST(given_refused_credentials_when_asked_again_then_nobody_asks_the_provider),
        TEST(given_a_token_that_is_too_long_when_fetched_then_it_is_a_failure),
        TEST(given_a_caller_that_left_when_the_token_comes_then_only_the_others_hear),
        TEST(given_nobody_waits_any_more_when_the_token_comes_then_it_is_kept),
        TEST(given_a_silent_provider_when_the_time_is_over_then_a_timeout),
        TEST(given_callbacks_that_cancel_and_ask_when_served_then_each_hears_once),
        TEST(given_a_refused_token_when_asked_then_a_new_one_is_fetched_once),
        TEST(given_another_worker_fetches_when_it_publishes_then_the_caller_hears),
        TEST(given_a_worker_that_ends_while_it_fetches_then_another_need_not_wait),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
