/* supervision.h - the master's turns: signals, deaths, heartbeats, the watchdog. */
#ifndef XROUTER_GATEWAY_SUPERVISION_H
#define XROUTER_GATEWAY_SUPERVISION_H

#include "gateway/master.h"

/* Blocks the master's signals and ignores SIGPIPE; a signalfd or -errno. */
int supervision_signals(void);
/* For a forked process: as if the former had not been called. */
void supervision_default_signals(void);
/* m->signal_source's callback. */
void supervision_on_signal(struct event_source *src, uint32_t events);
/* m->watch_timer's. */
void supervision_on_watch(struct timer *t);

/* One turn of the loop of at most max_wait_ms (-1: as long as nothing happens), with our own
 * heartbeat. 0 or -errno. */
int supervision_turn(struct master *m, int64_t max_wait_ms);
struct children_setup supervision_children_setup(struct master *m);
/* In a forked process: closes what is the master's alone. */
void supervision_forget(struct master *m);

#endif
