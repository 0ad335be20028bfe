#include "gateway/supervision.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "common/container.h"
#include "common/log.h"
#include "gateway/instance.h"
#include "gateway/reload.h"

#define TURN_MAX_MS 1000
#define WATCH_MIN_MS 20
#define WATCH_MAX_MS 250
#define TEXT_MAX 16384

static const int watched_signals[] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGCHLD};

static void watched_set(sigset_t *set)
{
    sigemptyset(set);
    for (size_t i = 0; i < sizeof(watched_signals) / sizeof(watched_signals[0]); i++)
        sigaddset(set, watched_signals[i]);
}

int supervision_signals(void)
{
    sigset_t set;
    int fd;

    watched_set(&set);
    if (signal(SIGPIPE, SIG_IGN) == SIG_ERR || signal(SIGUSR2, SIG_IGN) == SIG_ERR ||
        sigprocmask(SIG_BLOCK, &set, NULL) == -1)
        return -errno;
    fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    return fd == -1 ? -errno : fd;
}

void supervision_default_signals(void)
{
    static const int ignored[] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1};
    sigset_t set;

    /* What reaches the whole group is the master's to decide about. */
    for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
        (void)signal(ignored[i], SIG_IGN); /* fails for bad numbers only */
    watched_set(&set);
    (void)sigprocmask(SIG_UNBLOCK, &set, NULL);
}

/* A stricter order than before, or the same again, which means: now. */
static void on_stop_signal(struct master *m, enum stop_order order)
{
    if (order == STOP_IN_TIME && m->stop >= STOP_IN_TIME)
        order = STOP_NOW;
    master_order_stop(m, order);
}

static void reload(struct master *m)
{
    struct buf restart, why;

    if (!m->is_serving || m->stop != STOP_NONE)
        return;
    buf_init(&restart, TEXT_MAX);
    buf_init(&why, TEXT_MAX);
    (void)master_reload(m, &restart, &why); /* has been logged */
    buf_clear(&restart);
    buf_clear(&why);
}

static void on_one_signal(struct master *m, int number)
{
    switch (number) {
    case SIGCHLD:
        children_reap(m->children, &m->recovery_pid, &m->recovery_status);
        break;
    case SIGTERM:
    case SIGINT:
        on_stop_signal(m, STOP_IN_TIME);
        break;
    case SIGQUIT:
        on_stop_signal(m, STOP_UNHURRIED);
        break;
    case SIGHUP:
        reload(m);
        break;
    case SIGUSR1:
        if (m->children != NULL)
            children_tell(m->children, ROLE_HELPER, CONTROL_REOPEN_LOGS, 0, -1);
        break;
    default: /* none that we watch */
        break;
    }
}

void supervision_on_signal(struct event_source *src, uint32_t events)
{
    struct master *m = container_of(src, struct master, signal_source);
    struct signalfd_siginfo info;

    while (read(m->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
        on_one_signal(m, (int)info.ssi_signo);
}

static int64_t watch_interval_ms(const struct config *config)
{
    int64_t ms = config->watchdog_ms / 8;

    if (config->watchdog_ms == 0 || ms > WATCH_MAX_MS)
        return WATCH_MAX_MS;
    return ms < WATCH_MIN_MS ? WATCH_MIN_MS : ms;
}

void supervision_on_watch(struct timer *t)
{
    struct master *m = container_of(t, struct master, watch_timer);
    int64_t interval_ms = watch_interval_ms(m->config);

    children_watch(m->children, interval_ms, m->config->watchdog_ms);
    atomic_store_explicit(&master_counters(m)->log_lines_dropped_total, log_dropped(),
                          memory_order_relaxed);
    if (loop_timer_set(m->loop, t, interval_ms) < 0)
        log_event(LOG_ERROR, "watchdog_failed", "", "out of memory: nobody is watched any more");
}

int supervision_turn(struct master *m, int64_t max_wait_ms)
{
    int rc;

    if (max_wait_ms < 0 || max_wait_ms > TURN_MAX_MS)
        max_wait_ms = TURN_MAX_MS;
    rc = loop_turn(m->loop, max_wait_ms);
    if (m->instance.processes != NULL) {
        struct processes_region *rows = m->instance.processes;
        struct process_row *own = process_row_at(rows, process_slot(rows, ROLE_MASTER));

        atomic_store_explicit(&own->heartbeat_ms, loop_now_ms(m->loop), memory_order_relaxed);
    }
    return rc < 0 ? rc : 0;
}

void supervision_forget(struct master *m)
{
    locks_forget(&m->locks);
    control_socket_forget(m->control);
    if (m->signal_fd >= 0)
        close(m->signal_fd);
    m->signal_fd = -1;
    /* Closes our copy of the epoll set's descriptor; what it watches stays watched. */
    loop_free(m->loop);
    m->loop = NULL;
}

static void on_fork(void *arg)
{
    supervision_forget(arg);
}

static void on_ready(void *arg, enum process_role role, size_t slot)
{
    struct master *m = arg;

    /* A successor starts with the config's level. */
    if (m->log_level >= 0)
        children_tell(m->children, role, CONTROL_LOG_LEVEL, m->log_level, -1);
}

/* During the start a death means that the config, the machine or the program is at fault, and
 * trying for ever would hide it. */
static void on_death(void *arg, enum process_role role, size_t slot, bool ready)
{
    struct master *m = arg;

    if (m->is_serving || ready)
        return;
    if (role != ROLE_WORKER || ++m->unready_deaths > 2)
        m->start_failed = true;
}

struct children_setup supervision_children_setup(struct master *m)
{
    const char *access_file = m->config->log_access_file;

    return (struct children_setup){
        .loop = m->loop,
        .instance = &m->instance,
        .workers = instance_worker_count(m->config),
        .config = m->config,
        .listeners = &m->listeners,
        .pipes = &m->pipes,
        .has_access_log = strcmp(access_file, "off") != 0,
        .title = m->title,
        .on_fork = on_fork,
        .on_ready = on_ready,
        .on_death = on_death,
        .arg = m,
    };
}
