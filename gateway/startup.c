#define _GNU_SOURCE 1 /* pipe2, F_SETPIPE_SZ */
#include "gateway/startup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "gateway/identity.h"
#include "gateway/instance.h"
#include "gateway/orders.h"
#include "gateway/recovery.h"
#include "gateway/supervision.h"

#define LOG_PIPE_BYTES (1024 * 1024)
#define ORPHAN_LOOK_MS 20
#define ORPHAN_KILL_MS 5000 /* for a killed process to be gone */

static int explain(struct master *m, int rc, const char *what)
{
    buf_printf(&m->why, "%s: %s", what, strerror(-rc));
    return rc;
}

static int make_dirs(struct master *m)
{
    int rc = identity_make_dir(m->config->state_dir, 0700);

    if (rc < 0)
        return explain(m, rc, m->config->state_dir);
    rc = identity_make_dir(m->config->runtime_dir, 0750);
    return rc < 0 ? explain(m, rc, m->config->runtime_dir) : 0;
}

static int take_locks(struct master *m)
{
    return locks_take(&m->locks, m->config->runtime_dir, m->config->state_dir, &m->why);
}

static int watch_signals(struct master *m)
{
    int rc;

    m->loop = loop_new();
    if (m->loop == NULL)
        return explain(m, -errno, "event loop");
    m->signal_fd = supervision_signals();
    if (m->signal_fd < 0)
        return explain(m, m->signal_fd, "signals");
    rc = loop_add(m->loop, m->signal_fd, EPOLLIN, &m->signal_source);
    return rc < 0 ? explain(m, rc, "signals") : 0;
}

/* Looks until no child of an earlier master holds its lock: 1 = none does, 0 = time is up. */
static int wait_for_orphans(struct master *m, int64_t deadline_ms)
{
    int free = locks_is_unshared(m->config->runtime_dir);

    while (free == 0 && clock_monotonic_ms() < deadline_ms) {
        int rc = supervision_turn(m, ORPHAN_LOOK_MS);

        if (rc < 0)
            return rc;
        if (m->stop != STOP_NONE)
            return -ECANCELED;
        free = locks_is_unshared(m->config->runtime_dir);
    }
    return free;
}

static int outlive_orphans(struct master *m)
{
    const char *dir = m->config->runtime_dir;
    int rc = wait_for_orphans(m, 0);

    if (rc == 0) {
        log_event(LOG_WARN, "orphans", "",
                  "processes of a crashed instance still drain: waiting up to %lld ms for them",
                  (long long)m->config->stop_timeout_ms);
        rc = wait_for_orphans(m, clock_monotonic_ms() + m->config->stop_timeout_ms);
    }
    if (rc == 0) {
        int ended = recovery_end_orphans(dir);

        if (ended < 0)
            return explain(m, ended, "processes of a crashed instance cannot be found");
        log_event(LOG_WARN, "orphans_ended", "", "%d processes of a crashed instance were ended",
                  ended);
        rc = wait_for_orphans(m, clock_monotonic_ms() + ORPHAN_KILL_MS);
    }
    if (rc == 0) {
        buf_printf(&m->why, "processes of a crashed instance still hold %s/xrouter.lock", dir);
        return -EBUSY;
    }
    if (rc < 0 && rc != -ECANCELED)
        return explain(m, rc, "the children's lock");
    return rc < 0 ? rc : 0;
}

static int drain_old_rings(struct master *m, struct instance *old)
{
    pid_t pid = fork();

    if (pid == -1)
        return explain(m, -errno, "fork");
    if (pid == 0) {
        supervision_forget(m);
        supervision_default_signals();
        exit(recovery_main(m->config, old));
    }
    m->recovery_pid = pid;
    while (m->recovery_pid != 0) {
        int rc = supervision_turn(m, -1);

        if (rc < 0)
            return explain(m, rc, "event loop");
        /* Ended in the middle it has lost nothing: a transaction is whole or not there. */
        if (m->stop != STOP_NONE)
            kill(m->recovery_pid, SIGKILL);
    }
    if (m->stop != STOP_NONE)
        return -ECANCELED;
    if (WIFEXITED(m->recovery_status) && WEXITSTATUS(m->recovery_status) == 0)
        return 0;
    buf_str(&m->why, "usage events of the crashed instance could not be written to the database; "
                     "they are kept for the next start");
    return -EIO;
}

static int recover(struct master *m)
{
    struct instance old;
    bool is_drained = false;
    int rc;

    /* Again if a row found no room in its ring: now there is. */
    do {
        rc = recovery_attach(m->config, &old, &m->why);
        if (rc != 1)
            break;
        rc = drain_old_rings(m, &old);
        is_drained = rc == 0 && instance_is_drained(&old);
        instance_close(&old);
    } while (rc == 0 && !is_drained);
    if (rc < 0)
        return rc;
    rc = instance_unlink(m->config->runtime_dir);
    return rc < 0 ? explain(m, rc, "the crashed instance's shared memory") : 0;
}

static int bind_listeners(struct master *m)
{
    return listeners_open(&m->listeners, m->config, &m->why);
}

static int make_instance(struct master *m)
{
    uint8_t pepper[KEY_PEPPER_BYTES];
    uint32_t node = 0;
    int rc = identity_load_pepper(m->config->state_dir, pepper, &m->why);

    if (rc == 0)
        rc = identity_load_node(m->config->state_dir, &node, &m->why);
    if (rc == 0)
        rc = instance_create(&m->instance, m->config, pepper, node, &m->why);
    explicit_bzero(pepper, sizeof(pepper));
    return rc < 0 ? rc : instance_register(&m->instance, m->config, &m->why);
}

static void fill_rows(struct master *m)
{
    struct processes_region *rows = m->instance.processes;
    struct process_row *own = process_row_at(rows, process_slot(rows, ROLE_MASTER));
    struct instance_row *row = processes_instance(rows);

    atomic_store(&own->pid, (uint32_t)getpid());
    atomic_store(&own->started_ms, clock_monotonic_ms());
    atomic_store(&own->heartbeat_ms, clock_monotonic_ms());
    atomic_store(&own->generation, 1);
    atomic_store(&own->state, PROCESS_STARTING);
    snprintf(row->http, sizeof(row->http), "%s", m->listeners.http_address);
    snprintf(row->https, sizeof(row->https), "%s", m->listeners.https_address);
    snprintf(row->ops, sizeof(row->ops), "%s", m->listeners.ops_address);
}

static int open_log_pipe(int fds[2])
{
    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) == -1)
        return -errno;
    if (fcntl(fds[1], F_SETPIPE_SZ, LOG_PIPE_BYTES) == -1)
        log_event(LOG_WARN, "log_pipe_small", "", "a log pipe cannot have %d bytes: %s",
                  LOG_PIPE_BYTES, strerror(errno));
    return 0;
}

static int open_logs(struct master *m)
{
    int rc = open_log_pipe(m->pipes.error);

    fill_rows(m);
    if (rc == 0)
        rc = open_log_pipe(m->pipes.access);
    return rc < 0 ? explain(m, rc, "log pipes") : 0;
}

static int open_control(struct master *m)
{
    char path[PATH_MAX];
    int rc = -ENAMETOOLONG;

    if (snprintf(path, sizeof(path), "%s/master.sock", m->config->runtime_dir) < (int)sizeof(path))
        rc = control_socket_open(m->loop, path, orders_carry_out, m, &m->control);
    return rc < 0 ? explain(m, rc, path) : 0;
}

static int make_children(struct master *m)
{
    const struct children_setup setup = supervision_children_setup(m);

    m->children = children_new(&setup);
    return m->children == NULL ? explain(m, -ENOMEM, "children") : 0;
}

static int start_role(struct master *m, enum process_role role)
{
    int rc = children_start(m->children, role);

    if (rc < 0)
        return explain(m, rc, process_role_name(role));
    while (children_ready_count(m->children, role) <
           (role == ROLE_WORKER ? instance_worker_count(m->config) : 1)) {
        rc = supervision_turn(m, -1);
        if (rc < 0)
            return explain(m, rc, "event loop");
        if (m->stop != STOP_NONE)
            return -ECANCELED;
        if (m->start_failed) {
            buf_printf(&m->why, "the %s ends before it is ready (its reason is in the log)",
                       process_role_name(role));
            return -ECHILD;
        }
    }
    return 0;
}

static int start_helper(struct master *m)
{
    int rc = start_role(m, ROLE_HELPER);

    /* From here on somebody reads the pipe. */
    if (rc == 0)
        log_to(m->pipes.error[1], m->pipes.access[1]);
    return rc;
}

static int start_writer(struct master *m)
{
    return start_role(m, ROLE_WRITER);
}

static int start_workers(struct master *m)
{
    return start_role(m, ROLE_WORKER);
}

int startup_run(struct master *m)
{
    static int (*const steps[])(struct master * m) = {
        make_dirs,
        take_locks,
        watch_signals,
        outlive_orphans,
        recover,
        /* Only now that nobody else is there: */
        bind_listeners,
        make_instance,
        open_logs,
        open_control,
        make_children,
        start_helper,
        start_writer,
        start_workers,
    };

    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        int rc = steps[i](m);

        if (rc < 0)
            return rc;
        if (m->stop != STOP_NONE)
            return -ECANCELED;
    }
    return 0;
}

/* What a helper that is gone has not carried on; nobody else would show it. */
static void flush_pipe(int from, int to)
{
    char text[4096];
    ssize_t n;

    while (from != -1 && (n = read(from, text, sizeof(text))) > 0)
        if (write(to, text, (size_t)n) == -1)
            return;
}

static void close_pipes(struct log_pipes *pipes)
{
    int *const fds[] = {&pipes->error[0], &pipes->error[1], &pipes->access[0], &pipes->access[1]};

    flush_pipe(pipes->error[0], STDERR_FILENO);
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
        if (*fds[i] != -1)
            close(*fds[i]);
        *fds[i] = -1;
    }
}

void startup_undo(struct master *m, bool keep_memory)
{
    bool made_memory = m->instance.shm != NULL;

    children_free(m->children);
    control_socket_close(m->control);
    close_pipes(&m->pipes);
    listeners_close(&m->listeners);
    instance_close(&m->instance);
    if (made_memory && !keep_memory && instance_unlink(m->config->runtime_dir) < 0)
        log_event(LOG_ERROR, "unlink_failed", "", "the shared memory cannot be removed");
    if (m->loop != NULL)
        loop_timer_cancel(m->loop, &m->watch_timer);
    if (m->signal_fd >= 0)
        close(m->signal_fd);
    loop_free(m->loop);
    if (m->locks.pid_fd != -1)
        locks_release(&m->locks, m->config->runtime_dir);
}
