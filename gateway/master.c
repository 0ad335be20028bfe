#include "gateway/master.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "gateway/instance.h"
#include "gateway/notify.h"
#include "gateway/startup.h"
#include "gateway/supervision.h"
#include "gateway/version.h"

#define WHY_MAX 16384
#define STOP_GRACE_MS 3000    /* past its deadline, for a child to end by itself */
#define WRITER_DRAIN_MS 10000 /* to commit what the workers left */
#define HELPER_DRAIN_MS 10000 /* to spool what the writer left */
#define NOW_DRAIN_MS 1000     /* for either, when the order is to stop now */

struct counters *master_counters(struct master *m)
{
    return counters_slot(m->instance.counters, process_slot(m->instance.processes, ROLE_MASTER));
}

void master_order_stop(struct master *m, enum stop_order order)
{
    if (order <= m->stop)
        return;
    m->stop = order;
    m->stop_at_ms = clock_monotonic_ms();
}

static void set_state(struct master *m, enum process_state state)
{
    struct processes_region *rows = m->instance.processes;

    atomic_store(&process_row_at(rows, process_slot(rows, ROLE_MASTER))->state, state);
    atomic_store(&processes_instance(rows)->state, state);
}

static void print_listener(const char *scheme, const char *what, const char *address)
{
    if (address[0] != '\0')
        fprintf(stderr, "xrouter: %s on %s://%s\n", what, scheme, address);
}

static void announce(struct master *m)
{
    const struct listeners *l = &m->listeners;

    set_state(m, PROCESS_READY);
    (void)notify_send("READY=1\nSTATUS=Serving"); /* a courtesy: without systemd nobody listens */
    log_event(LOG_INFO, "started", "",
              "xrouter " XROUTER_VERSION " serves with %zu workers; http \"%s\", https \"%s\", "
              "ops \"%s\"",
              instance_worker_count(m->config), l->http_address, l->https_address, l->ops_address);
    if (isatty(STDERR_FILENO) != 1)
        return;
    print_listener("http", "API", l->http_address);
    print_listener("https", "API", l->https_address);
    print_listener("http", "health and metrics", l->ops_address);
}

static int serve(struct master *m)
{
    int rc = loop_timer_set(m->loop, &m->watch_timer, 0);

    m->is_serving = true;
    announce(m);
    while (rc == 0 && m->stop == STOP_NONE)
        rc = supervision_turn(m, -1);
    if (rc < 0)
        buf_printf(&m->why, "the event loop failed: %s", strerror(-rc));
    return rc;
}

/* Turns until no child of the role lives; after kill_at_ms (0 = never) they are killed. */
static void await(struct master *m, enum process_role role, int64_t kill_at_ms)
{
    while (children_count(m->children, role) > 0) {
        int64_t left_ms = kill_at_ms == 0 ? -1 : kill_at_ms - clock_monotonic_ms();

        if (kill_at_ms != 0 && left_ms <= 0) {
            log_event(LOG_ERROR, "stop_killed", "", "%s did not stop in time: it is ended",
                      process_role_name(role));
            children_kill(m->children, role);
            left_ms = STOP_GRACE_MS;
            kill_at_ms = clock_monotonic_ms() + STOP_GRACE_MS;
        }
        if (supervision_turn(m, left_ms) < 0) {
            children_kill(m->children, role);
            children_reap(m->children, NULL, NULL);
        }
        if (role == ROLE_WORKER && m->stop_at_ms != 0)
            return; /* the order became stricter: the caller gives it */
        if (m->stop == STOP_NOW && m->stop_at_ms != 0) {
            kill_at_ms = clock_monotonic_ms() + NOW_DRAIN_MS;
            m->stop_at_ms = 0;
        }
    }
}

/* The workers end first. A stricter order may come at any time and is passed on. */
static void stop_workers(struct master *m)
{
    children_retire(m->children, ROLE_WORKER);
    do {
        int64_t drain_ms = m->drain_ms >= 0 ? m->drain_ms : m->config->stop_timeout_ms;
        int64_t kill_at_ms = m->stop_at_ms + STOP_GRACE_MS;

        if (m->stop == STOP_IN_TIME)
            kill_at_ms += drain_ms;
        else if (m->stop == STOP_UNHURRIED)
            kill_at_ms = 0;
        m->stop_at_ms = 0;
        if (m->stop == STOP_NOW || (m->stop == STOP_IN_TIME && drain_ms == 0))
            children_tell(m->children, ROLE_WORKER, CONTROL_STOP, 0, -1);
        else
            children_tell(m->children, ROLE_WORKER, CONTROL_DRAIN,
                          m->stop == STOP_IN_TIME ? drain_ms : 0, -1);
        await(m, ROLE_WORKER, kill_at_ms);
    } while (children_count(m->children, ROLE_WORKER) > 0);
}

static void stop_role(struct master *m, enum process_role role, int64_t drain_ms)
{
    children_retire(m->children, role);
    if (m->stop == STOP_NOW)
        drain_ms = NOW_DRAIN_MS;
    children_tell(m->children, role, CONTROL_DRAIN, drain_ms, -1);
    await(m, role, clock_monotonic_ms() + drain_ms + STOP_GRACE_MS);
}

static void stop(struct master *m)
{
    log_event(LOG_INFO, "stopping", "", "draining");
    (void)notify_send("STOPPING=1\nSTATUS=Draining");
    set_state(m, PROCESS_DRAINING);
    if (m->stop == STOP_NONE)
        master_order_stop(m, STOP_NOW);
    /* Ours, too: while one copy is open the kernel goes on taking connections. */
    listeners_close(&m->listeners);
    stop_workers(m);
    stop_role(m, ROLE_WRITER, WRITER_DRAIN_MS);
    /* Its end would be the end of our lines in its pipe. */
    log_to(STDERR_FILENO, STDOUT_FILENO);
    stop_role(m, ROLE_HELPER, HELPER_DRAIN_MS);
}

/* No core file and no debugger for processes that hold secrets; files for many connections. */
static void set_limits(void)
{
    const struct rlimit none = {0, 0};
    struct rlimit files;

    if (setrlimit(RLIMIT_CORE, &none) == -1 || prctl(PR_SET_DUMPABLE, 0) == -1)
        log_event(LOG_WARN, "limits", "", "core files cannot be switched off: %s", strerror(errno));
    if (getrlimit(RLIMIT_NOFILE, &files) == -1)
        return;
    files.rlim_cur = files.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &files) == -1)
        log_event(LOG_WARN, "limits", "", "the limit of open files cannot be raised: %s",
                  strerror(errno));
}

static void init(struct master *m, struct config *config, const struct title *title)
{
    *m = (struct master){
        .config = config,
        .title = title,
        .signal_fd = -1,
        .signal_source = {supervision_on_signal},
        .watch_timer = {.on_timer = supervision_on_watch},
        .locks = {-1, -1},
        .listeners = {.http = -1, .https = -1, .ops = -1},
        .pipes = {{-1, -1}, {-1, -1}},
        .drain_ms = -1,
        .log_level = -1,
    };
    m->config->generation = 1;
    buf_init(&m->why, WHY_MAX);
}

int master_run(struct config *config, const struct title *title)
{
    enum log_level level = LOG_INFO;
    bool keep_memory = false;
    struct master m;
    int rc;

    init(&m, config, title);
    (void)log_level_parse(config->log_level, &level); /* the config has checked it */
    log_init("master", -1, level);
    set_limits();
    title_set(title, "xrouter: master");
    rc = startup_run(&m);
    if (rc == 0)
        rc = serve(&m);
    if (m.children != NULL)
        stop(&m);
    if (m.instance.shm != NULL && !instance_is_drained(&m.instance)) {
        keep_memory = true;
        buf_str(&m.why, "usage events could neither be committed nor spooled: they stay in shared "
                        "memory for the next start");
        rc = rc < 0 ? rc : -EIO;
    }
    startup_undo(&m, keep_memory);
    if (m.why.len > 0)
        fprintf(stderr, "xrouter: %s\n", buf_text(&m.why));
    buf_clear(&m.why);
    config_unref(m.config);
    return rc == 0 || rc == -ECANCELED ? 0 : 1;
}
