/* children.h - the master's children: forked, told what to do, watched, buried and replaced.
 *
 * A dead worker's requests are settled before its slot is used again. Who dies is replaced, at once
 * or after a wait (gateway/respawn.h), until children_retire(). */
#ifndef XROUTER_GATEWAY_CHILDREN_H
#define XROUTER_GATEWAY_CHILDREN_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "gateway/child.h"
#include "gateway/listeners.h"

struct log_pipes {
    int error[2], access[2]; /* read end, write end; -1 = not open */
};

struct children; /* opaque */

struct children_setup { /* all borrowed */
    struct loop *loop;
    struct instance *instance;
    size_t workers;
    struct config *config; /* at first; then children_set_config() */
    const struct listeners *listeners;
    const struct log_pipes *pipes;
    bool has_access_log;
    const struct title *title;
    void (*on_fork)(void *arg); /* in the new process: closes what is the master's alone */
    void (*on_ready)(void *arg, enum process_role role, size_t slot);
    /* After it has been buried. ready: it had served. */
    void (*on_death)(void *arg, enum process_role role, size_t slot, bool ready);
    void *arg;
};

/* NULL when out of memory or descriptors. */
struct children *children_new(const struct children_setup *setup);
/* Closes the control sockets; ends nobody. NULL is fine. Not for a forked process: the epoll set
 * is the master's too. */
void children_free(struct children *c);

/* Start one, or all workers. 0 or -errno. */
int children_start(struct children *c, enum process_role role);
/* For respawned ones, and later log levels; config is borrowed. */
void children_set_config(struct children *c, struct config *config);

/* An order to all that live of a role. A child that cannot take it is logged. fd: -1 = none. */
void children_tell(struct children *c, enum process_role role, enum control_type type, int64_t arg,
                   int fd);
void children_tell_all(struct children *c, enum control_type type, int64_t arg, int fd);
void children_tell_worker(struct children *c, size_t slot, enum control_type type);
/* From now on no child of that role is replaced, and one that is told to drain or stop shows as
 * draining. */
void children_retire(struct children *c, enum process_role role);
void children_kill(struct children *c, enum process_role role); /* SIGKILL */

/* SIGCHLD came: buries the dead (all of ours). *other, if not NULL, is a pid to be waited for
 * besides; when it has ended it becomes 0 and *status its wait status. */
void children_reap(struct children *c, pid_t *other, int *status);

size_t children_count(const struct children *c, enum process_role role); /* that live */
size_t children_ready_count(const struct children *c, enum process_role role);

/* Watchdog: call at regular times, every interval_ms. A worker silent for watchdog_ms is killed (0
 * = off), one at a time; a silent usage-writer or helper is reported. A late call judges nobody. */
void children_watch(struct children *c, int64_t interval_ms, int64_t watchdog_ms);

#endif
