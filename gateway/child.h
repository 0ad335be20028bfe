/* child.h - what every child of the master has in common: title, signals, its end of the control
 * socket, heartbeats, and the loop they run.
 *
 * Orders come over a SOCK_SEQPACKET socketpair made before the fork. A child ignores INT, TERM,
 * QUIT, HUP, USR1, USR2 (Ctrl-C and systemd reach the whole group). If the master dies the child
 * gets SIGRTMIN (PR_SET_PDEATHSIG) through its signalfd and drains by itself. */
#ifndef XROUTER_GATEWAY_CHILD_H
#define XROUTER_GATEWAY_CHILD_H

#include <stdbool.h>
#include <stdint.h>

#include "common/config.h"
#include "common/counters.h"
#include "common/loop.h"
#include "common/shm.h"
#include "gateway/inflight.h"
#include "gateway/processes.h"
#include "gateway/title.h"
#include "providers/addresses.h"
#include "providers/token_lease.h"
#include "router/facts.h"
#include "router/queue.h"
#include "router/targets.h"
#include "usage/limits.h"
#include "usage/calibration.h"
#include "usage/idempotency.h"
#include "usage/keytable.h"
#include "usage/outbox.h"

enum control_type {
    CONTROL_READY = 1,   /* child -> master: serving */
    CONTROL_DRAIN,       /* accept no more, finish what runs until arg ms from now (0 = no limit) */
    CONTROL_STOP,        /* exit as soon as what runs is cancelled and settled */
    CONTROL_CONFIG,      /* one fd: sealed memfd with config_encode(with_secrets) */
    CONTROL_LOG_LEVEL,   /* arg: enum log_level */
    CONTROL_REOPEN_LOGS, /* helper only */
    CONTROL_KILL         /* worker: look for rows marked kill */
};
struct control {
    uint32_t type;
    uint32_t reserved;
    int64_t arg;
};

/* The shared memory, all regions found. Made by the master, inherited through fork. */
struct instance {
    struct shm *shm;    /* /xrouter-ID */
    struct shm *secret; /* /xrouter-ID.secret */
    struct counters_region *counters;
    struct inflight_region *inflight;
    struct outbox_region *outbox;
    struct accounts_region *accounts;
    struct idempotency_region *idempotency;
    struct calibration_region *calibration;
    struct processes_region *processes;
    struct addresses_region *addresses;
    struct targets_region *targets;
    struct queue_region *queue;
    struct facts_region *facts;
    struct limits_region *limits;
    struct keytable_region *keys;
    struct token_lease_region *tokens;
};

/* What the master hands to a child at fork; all borrowed for the child's life. */
struct child_setup {
    struct config *config; /* the master's current one */
    struct instance *instance;
    size_t slot; /* in processes, counters; for workers in inflight and outbox too */
    int control_fd;
    int listen_http, listen_https, listen_ops; /* workers; -1 = off; non-blocking */
    int log_error_read, log_access_read;       /* helper: the pipes' read ends, -1 elsewhere */
    int log_error_write, log_access_write;     /* where lines go; -1 = stays as it is, or none */
    const int *wake_fds; /* workers: an eventfd for each of them, by slot (router/queue.h) */
    const struct title *title;
};

struct child;
struct child_ops {
    void (*on_config)(void *arg, struct config *config); /* takes the reference over */
    /* deadline_ms: monotonic, 0 = none, -1 = stop now */
    void (*on_drain)(void *arg, int64_t deadline_ms);
    void (*on_control)(void *arg, const struct control *message); /* the other orders */
    /* The turn's own work, after events and timers ran. Returns how long the loop may sleep next
     * (ms, -1 = no limit), or CHILD_EXIT to end the process with status 0. */
    int64_t (*on_turn)(void *arg);
};
#define CHILD_EXIT INT64_C(-2)

/* One message; fd (-1 = none) goes along and stays the caller's. Never waits. 0 or -errno. */
int control_send(int socket, enum control_type type, int64_t arg, int fd);
/* The next message, its descriptor (-1 = none) the caller's. 1, 0 (none is waiting), -EPIPE (the
 * other end is closed) or -errno. */
int control_recv(int socket, struct control *out, int *fd);

/* Children's lock, title, signals, PDEATHSIG, loop, control socket, log_init. NULL on failure
 * (logged). */
struct child *child_new(const struct child_setup *setup, enum process_role role);
struct loop *child_loop(struct child *c);
/* Tells the master that the child serves; the master stores it in the processes row. */
void child_ready(struct child *c);
/* Whether the master is gone: nobody will order the stop of the others or replace the dead. */
bool child_is_orphan(const struct child *c);
/* Whether another process of that role still lives, by the children's lock; for orphans, whose rows
 * nobody keeps any more. */
bool child_sees_alive(const struct child *c, enum process_role role);
/* Runs turns (heartbeat, at least once a second) until on_turn says CHILD_EXIT; returns the exit
 * status. */
int child_run(struct child *c, const struct child_ops *ops, void *arg);
void child_free(struct child *c);

/* Entry points, each in its own file; called right after fork, return the exit status. */
int worker_main(const struct child_setup *setup);       /* gateway/worker.c */
int helper_main(const struct child_setup *setup);       /* gateway/helper.c */
int usage_writer_main(const struct child_setup *setup); /* gateway/usage_writer.c */

#endif
