#define _GNU_SOURCE 1 /* MSG_CMSG_CLOEXEC */
#include "gateway/child.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "gateway/locks.h"

#define CONFIG_TEXT_MAX ((size_t)64 * 1024 * 1024)
#define WAIT_MAX_MS 1000
#define TITLE_BYTES 48
#define SHARERS_MAX 512

struct child {
    const struct child_setup *setup;
    enum process_role role;
    struct loop *loop;
    struct process_row *row;
    _Atomic uint64_t *dropped_counter;
    uint64_t dropped_seen;
    struct event_source control_source;
    struct event_source signal_source;
    int signal_fd;
    int lock_fd;
    pid_t master;
    int64_t wait_max_ms;
    int64_t stop_timeout_ms;
    bool is_orphan;
    const struct child_ops *ops; /* while child_run() runs */
    void *arg;
};

#define child_of(src, member) \
    ((struct child *)(void *)((char *)(src)-offsetof(struct child, member)))

int control_send(int socket, enum control_type type, int64_t arg, int fd)
{
    struct control message = {.type = type, .arg = arg};
    struct iovec part = {&message, sizeof(message)};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } ancillary = {0};
    struct msghdr msg = {.msg_iov = &part, .msg_iovlen = 1};
    ssize_t n;

    if (fd != -1) {
        struct cmsghdr *c;

        msg.msg_control = ancillary.bytes;
        msg.msg_controllen = sizeof(ancillary.bytes);
        c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &fd, sizeof(int));
    }
    do
        n = sendmsg(socket, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n == -1 && errno == EINTR);
    return n == -1 ? -errno : 0;
}

int control_recv(int socket, struct control *out, int *fd)
{
    struct iovec part = {out, sizeof(*out)};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } ancillary = {0};
    struct msghdr msg = {
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = ancillary.bytes,
        .msg_controllen = sizeof(ancillary.bytes),
    };
    struct cmsghdr *c;
    ssize_t n;

    *fd = -1;
    do
        n = recvmsg(socket, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (n == -1 && errno == EINTR);
    if (n == -1)
        return errno == EAGAIN ? 0 : errno == ECONNRESET ? -EPIPE : -errno;
    c = CMSG_FIRSTHDR(&msg);
    if (c != NULL && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
        memcpy(fd, CMSG_DATA(c), sizeof(int));
    if (n == sizeof(*out))
        return 1;
    if (*fd != -1)
        close(*fd);
    *fd = -1;
    return n == 0 ? -EPIPE : -EPROTO;
}

static void take_timeouts(struct child *c, const struct config *config)
{
    c->wait_max_ms = WAIT_MAX_MS;
    /* A short watchdog must not mistake an idle child for a stuck one. */
    if (config->watchdog_ms > 0 && config->watchdog_ms / 4 < WAIT_MAX_MS)
        c->wait_max_ms = config->watchdog_ms / 4 + 1;
    c->stop_timeout_ms = config->stop_timeout_ms;
}

static int read_config(int fd, struct buf *text)
{
    struct stat st;
    size_t len;
    char *room;

    if (fstat(fd, &st) == -1)
        return -errno;
    len = (size_t)st.st_size;
    room = buf_room(text, len);
    if (room == NULL)
        return text->err;
    /* pread: the children share one file position. */
    for (size_t at = 0; at < len;) {
        ssize_t n = pread(fd, room + at, len - at, (off_t)at);

        if (n == -1 && errno == EINTR)
            continue;
        if (n <= 0)
            return n == 0 ? -EIO : -errno;
        at += (size_t)n;
    }
    buf_commit(text, len);
    return 0;
}

static void on_config(struct child *c, int fd)
{
    struct config_error error = {0};
    struct config *config = NULL;
    enum log_level level;
    struct buf text;
    int rc;

    buf_init(&text, CONFIG_TEXT_MAX);
    rc = fd == -1 ? -EBADF : read_config(fd, &text);
    if (rc == 0)
        rc = config_decode(text.data, text.len, &config, &error);
    buf_wipe(&text);
    if (config == NULL) {
        log_event(LOG_ERROR, "config_refused", "", "the new configuration cannot be read: %s",
                  error.text[0] != '\0' ? error.text : strerror(-rc));
        return;
    }
    take_timeouts(c, config);
    if (log_level_parse(config->log_level, &level) == 0)
        log_set_level(level);
    c->ops->on_config(c->arg, config);
}

static void on_message(struct child *c, const struct control *message, int fd)
{
    switch ((enum control_type)message->type) {
    case CONTROL_CONFIG:
        on_config(c, fd);
        return;
    case CONTROL_LOG_LEVEL:
        log_set_level((enum log_level)message->arg);
        return;
    case CONTROL_DRAIN:
        c->ops->on_drain(c->arg, message->arg == 0 ? 0 : loop_now_ms(c->loop) + message->arg);
        return;
    case CONTROL_STOP:
        c->ops->on_drain(c->arg, -1);
        return;
    case CONTROL_READY:
    case CONTROL_REOPEN_LOGS:
    case CONTROL_KILL:
        break;
    }
    if (c->ops->on_control != NULL)
        c->ops->on_control(c->arg, message);
}

static void become_orphan(struct child *c)
{
    if (c->is_orphan)
        return;
    c->is_orphan = true;
    log_event(LOG_WARN, "master_gone", "", "the master is gone: draining");
    c->ops->on_drain(c->arg, loop_now_ms(c->loop) + c->stop_timeout_ms);
}

static void on_control_event(struct event_source *src, uint32_t events)
{
    struct child *c = child_of(src, control_source);
    struct control message;
    int fd, rc;

    while ((rc = control_recv(c->setup->control_fd, &message, &fd)) == 1) {
        on_message(c, &message, fd);
        if (fd != -1)
            close(fd);
    }
    if (rc == 0)
        return;
    loop_remove(c->loop, c->setup->control_fd, src);
    become_orphan(c);
}

static void on_signal_event(struct event_source *src, uint32_t events)
{
    struct child *c = child_of(src, signal_source);
    struct signalfd_siginfo info;

    while (read(c->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
        ;
    if (getppid() != c->master)
        become_orphan(c);
}

/* Ctrl-C and systemd signal the whole group; what a child does is the master's order alone. */
static int take_signals(struct child *c)
{
    static const int ignored[] = {SIGINT, SIGTERM, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGPIPE};
    sigset_t mask;

    for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
        if (signal(ignored[i], SIG_IGN) == SIG_ERR)
            return -errno;
    sigemptyset(&mask);
    sigaddset(&mask, SIGRTMIN);
    if (sigprocmask(SIG_SETMASK, &mask, NULL) == -1)
        return -errno;
    c->signal_fd = signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC);
    return c->signal_fd == -1 ? -errno : 0;
}

static void set_title(const struct child *c)
{
    char text[TITLE_BYTES];

    if (c->role == ROLE_WORKER)
        snprintf(text, sizeof(text), "xrouter: worker %zu", c->setup->slot);
    else
        snprintf(text, sizeof(text), "xrouter: %s", process_role_name(c->role));
    if (c->setup->title != NULL)
        title_set(c->setup->title, text);
}

static int become(struct child *c)
{
    struct processes_region *rows = c->setup->instance->processes;
    int rc;

    c->lock_fd = locks_share(c->setup->config->runtime_dir);
    if (c->lock_fd < 0)
        return c->lock_fd;
    if (prctl(PR_SET_DUMPABLE, 0) == -1)
        return -errno;
    rc = take_signals(c);
    if (rc < 0)
        return rc;
    c->master = (pid_t)atomic_load_explicit(
        &process_row_at(rows, process_slot(rows, ROLE_MASTER))->pid, memory_order_relaxed);
    if (prctl(PR_SET_PDEATHSIG, SIGRTMIN) == -1)
        return -errno;
    /* A master that died before we had the lock may have a successor that did not wait for us: its
     * database and sockets are not ours to open. */
    if (getppid() != c->master)
        return -EOWNERDEAD;
    c->loop = loop_new();
    if (c->loop == NULL)
        return -errno;
    rc = loop_add(c->loop, c->signal_fd, EPOLLIN, &c->signal_source);
    if (rc == 0)
        rc = loop_add(c->loop, c->setup->control_fd, EPOLLIN, &c->control_source);
    return rc;
}

static void start_log(const struct child *c)
{
    const struct child_setup *setup = c->setup;
    enum log_level level = LOG_INFO;

    (void)log_level_parse(setup->config->log_level, &level); /* the config has checked it */
    if (setup->log_error_write != -1)
        log_to(setup->log_error_write, setup->log_access_write);
    log_init(process_role_name(c->role), c->role == ROLE_WORKER ? (int)setup->slot : -1, level);
}

struct child *child_new(const struct child_setup *setup, enum process_role role)
{
    struct child *c = calloc(1, sizeof(*c));
    int rc = -ENOMEM;

    if (c == NULL)
        goto failed;
    c->setup = setup;
    c->role = role;
    c->signal_fd = -1;
    c->lock_fd = -1;
    c->control_source.on_event = on_control_event;
    c->signal_source.on_event = on_signal_event;
    c->row = process_row_at(setup->instance->processes, setup->slot);
    c->dropped_counter =
        &counters_slot(setup->instance->counters, setup->slot)->log_lines_dropped_total;
    take_timeouts(c, setup->config);
    start_log(c);
    set_title(c);
    rc = become(c);
    if (rc == 0)
        return c;
failed:
    log_event(LOG_ERROR, "child_failed", "", "the process cannot start: %s", strerror(-rc));
    child_free(c);
    return NULL;
}

struct loop *child_loop(struct child *c)
{
    return c->loop;
}

void child_ready(struct child *c)
{
    int rc = control_send(c->setup->control_fd, CONTROL_READY, 0, -1);

    /* A master that is gone shows as the end of the control socket. */
    if (rc < 0 && rc != -EPIPE)
        log_event(LOG_ERROR, "control_failed", "", "cannot tell the master: %s", strerror(-rc));
}

bool child_is_orphan(const struct child *c)
{
    return c->is_orphan;
}

bool child_sees_alive(const struct child *c, enum process_role role)
{
    struct processes_region *rows = c->setup->instance->processes;
    pid_t living[SHARERS_MAX];
    int count = locks_sharers(c->setup->config->runtime_dir, living, SHARERS_MAX);

    /* Not kill(pid, 0): a zombie that its new parent does not bury would count for ever. */
    for (size_t i = 0; i < processes_count(rows); i++) {
        struct process_row *row = process_row_at(rows, i);
        pid_t pid = (pid_t)atomic_load_explicit(&row->pid, memory_order_relaxed);

        if (row->role != role || row == c->row)
            continue;
        for (int j = 0; j < count; j++)
            if (living[j] == pid)
                return true;
    }
    return false;
}

static void note_dropped_lines(struct child *c)
{
    uint64_t dropped = log_dropped();

    if (dropped == c->dropped_seen)
        return;
    counter_add(c->dropped_counter, dropped - c->dropped_seen);
    c->dropped_seen = dropped;
}

int child_run(struct child *c, const struct child_ops *ops, void *arg)
{
    int64_t wait_ms = 0;

    c->ops = ops;
    c->arg = arg;
    /* A master that died before PDEATHSIG was set has sent no signal. */
    if (getppid() != c->master)
        become_orphan(c);
    while (wait_ms != CHILD_EXIT) {
        int64_t log_ms = log_flush_due(loop_now_ms(c->loop));
        int n;

        if (log_ms >= 0 && (wait_ms < 0 || log_ms < wait_ms))
            wait_ms = log_ms;
        if (wait_ms < 0 || wait_ms > c->wait_max_ms)
            wait_ms = c->wait_max_ms;
        n = loop_turn(c->loop, wait_ms);
        if (n < 0) {
            log_event(LOG_ERROR, "loop_failed", "", "the event loop failed: %s", strerror(-n));
            return 1;
        }
        atomic_store_explicit(&c->row->heartbeat_ms, loop_now_ms(c->loop), memory_order_relaxed);
        wait_ms = ops->on_turn(arg);
        note_dropped_lines(c);
    }
    return 0;
}

void child_free(struct child *c)
{
    if (c == NULL)
        return;
    log_flush();
    loop_free(c->loop);
    if (c->signal_fd != -1)
        close(c->signal_fd);
    if (c->lock_fd >= 0)
        close(c->lock_fd);
    free(c);
}
