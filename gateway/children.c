#define _GNU_SOURCE 1 /* sigabbrev_np */
#include "gateway/children.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "gateway/replay.h"
#include "gateway/respawn.h"
#include "providers/token_lease.h"
#include "router/queue.h"

#define STARTING_FACTOR 10  /* a child that starts may be silent for so many watchdog_ms */
#define REPLACE_MAX_MS 5000 /* longest wait for a killed worker's successor */
#define NAME_BYTES 32
#define END_BYTES 48
#define SILENT_REPORT_MS 5000 /* a silent usage-writer or helper is worth a line after this */

struct child_process {
    struct children *children;
    enum process_role role;
    size_t slot;
    pid_t pid;      /* 0 = none lives */
    int control_fd; /* -1 = none */
    bool is_ready;
    bool is_silent; /* and that has been reported */
    int64_t started_ms;
    struct respawn respawn;
    struct timer respawn_timer;
    struct event_source source;
};

struct children {
    struct children_setup setup;
    struct config *config;
    bool is_retired[ROLE_MASTER]; /* by role */
    int64_t watched_ms;           /* last call of children_watch(), 0 = none yet */
    int64_t judge_from_ms;        /* before it nobody is killed for silence */
    pid_t watchdog_victim;        /* killed, not replaced yet; 0 = none */
    int *wake_fds;                /* one eventfd a worker (router/queue.h), for all of them */
    size_t count;
    struct child_process list[]; /* workers by slot, then usage-writer, then helper */
};

static struct process_row *row_of(const struct child_process *p)
{
    return process_row_at(p->children->setup.instance->processes, p->slot);
}

static struct counters *own_counters(const struct children *c)
{
    struct instance *in = c->setup.instance;

    return counters_slot(in->counters, process_slot(in->processes, ROLE_MASTER));
}

static void set_state(const struct child_process *p, enum process_state state)
{
    atomic_store_explicit(&row_of(p)->state, state, memory_order_relaxed);
}

/* "worker 1", "helper": for people. */
static const char *name_of(const struct child_process *p, char out[NAME_BYTES])
{
    if (p->role == ROLE_WORKER)
        snprintf(out, NAME_BYTES, "%s %zu", process_role_name(p->role), p->slot);
    else
        snprintf(out, NAME_BYTES, "%s", process_role_name(p->role));
    return out;
}

static void close_control(struct child_process *p)
{
    if (p->control_fd == -1)
        return;
    loop_remove(p->children->setup.loop, p->control_fd, &p->source);
    close(p->control_fd);
    p->control_fd = -1;
}

/* Runs in the new process and does not come back. */
static void run_child(struct children *c, enum process_role role, size_t slot, int control_fd)
{
    const struct children_setup *s = &c->setup;
    const struct listeners *l = s->listeners;
    bool is_worker = role == ROLE_WORKER, is_helper = role == ROLE_HELPER;
    const struct child_setup setup = {
        .config = c->config,
        .instance = s->instance,
        .slot = slot,
        .control_fd = control_fd,
        .listen_http = is_worker ? l->http : -1,
        .listen_https = is_worker ? l->https : -1,
        .listen_ops = is_worker ? l->ops : -1,
        .log_error_read = is_helper ? s->pipes->error[0] : -1,
        .log_access_read = is_helper ? s->pipes->access[0] : -1,
        .log_error_write = s->pipes->error[1],
        .log_access_write = s->has_access_log ? s->pipes->access[1] : -1,
        .wake_fds = c->wake_fds,
        .title = s->title,
    };
    int status = 1;

    /* The control sockets of the others, then what else is not this child's. */
    for (size_t i = 0; i < c->count; i++)
        if (c->list[i].control_fd != -1)
            close(c->list[i].control_fd);
    if (!is_worker) {
        struct listeners copy = *l;

        listeners_close(&copy);
    }
    if (!is_helper) {
        close(s->pipes->error[0]);
        close(s->pipes->access[0]);
    }
    s->on_fork(s->arg);
    switch (role) {
    case ROLE_WORKER:
        status = worker_main(&setup);
        break;
    case ROLE_WRITER:
        status = usage_writer_main(&setup);
        break;
    case ROLE_HELPER:
        status = helper_main(&setup);
        break;
    case ROLE_MASTER:
        break;
    }
    exit(status);
}

static void on_control_event(struct event_source *src, uint32_t events)
{
    struct child_process *p =
        (struct child_process *)(void *)((char *)src - offsetof(struct child_process, source));
    struct children *c = p->children;
    struct control message;
    int fd, rc;

    while ((rc = control_recv(p->control_fd, &message, &fd)) == 1) {
        if (fd != -1)
            close(fd);
        if (message.type != CONTROL_READY || p->is_ready)
            continue;
        p->is_ready = true;
        if (!c->is_retired[p->role])
            set_state(p, PROCESS_READY);
        if (p->role == ROLE_WORKER)
            c->watchdog_victim = 0;
        c->setup.on_ready(c->setup.arg, p->role, p->slot);
    }
    /* Its end: the death itself comes with SIGCHLD. */
    if (rc < 0)
        close_control(p);
}

static void enter_row(struct child_process *p)
{
    struct process_row *row = row_of(p);

    atomic_fetch_add_explicit(&row->generation, 1, memory_order_relaxed);
    atomic_store_explicit(&row->heartbeat_ms, p->started_ms, memory_order_relaxed);
    atomic_store_explicit(&row->started_ms, p->started_ms, memory_order_relaxed);
    atomic_store_explicit(&row->state, PROCESS_STARTING, memory_order_relaxed);
    atomic_store_explicit(&row->pid, (uint32_t)p->pid, memory_order_release);
}

static int start_one(struct child_process *p)
{
    struct children *c = p->children;
    int pair[2], rc;
    pid_t pid;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == -1)
        return -errno;
    rc = loop_add(c->setup.loop, pair[0], EPOLLIN, &p->source);
    if (rc < 0)
        goto failed;
    p->started_ms = clock_monotonic_ms();
    pid = fork();
    if (pid == -1) {
        rc = -errno;
        loop_remove(c->setup.loop, pair[0], &p->source);
        goto failed;
    }
    if (pid == 0) {
        close(pair[0]);
        run_child(c, p->role, p->slot, pair[1]);
    }
    close(pair[1]);
    p->pid = pid;
    p->control_fd = pair[0];
    p->is_ready = false;
    p->is_silent = false;
    enter_row(p);
    if (p->role == ROLE_WORKER)
        counter_inc(&own_counters(c)->worker_starts_total);
    return 0;
failed:
    close(pair[0]);
    close(pair[1]);
    return rc;
}

static void start_later(struct child_process *p, int64_t delay_ms)
{
    int rc = loop_timer_set(p->children->setup.loop, &p->respawn_timer, delay_ms);
    char name[NAME_BYTES];

    if (rc < 0)
        log_event(LOG_ERROR, "respawn_failed", "", "%s cannot be replaced: %s", name_of(p, name),
                  strerror(-rc));
}

static void start_or_retry(struct child_process *p)
{
    int rc = start_one(p);
    char name[NAME_BYTES];

    if (rc == 0)
        return;
    log_event(LOG_ERROR, "fork_failed", "", "cannot start %s: %s", name_of(p, name), strerror(-rc));
    start_later(p, RESPAWN_DELAY_MAX_MS);
}

static void on_respawn_timer(struct timer *t)
{
    struct child_process *p =
        (struct child_process *)(void *)((char *)t - offsetof(struct child_process, respawn_timer));

    if (!p->children->is_retired[p->role])
        start_or_retry(p);
}

static int open_wake_fds(struct children *c)
{
    size_t count = c->setup.workers;

    c->wake_fds = calloc(count, sizeof(*c->wake_fds));
    if (c->wake_fds == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++)
        c->wake_fds[i] = -1;
    for (size_t i = 0; i < count; i++) {
        c->wake_fds[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        if (c->wake_fds[i] == -1)
            return -errno;
    }
    return 0;
}

struct children *children_new(const struct children_setup *setup)
{
    struct processes_region *rows = setup->instance->processes;
    size_t count = setup->workers + 2;
    struct children *c = calloc(1, sizeof(*c) + count * sizeof(c->list[0]));

    if (c == NULL)
        return NULL;
    c->setup = *setup;
    c->config = setup->config;
    c->count = count;
    for (size_t i = 0; i < count; i++) {
        struct child_process *p = &c->list[i];

        p->children = c;
        p->role = i < setup->workers    ? ROLE_WORKER
                  : i == setup->workers ? ROLE_WRITER
                                        : ROLE_HELPER;
        p->slot = p->role == ROLE_WORKER ? i : process_slot(rows, p->role);
        p->control_fd = -1;
        p->respawn_timer.on_timer = on_respawn_timer;
        p->source.on_event = on_control_event;
    }
    if (open_wake_fds(c) < 0) {
        children_free(c);
        return NULL;
    }
    return c;
}

void children_free(struct children *c)
{
    if (c == NULL)
        return;
    for (size_t i = 0; i < c->count; i++) {
        loop_timer_cancel(c->setup.loop, &c->list[i].respawn_timer);
        close_control(&c->list[i]);
    }
    for (size_t i = 0; c->wake_fds != NULL && i < c->setup.workers; i++)
        if (c->wake_fds[i] != -1)
            close(c->wake_fds[i]);
    free(c->wake_fds);
    free(c);
}

int children_start(struct children *c, enum process_role role)
{
    for (size_t i = 0; i < c->count; i++) {
        int rc = c->list[i].role == role ? start_one(&c->list[i]) : 0;

        if (rc < 0)
            return rc;
    }
    return 0;
}

void children_set_config(struct children *c, struct config *config)
{
    c->config = config;
}

static void tell(struct child_process *p, enum control_type type, int64_t arg, int fd)
{
    char name[NAME_BYTES];
    int rc;

    if (p->control_fd == -1)
        return;
    if (type == CONTROL_DRAIN || type == CONTROL_STOP)
        set_state(p, PROCESS_DRAINING);
    rc = control_send(p->control_fd, type, arg, fd);
    /* One that has just died is no failure. */
    if (rc < 0 && rc != -EPIPE && rc != -ECONNRESET)
        log_event(LOG_ERROR, "control_failed", "", "cannot give an order to %s (pid %ld): %s",
                  name_of(p, name), (long)p->pid, strerror(-rc));
}

void children_tell(struct children *c, enum process_role role, enum control_type type, int64_t arg,
                   int fd)
{
    for (size_t i = 0; i < c->count; i++)
        if (c->list[i].role == role)
            tell(&c->list[i], type, arg, fd);
}

void children_tell_all(struct children *c, enum control_type type, int64_t arg, int fd)
{
    for (size_t i = 0; i < c->count; i++)
        tell(&c->list[i], type, arg, fd);
}

void children_tell_worker(struct children *c, size_t slot, enum control_type type)
{
    if (slot < c->setup.workers)
        tell(&c->list[slot], type, 0, -1);
}

void children_retire(struct children *c, enum process_role role)
{
    c->is_retired[role] = true;
    for (size_t i = 0; i < c->count; i++)
        if (c->list[i].role == role)
            loop_timer_cancel(c->setup.loop, &c->list[i].respawn_timer);
}

void children_kill(struct children *c, enum process_role role)
{
    for (size_t i = 0; i < c->count; i++)
        if (c->list[i].role == role && c->list[i].pid != 0)
            kill(c->list[i].pid, SIGKILL);
}

/* What stays of a process when it ends: its requests are settled, its gauges gone. */
static size_t settle(struct child_process *p)
{
    struct instance *in = p->children->setup.instance;
    size_t reaped;

    if (p->role != ROLE_WORKER) {
        counters_zero_gauges(in->counters, p->slot);
        return 0;
    }
    token_lease_reap(in->tokens, p->pid);
    queue_reap(in->queue, p->slot, p->children->wake_fds);
    limits_reap(in->limits, p->slot);
    replay_reap(in, p->slot,
                clock_now_at_ms() + p->children->config->answer_ttl_ms + IDEMPOTENCY_GRACE_MS);
    reaped = inflight_reap(in->inflight, p->slot, outbox_slot(in->outbox, p->slot), in->accounts,
                           in->counters, clock_now_at_ms());
    counter_add(&own_counters(p->children)->events_reaped_total, reaped);
    return reaped;
}

/* The same twice: a field for machines, words for people. */
static void describe_end(int status, char field[END_BYTES], char words[END_BYTES])
{
    const char *name = WIFSIGNALED(status) ? sigabbrev_np(WTERMSIG(status)) : NULL;

    if (name != NULL) {
        snprintf(field, END_BYTES, "\"signal\":\"SIG%s\"", name);
        snprintf(words, END_BYTES, "was killed by SIG%s", name);
    } else if (WIFSIGNALED(status)) {
        snprintf(field, END_BYTES, "\"signal\":\"%d\"", WTERMSIG(status));
        snprintf(words, END_BYTES, "was killed by signal %d", WTERMSIG(status));
    } else {
        snprintf(field, END_BYTES, "\"status\":%d", WEXITSTATUS(status));
        snprintf(words, END_BYTES, "ended with status %d", WEXITSTATUS(status));
    }
}

static void log_death(const struct child_process *p, int status, size_t reaped, bool expected)
{
    char name[NAME_BYTES], field[END_BYTES], words[END_BYTES], fields[160];

    describe_end(status, field, words);
    snprintf(fields, sizeof(fields),
             "\"child\":\"%s\",\"child_slot\":%zu,\"child_pid\":%ld,%s,\"reaped\":%zu",
             process_role_name(p->role), p->slot, (long)p->pid, field, reaped);
    log_event(expected ? LOG_INFO : LOG_ERROR, expected ? "process_ended" : "process_died", fields,
              "%s (pid %ld) %s; %zu requests settled for it", name_of(p, name), (long)p->pid, words,
              reaped);
}

static void bury(struct child_process *p, int status)
{
    struct children *c = p->children;
    bool expected = c->is_retired[p->role] && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    bool was_ready = p->is_ready;
    size_t reaped;

    close_control(p);
    atomic_store_explicit(&row_of(p)->pid, 0, memory_order_relaxed);
    set_state(p, PROCESS_DEAD);
    reaped = settle(p);
    log_death(p, status, reaped, expected);
    if (c->watchdog_victim == p->pid && c->is_retired[p->role])
        c->watchdog_victim = 0; /* else when its successor serves */
    p->pid = 0;
    p->is_ready = false;
    if (p->role == ROLE_WORKER && !expected)
        counter_inc(&own_counters(c)->worker_deaths_total);
    if (!c->is_retired[p->role]) {
        int64_t delay_ms =
            respawn_delay_ms(&p->respawn, p->started_ms, clock_monotonic_ms(), was_ready);

        if (delay_ms == 0)
            start_or_retry(p);
        else
            start_later(p, delay_ms);
    }
    c->setup.on_death(c->setup.arg, p->role, p->slot, was_ready);
}

void children_reap(struct children *c, pid_t *other, int *status)
{
    pid_t pid;
    int how;

    while ((pid = waitpid(-1, &how, WNOHANG)) > 0) {
        if (other != NULL && *other == pid) {
            *other = 0;
            *status = how;
        }
        for (size_t i = 0; c != NULL && i < c->count; i++)
            if (c->list[i].pid == pid) {
                bury(&c->list[i], how);
                break;
            }
    }
}

size_t children_count(const struct children *c, enum process_role role)
{
    size_t count = 0;

    for (size_t i = 0; i < c->count; i++)
        count += c->list[i].role == role && c->list[i].pid != 0;
    return count;
}

size_t children_ready_count(const struct children *c, enum process_role role)
{
    size_t count = 0;

    for (size_t i = 0; i < c->count; i++)
        count += c->list[i].role == role && c->list[i].pid != 0 && c->list[i].is_ready;
    return count;
}

static int64_t silence_ms(const struct child_process *p, int64_t now_ms)
{
    return now_ms - atomic_load_explicit(&row_of(p)->heartbeat_ms, memory_order_relaxed);
}

static bool replace_if_silent(struct child_process *p, int64_t now_ms, int64_t watchdog_ms)
{
    int64_t silent_ms = silence_ms(p, now_ms);
    struct children *c = p->children;

    if (silent_ms < (p->is_ready ? watchdog_ms : watchdog_ms * STARTING_FACTOR))
        return false;
    log_event(LOG_ERROR, "worker_silent", "",
              "worker %zu (pid %ld) has been silent for %lld ms: it is replaced", p->slot,
              (long)p->pid, (long long)silent_ms);
    counter_inc(&own_counters(c)->watchdog_kills_total);
    kill(p->pid, SIGKILL);
    c->watchdog_victim = p->pid;
    c->judge_from_ms = now_ms + REPLACE_MAX_MS;
    return true;
}

static void report_if_silent(struct child_process *p, int64_t now_ms)
{
    int64_t silent_ms = silence_ms(p, now_ms);
    bool is_silent = silent_ms >= SILENT_REPORT_MS;

    if (is_silent && !p->is_silent)
        log_event(LOG_ERROR, "process_silent", "", "%s (pid %ld) has been silent for %lld ms",
                  process_role_name(p->role), (long)p->pid, (long long)silent_ms);
    else if (!is_silent && p->is_silent)
        log_event(LOG_INFO, "process_back", "", "%s (pid %ld) is working again",
                  process_role_name(p->role), (long)p->pid);
    p->is_silent = is_silent;
}

void children_watch(struct children *c, int64_t interval_ms, int64_t watchdog_ms)
{
    int64_t now_ms = clock_monotonic_ms();
    /* When our own turn is late the machine stood still, or is overloaded: then the workers'
     * silence says nothing, and they get a full term to show that they live. */
    bool is_late = c->watched_ms != 0 && now_ms - c->watched_ms > 2 * interval_ms;

    c->watched_ms = now_ms;
    if (is_late)
        c->judge_from_ms = now_ms + watchdog_ms;
    if (c->watchdog_victim == 0 && !is_late && c->judge_from_ms > now_ms + watchdog_ms)
        c->judge_from_ms = now_ms; /* the killed one has been replaced: the next may be judged */
    for (size_t i = 0; i < c->count; i++) {
        struct child_process *p = &c->list[i];

        if (p->pid == 0)
            continue;
        if (p->role != ROLE_WORKER)
            report_if_silent(p, now_ms);
        else if (watchdog_ms > 0 && now_ms >= c->judge_from_ms &&
                 replace_if_silent(p, now_ms, watchdog_ms))
            return;
    }
}
