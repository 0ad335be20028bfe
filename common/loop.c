#include "common/loop.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/clock.h"

#define EVENTS_PER_TURN 256
#define TIMERS_FIRST 64

struct loop {
    int epfd;
    int64_t now_ms;
    struct epoll_event events[EVENTS_PER_TURN];
    int event_count; /* in hand; a dropped one has a NULL pointer */
    int event_next;
    bool in_timers;
    struct timer **heap; /* the earliest first */
    size_t timer_count;
    size_t timer_cap;
};

static void place(struct loop *loop, size_t at, struct timer *t)
{
    loop->heap[at] = t;
    t->index = at + 1;
}

static void sift_up(struct loop *loop, size_t at, struct timer *t)
{
    while (at > 0) {
        size_t parent = (at - 1) / 2;

        if (loop->heap[parent]->due_ms <= t->due_ms)
            break;
        place(loop, at, loop->heap[parent]);
        at = parent;
    }
    place(loop, at, t);
}

static void sift_down(struct loop *loop, size_t at, struct timer *t)
{
    for (;;) {
        size_t child = 2 * at + 1;

        if (child >= loop->timer_count)
            break;
        if (child + 1 < loop->timer_count &&
            loop->heap[child + 1]->due_ms < loop->heap[child]->due_ms)
            child++;
        if (t->due_ms <= loop->heap[child]->due_ms)
            break;
        place(loop, at, loop->heap[child]);
        at = child;
    }
    place(loop, at, t);
}

/* A timer whose time changed may belong above or below its place. */
static void settle(struct loop *loop, size_t at, struct timer *t)
{
    if (at > 0 && t->due_ms < loop->heap[(at - 1) / 2]->due_ms)
        sift_up(loop, at, t);
    else
        sift_down(loop, at, t);
}

static int grow_heap(struct loop *loop)
{
    size_t cap = loop->timer_cap == 0 ? TIMERS_FIRST : loop->timer_cap * 2;
    struct timer **heap = reallocarray(loop->heap, cap, sizeof(struct timer *));

    if (heap == NULL)
        return -ENOMEM;
    loop->heap = heap;
    loop->timer_cap = cap;
    return 0;
}

static int wait_ms(const struct loop *loop, int64_t max_wait_ms)
{
    int64_t wait = max_wait_ms < 0 ? INT_MAX : max_wait_ms;

    if (loop->timer_count > 0) {
        int64_t due = loop->heap[0]->due_ms - clock_monotonic_ms();

        if (due < wait)
            wait = due < 0 ? 0 : due;
    }
    if (wait >= INT_MAX)
        return max_wait_ms < 0 && loop->timer_count == 0 ? -1 : INT_MAX;
    return (int)wait;
}

static int run_events(struct loop *loop)
{
    int ran = 0;

    for (loop->event_next = 0; loop->event_next < loop->event_count;) {
        struct epoll_event *ev = &loop->events[loop->event_next++];
        struct event_source *src = ev->data.ptr;

        if (src == NULL)
            continue;
        src->on_event(src, ev->events);
        ran++;
    }
    loop->event_count = 0;
    return ran;
}

static int run_timers(struct loop *loop)
{
    int ran = 0;

    loop->in_timers = true;
    while (loop->timer_count > 0 && loop->heap[0]->due_ms <= loop->now_ms) {
        struct timer *t = loop->heap[0];

        loop_timer_cancel(loop, t);
        t->on_timer(t);
        ran++;
    }
    loop->in_timers = false;
    return ran;
}

struct loop *loop_new(void)
{
    struct loop *loop = calloc(1, sizeof(*loop));

    if (loop == NULL)
        return NULL;
    loop->epfd = epoll_create1(EPOLL_CLOEXEC);
    if (loop->epfd == -1) {
        free(loop);
        return NULL;
    }
    loop->now_ms = clock_monotonic_ms();
    return loop;
}

void loop_free(struct loop *loop)
{
    if (loop == NULL)
        return;
    close(loop->epfd);
    free(loop->heap);
    free(loop);
}

static int control(struct loop *loop, int op, int fd, uint32_t events, struct event_source *src)
{
    struct epoll_event ev = {.events = events, .data = {.ptr = src}};

    return epoll_ctl(loop->epfd, op, fd, &ev) == -1 ? -errno : 0;
}

int loop_add(struct loop *loop, int fd, uint32_t events, struct event_source *src)
{
    return control(loop, EPOLL_CTL_ADD, fd, events, src);
}

int loop_modify(struct loop *loop, int fd, uint32_t events, struct event_source *src)
{
    return control(loop, EPOLL_CTL_MOD, fd, events, src);
}

void loop_remove(struct loop *loop, int fd, struct event_source *src)
{
    /* Not watched is fine here: the caller wants it gone, and it is. */
    (void)control(loop, EPOLL_CTL_DEL, fd, 0, NULL);
    loop_forget(loop, src);
}

void loop_forget(struct loop *loop, struct event_source *src)
{
    for (int i = loop->event_next; i < loop->event_count; i++)
        if (loop->events[i].data.ptr == src)
            loop->events[i].data.ptr = NULL;
}

int loop_timer_set(struct loop *loop, struct timer *t, int64_t delay_ms)
{
    int64_t due_ms;

    if (delay_ms < 0)
        delay_ms = 0;
    /* A timer that sets itself again with no delay must not keep the turn from ending. */
    if (delay_ms == 0 && loop->in_timers)
        delay_ms = 1;
    if (__builtin_add_overflow(loop->now_ms, delay_ms, &due_ms))
        due_ms = INT64_MAX;
    if (t->index > 0) {
        assert(t->index <= loop->timer_count && loop->heap[t->index - 1] == t);
        t->due_ms = due_ms;
        settle(loop, t->index - 1, t);
        return 0;
    }
    if (loop->timer_count == loop->timer_cap) {
        int rc = grow_heap(loop);

        if (rc < 0)
            return rc;
    }
    t->due_ms = due_ms;
    sift_up(loop, loop->timer_count++, t);
    return 0;
}

void loop_timer_cancel(struct loop *loop, struct timer *t)
{
    size_t at = t->index;
    struct timer *last;

    if (at == 0)
        return;
    assert(at <= loop->timer_count && loop->heap[at - 1] == t);
    t->index = 0;
    last = loop->heap[--loop->timer_count];
    if (last != t)
        settle(loop, at - 1, last);
}

bool timer_is_set(const struct timer *t)
{
    return t->index > 0;
}

int64_t loop_now_ms(const struct loop *loop)
{
    return loop->now_ms;
}

int loop_turn(struct loop *loop, int64_t max_wait_ms)
{
    int n = epoll_wait(loop->epfd, loop->events, EVENTS_PER_TURN, wait_ms(loop, max_wait_ms));
    int ran;

    if (n == -1 && errno != EINTR)
        return -errno;
    loop->now_ms = clock_monotonic_ms();
    loop->event_count = n == -1 ? 0 : n;
    ran = run_events(loop);
    return ran + run_timers(loop);
}
