/* master.h - the process that keeps the others: sockets, shared memory, children, signals, pid
 * file, master.sock. It parses no HTTP, opens no database and never waits for anybody. */
#ifndef XROUTER_GATEWAY_MASTER_H
#define XROUTER_GATEWAY_MASTER_H

#include <stdbool.h>
#include <sys/types.h>

#include "common/config.h"
#include "common/loop.h"
#include "gateway/child.h"
#include "gateway/children.h"
#include "gateway/control_socket.h"
#include "gateway/listeners.h"
#include "gateway/locks.h"
#include "gateway/title.h"

enum stop_order {
    STOP_NONE,
    STOP_UNHURRIED, /* QUIT: drain for as long as it takes */
    STOP_IN_TIME,   /* TERM, INT: drain up to stop_timeout_ms, or what the order said */
    STOP_NOW        /* a second one of those */
};

struct master {
    struct config *config; /* in force */
    const struct title *title;
    struct loop *loop;
    int signal_fd;
    struct event_source signal_source;
    struct timer watch_timer;
    struct locks locks;
    struct instance instance;
    struct listeners listeners;
    struct log_pipes pipes;
    struct children *children;
    struct control_socket *control;
    enum stop_order stop;
    int64_t stop_at_ms; /* when it was ordered, monotonic; or ordered more strictly */
    int64_t drain_ms;   /* of STOP_IN_TIME, set by order; -1 = the config's stop_timeout_ms */
    bool is_serving;    /* the start is complete */
    bool start_failed;  /* a child that the start waits for has died */
    unsigned unready_deaths;
    pid_t recovery_pid; /* 0 = none runs */
    int recovery_status;
    int log_level;  /* enum log_level set by order, -1 = the config's */
    struct buf why; /* of a start that fails */
};

/* Runs an instance until it is told to stop; takes the config's reference over. Returns the exit
 * status: 0 after a stop in order, 1 when it could not start (the reason is on standard error). */
int master_run(struct config *config, const struct title *title);

/* A stop, from a signal or master.sock; a stricter order replaces an earlier one. */
void master_order_stop(struct master *m, enum stop_order order);
struct counters *master_counters(struct master *m);

#endif
