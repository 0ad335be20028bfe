/* loop.h - one thread, one epoll, timers. Everything a process waits for is an event source.
 *
 * A turn: wait, run the callbacks of the ready descriptors, run the due timers. loop_now_ms() is
 * read once a turn, so every timer agrees on the time. A source may be removed and its memory freed
 * from any callback: events still in hand for it are dropped. */
#ifndef XROUTER_COMMON_LOOP_H
#define XROUTER_COMMON_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

struct loop; /* opaque */

struct event_source {
    /* events are EPOLL... bits. Called from loop_turn() only. */
    void (*on_event)(struct event_source *src, uint32_t events);
};

struct timer {
    void (*on_timer)(struct timer *t);
    int64_t due_ms; /* private */
    size_t index;   /* private: place in the heap + 1, 0 = not set */
};

struct loop *loop_new(void);       /* NULL: see errno */
void loop_free(struct loop *loop); /* NULL is fine; sources and timers are the caller's */

/* Watches fd for events (EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLET, EPOLLEXCLUSIVE...). src is
 * borrowed until loop_remove(). Returns 0 or -errno. */
int loop_add(struct loop *loop, int fd, uint32_t events, struct event_source *src);
int loop_modify(struct loop *loop, int fd, uint32_t events, struct event_source *src);
/* Must be called before fd is closed. */
void loop_remove(struct loop *loop, int fd, struct event_source *src);
/* Forgets events in hand for src, for an fd that somebody else (a library) has closed already. */
void loop_forget(struct loop *loop, struct event_source *src);

/* A timer is embedded and zero-initialised with its callback. It fires once. Setting a set timer
 * moves it. Setting may fail only when the heap must grow: 0 or -ENOMEM. */
int loop_timer_set(struct loop *loop, struct timer *t, int64_t delay_ms);
void loop_timer_cancel(struct loop *loop, struct timer *t); /* not set is fine */
bool timer_is_set(const struct timer *t);

int64_t loop_now_ms(const struct loop *loop); /* monotonic, as of this turn's wake-up */

/* One turn: waits up to max_wait_ms (-1: until something happens; 0: only looks), less if a timer
 * is due. Returns the number of events and timers run, or -errno (EINTR counts as 0). */
int loop_turn(struct loop *loop, int64_t max_wait_ms);

#endif
