#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/loop.h"

#define TIMERS 200

struct probe {
    struct event_source source;
    struct timer timer;
    struct loop *loop;
    struct probe *victim; /* removed by this one's callback */
    int fd[2];
    int events;
    int fired;
    int order;
    int *clock; /* counts who came when */
    bool again; /* sets itself again with no delay */
};

static void on_probe_event(struct event_source *src, uint32_t events)
{
    struct probe *p = (struct probe *)src;

    p->events++;
    if (p->victim != NULL)
        loop_remove(p->loop, p->victim->fd[0], &p->victim->source);
}

static void on_probe_timer(struct timer *t)
{
    struct probe *p = (struct probe *)((char *)t - offsetof(struct probe, timer));

    p->fired++;
    if (p->clock != NULL)
        p->order = (*p->clock)++;
    if (p->again)
        assert_int_equal(loop_timer_set(p->loop, t, 0), 0);
}

static void probe_init(struct probe *p, struct loop *loop)
{
    *p = (struct probe){.source = {on_probe_event}, .timer = {.on_timer = on_probe_timer}};
    p->loop = loop;
    assert_int_equal(pipe(p->fd), 0);
}

static void probe_clear(struct probe *p)
{
    close(p->fd[0]);
    close(p->fd[1]);
}

static void given_readable_fd_when_turn_then_its_callback_runs(void **state)
{
    struct loop *loop = loop_new();
    struct probe p;

    probe_init(&p, loop);
    assert_int_equal(loop_add(loop, p.fd[0], EPOLLIN, &p.source), 0);
    assert_int_equal(loop_turn(loop, 0), 0);
    assert_int_equal(p.events, 0);
    assert_int_equal(write(p.fd[1], "x", 1), 1);
    assert_int_equal(loop_turn(loop, -1), 1);
    assert_int_equal(p.events, 1);
    probe_clear(&p);
    loop_free(loop);
}

static void given_two_ready_sources_when_one_removes_the_other_then_only_one_runs(void **state)
{
    struct loop *loop = loop_new();
    struct probe a, b;

    probe_init(&a, loop);
    probe_init(&b, loop);
    a.victim = &b;
    b.victim = &a;
    assert_int_equal(loop_add(loop, a.fd[0], EPOLLIN, &a.source), 0);
    assert_int_equal(loop_add(loop, b.fd[0], EPOLLIN, &b.source), 0);
    assert_int_equal(write(a.fd[1], "x", 1), 1);
    assert_int_equal(write(b.fd[1], "x", 1), 1);
    assert_int_equal(loop_turn(loop, 0), 1);
    assert_int_equal(a.events + b.events, 1);
    probe_clear(&a);
    probe_clear(&b);
    loop_free(loop);
}

static void given_removed_fd_when_turn_then_nothing_runs(void **state)
{
    struct loop *loop = loop_new();
    struct probe p;

    probe_init(&p, loop);
    assert_int_equal(loop_add(loop, p.fd[0], EPOLLIN, &p.source), 0);
    assert_int_equal(write(p.fd[1], "x", 1), 1);
    loop_remove(loop, p.fd[0], &p.source);
    assert_int_equal(loop_turn(loop, 0), 0);
    assert_int_equal(p.events, 0);
    probe_clear(&p);
    loop_free(loop);
}

static void given_closed_fd_when_added_then_error_is_returned(void **state)
{
    struct loop *loop = loop_new();
    struct probe p;

    probe_init(&p, loop);
    probe_clear(&p);
    assert_int_equal(loop_add(loop, p.fd[0], EPOLLIN, &p.source), -EBADF);
    loop_free(loop);
}

static void given_timer_when_due_then_fires_once(void **state)
{
    struct loop *loop = loop_new();
    struct probe p;
    int64_t begin_ms = clock_monotonic_ms();

    probe_init(&p, loop);
    assert_int_equal(loop_timer_set(loop, &p.timer, 20), 0);
    assert_true(timer_is_set(&p.timer));
    while (p.fired == 0)
        assert_true(loop_turn(loop, -1) >= 0);
    assert_true(clock_monotonic_ms() - begin_ms >= 20);
    assert_false(timer_is_set(&p.timer));
    assert_int_equal(loop_turn(loop, 0), 0);
    assert_int_equal(p.fired, 1);
    probe_clear(&p);
    loop_free(loop);
}

static void given_timer_when_cancelled_then_never_fires(void **state)
{
    struct loop *loop = loop_new();
    struct probe p;

    probe_init(&p, loop);
    loop_timer_cancel(loop, &p.timer);
    assert_int_equal(loop_timer_set(loop, &p.timer, 0), 0);
    loop_timer_cancel(loop, &p.timer);
    assert_int_equal(loop_turn(loop, 5), 0);
    assert_int_equal(p.fired, 0);
    probe_clear(&p);
    loop_free(loop);
}

static void given_set_timer_when_set_again_then_it_moves(void **state)
{
    struct loop *loop = loop_new();
    struct probe p;

    probe_init(&p, loop);
    assert_int_equal(loop_timer_set(loop, &p.timer, 60000), 0);
    assert_int_equal(loop_timer_set(loop, &p.timer, 0), 0);
    assert_int_equal(loop_turn(loop, -1), 1);
    assert_int_equal(p.fired, 1);
    assert_int_equal(loop_timer_set(loop, &p.timer, 0), 0);
    assert_int_equal(loop_timer_set(loop, &p.timer, 60000), 0);
    assert_int_equal(loop_turn(loop, 0), 0);
    loop_timer_cancel(loop, &p.timer);
    probe_clear(&p);
    loop_free(loop);
}

static void given_timer_that_rearms_itself_with_no_delay_when_turn_then_turn_ends(void **state)
{
    struct loop *loop = loop_new();
    struct probe p;

    probe_init(&p, loop);
    p.again = true;
    assert_int_equal(loop_timer_set(loop, &p.timer, 0), 0);
    assert_int_equal(loop_turn(loop, 0), 1);
    assert_int_equal(p.fired, 1);
    while (p.fired < 3)
        assert_true(loop_turn(loop, -1) >= 0);
    loop_timer_cancel(loop, &p.timer);
    probe_clear(&p);
    loop_free(loop);
}

static void given_many_timers_some_moved_and_cancelled_when_due_then_order_is_by_time(void **state)
{
    struct loop *loop = loop_new();
    struct probe *p = calloc(TIMERS, sizeof(*p));
    int came = 0, left = 0;

    srand(7);
    for (int i = 0; i < TIMERS; i++) {
        p[i].timer.on_timer = on_probe_timer;
        p[i].clock = &came;
        assert_int_equal(loop_timer_set(loop, &p[i].timer, rand() % 30), 0);
    }
    for (int i = 0; i < TIMERS; i += 3)
        assert_int_equal(loop_timer_set(loop, &p[i].timer, rand() % 30), 0);
    for (int i = 1; i < TIMERS; i += 5)
        loop_timer_cancel(loop, &p[i].timer);
    for (int i = 0; i < TIMERS; i++)
        left += timer_is_set(&p[i].timer);
    while (came < left)
        assert_true(loop_turn(loop, -1) >= 0);
    for (int i = 0; i < TIMERS; i++)
        for (int j = 0; j < TIMERS; j++)
            if (p[i].fired && p[j].fired && p[i].timer.due_ms < p[j].timer.due_ms)
                assert_true(p[i].order < p[j].order);
    for (int i = 1; i < TIMERS; i += 5)
        assert_int_equal(p[i].fired, 0);
    free(p);
    loop_free(loop);
}

static void given_far_timer_when_turn_has_shorter_wait_then_it_returns_in_time(void **state)
{
    struct loop *loop = loop_new();
    struct probe p;
    int64_t begin_ms = clock_monotonic_ms();

    probe_init(&p, loop);
    assert_int_equal(loop_timer_set(loop, &p.timer, INT64_MAX), 0);
    assert_int_equal(loop_turn(loop, 10), 0);
    assert_true(clock_monotonic_ms() - begin_ms < 5000);
    assert_true(loop_now_ms(loop) >= begin_ms + 10);
    loop_timer_cancel(loop, &p.timer);
    probe_clear(&p);
    loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_readable_fd_when_turn_then_its_callback_runs),
        cmocka_unit_test(given_two_ready_sources_when_one_removes_the_other_then_only_one_runs),
        cmocka_unit_test(given_removed_fd_when_turn_then_nothing_runs),
        cmocka_unit_test(given_closed_fd_when_added_then_error_is_returned),
        cmocka_unit_test(given_timer_when_due_then_fires_once),
        cmocka_unit_test(given_timer_when_cancelled_then_never_fires),
        cmocka_unit_test(given_set_timer_when_set_again_then_it_moves),
        cmocka_unit_test(given_timer_that_rearms_itself_with_no_delay_when_turn_then_turn_ends),
        cmocka_unit_test(given_many_timers_some_moved_and_cancelled_when_due_then_order_is_by_time),
        cmocka_unit_test(given_far_timer_when_turn_has_shorter_wait_then_it_returns_in_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
