#include "gateway/httpd.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/container.h"
#include "common/log.h"
#include "gateway/httpd_private.h"

#define DAEMON_CLIENTS_MAX 256 /* each resume walks a daemon's suspended connections */
#define ACCEPTS_PER_TURN 32
#define RUNS_PER_TURN 4
#define ACCEPT_PAUSE_MS 100
#define CONNECTION_MEMORY (16 * 1024) /* headers, and the write buffer of a stream */
#define GONE_LINGER_MS 1000           /* for what a client sent before it closed its side */
#define TLS_BACKOFF_MAX_MS 50
#define PEM_MAX (1024 * 1024)
#define TLS_PRIORITIES                                                             \
    "SECURE128:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:-RSA:-CIPHER-ALL:+AES-256-GCM:" \
    "+CHACHA20-POLY1305:+AES-128-GCM"

void client_set_deadline(struct client *c, int64_t delay_ms)
{
    struct httpd *h = c->daemon->httpd;
    int64_t due_ms;

    if (c->gone && delay_ms > GONE_LINGER_MS)
        delay_ms = GONE_LINGER_MS;
    due_ms = loop_now_ms(h->setup.loop) + delay_ms;
    c->deadline_ms = due_ms;
    if (timer_is_set(&c->timer) && c->timer.due_ms <= due_ms)
        return; /* it fires earlier and looks again: most deadlines only move away */
    if (loop_timer_set(h->setup.loop, &c->timer, delay_ms) < 0)
        client_shutdown(c); /* a connection without a deadline is not to be had */
}

void client_shutdown(struct client *c)
{
    (void)shutdown(c->fd, SHUT_RDWR); /* libmicrohttpd closes it when it sees this */
    c->gone = true;
    if (c->request != NULL)
        request_client_gone(c->request);
}

static void on_client_timer(struct timer *t)
{
    struct client *c = container_of(t, struct client, timer);
    int64_t left_ms = c->deadline_ms - loop_now_ms(c->daemon->httpd->setup.loop);

    if (left_ms > 0) {
        if (loop_timer_set(c->daemon->httpd->setup.loop, t, left_ms) == 0)
            return;
    }
    if (c->request != NULL && !c->gone && c->request->status == 0 && c->request->ops == NULL)
        error_set(&c->request->error, XR_EREQTIMEOUT, NULL, NULL); /* for the log */
    client_shutdown(c);
}

static void on_client_event(struct event_source *src, uint32_t events)
{
    struct client *c = container_of(src, struct client, src);

    if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) == 0)
        return;
    c->gone = true;
    /* In its epoll mode libmicrohttpd 0.9.75 does not see an end that came together with bytes. */
    client_set_deadline(c, GONE_LINGER_MS);
    if (c->request != NULL)
        request_client_gone(c->request);
}

static struct client *client_new(struct mhd_daemon *d, struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct client *c = calloc(1, sizeof(*c));
    struct httpd *h = d->httpd;

    if (c == NULL || info == NULL) {
        free(c);
        return NULL;
    }
    c->src.on_event = on_client_event;
    c->timer.on_timer = on_client_timer;
    c->daemon = d;
    c->connection = connection;
    c->fd = info->connect_fd;
    /* Edge-triggered and without EPOLLIN: it fires when the peer closes, and costs no further call.
     */
    if (loop_add(h->setup.loop, c->fd, EPOLLRDHUP | EPOLLET, &c->src) < 0) {
        free(c);
        return NULL;
    }
    c->next = h->clients;
    if (h->clients != NULL)
        h->clients->prev = c;
    h->clients = c;
    h->client_count++;
    d->clients++;
    return c;
}

static void client_free(struct client *c)
{
    struct httpd *h = c->daemon->httpd;

    loop_remove(h->setup.loop, c->fd, &c->src);
    loop_timer_cancel(h->setup.loop, &c->timer);
    if (c->prev != NULL)
        c->prev->next = c->next;
    else
        h->clients = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
    c->daemon->clients--;
    h->client_count--;
    counter_dec(&h->setup.counters->connections_open);
    visitor_leave(c->visitor);
    free(c);
}

/* Without a client there would be no deadline: the library sees the end and closes. */
static void refuse_connection(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);

    if (info != NULL)
        (void)shutdown(info->connect_fd, SHUT_RDWR);
}

/* libmicrohttpd calls this from MHD_add_connection() and just before it closes the socket. */
static void on_connection(void *arg, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode what)
{
    struct mhd_daemon *d = arg;

    d->worked = true;
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        struct client *c = client_new(d, connection);

        *context = c;
        if (c == NULL) {
            refuse_connection(connection);
            return;
        }
        counter_inc(&d->httpd->setup.counters->connections_total);
        counter_inc(&d->httpd->setup.counters->connections_open);
        client_set_deadline(c, d->httpd->config->header_ms);
    } else if (*context != NULL) {
        client_free(*context);
        *context = NULL;
    }
}

static void on_mhd_log(void *arg, const char *format, va_list args)
{
    char text[256];

    /* An event a broken handshake or header: for debugging only, or a scanner fills the log. */
    if (!log_is_on(LOG_DEBUG))
        return;
    if (vsnprintf(text, sizeof(text), format, args) > 0)
        log_event(LOG_DEBUG, "httpd", "", "%s", text);
}

/* The path is matched as it was sent: %00 would cut it, %2F would change its meaning. */
static size_t on_unescape(void *arg, struct MHD_Connection *connection, char *text)
{
    return strlen(text);
}

static void on_daemon_event(struct event_source *src, uint32_t events)
{
    container_of(src, struct mhd_daemon, src)->readable = true;
}

static char *read_pem(const char *path)
{
    FILE *f = fopen(path, "re");
    char *text = NULL;
    size_t len = 0;

    if (f == NULL)
        return NULL;
    text = malloc(PEM_MAX + 1);
    if (text != NULL) {
        len = fread(text, 1, PEM_MAX, f);
        text[len] = '\0';
        if (ferror(f) || len == 0) {
            free(text);
            text = NULL;
        }
    }
    (void)fclose(f);
    return text;
}

static struct MHD_Daemon *start_mhd(struct mhd_daemon *d, const char *key, const char *cert)
{
    /* Without the library's own wake-up descriptor: every resume is followed by a run of ours. */
    unsigned flags =
        MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | (MHD_ALLOW_SUSPEND_RESUME & ~MHD_USE_ITC);
    struct MHD_OptionItem tls[] = {
        {MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)(uintptr_t)key},
        {MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)(uintptr_t)cert},
        {MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)(uintptr_t)TLS_PRIORITIES},
        {MHD_OPTION_END, 0, NULL},
    };
    struct MHD_OptionItem none[] = {{MHD_OPTION_END, 0, NULL}};

    if (key != NULL)
        flags |= MHD_USE_TLS;
    return MHD_start_daemon(
        flags | MHD_USE_ERROR_LOG, 0, NULL, NULL, on_request, d->httpd, MHD_OPTION_EXTERNAL_LOGGER,
        on_mhd_log, NULL, MHD_OPTION_UNESCAPE_CALLBACK, on_unescape, NULL,
        MHD_OPTION_URI_LOG_CALLBACK, on_request_begin, d->httpd, MHD_OPTION_NOTIFY_COMPLETED,
        on_request_completed, d->httpd, MHD_OPTION_NOTIFY_CONNECTION, on_connection, d,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)DAEMON_CLIENTS_MAX, MHD_OPTION_CONNECTION_TIMEOUT,
        0U, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY,
        MHD_OPTION_STRICT_FOR_CLIENT, -1, MHD_OPTION_ARRAY, key != NULL ? tls : none,
        MHD_OPTION_END);
}

static int watch_daemon(struct mhd_daemon *d)
{
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(d->mhd, MHD_DAEMON_INFO_EPOLL_FD);

    if (info == NULL)
        return -EINVAL;
    d->epoll_fd = info->epoll_fd;
    return loop_add(d->httpd->setup.loop, d->epoll_fd, EPOLLIN, &d->src);
}

static struct mhd_daemon *daemon_new(struct httpd *h, enum listener listener)
{
    struct mhd_daemon *d = calloc(1, sizeof(*d));
    char *key = NULL, *cert = NULL;
    bool tls = listener == LISTENER_HTTPS;

    if (d == NULL)
        return NULL;
    d->httpd = h;
    d->listener = listener;
    d->next_run_ms = -1;
    d->src.on_event = on_daemon_event;
    if (tls) {
        key = read_pem(h->config->tls_key);
        cert = read_pem(h->config->tls_cert);
    }
    if (!tls || (key != NULL && cert != NULL))
        d->mhd = start_mhd(d, key, cert);
    if (key != NULL)
        explicit_bzero(key, strlen(key));
    free(key);
    free(cert);
    if (d->mhd != NULL && watch_daemon(d) < 0) {
        MHD_stop_daemon(d->mhd);
        d->mhd = NULL;
    }
    if (d->mhd == NULL) {
        log_event(LOG_ERROR, "httpd_daemon_failed", "", "cannot start an HTTP%s server%s",
                  tls ? "S" : "", tls ? ": check listen.tls.cert and listen.tls.key" : "");
        free(d);
        return NULL;
    }
    d->next = h->daemons;
    h->daemons = d;
    return d;
}

static void daemon_free(struct mhd_daemon *d)
{
    loop_remove(d->httpd->setup.loop, d->epoll_fd, &d->src);
    MHD_stop_daemon(d->mhd);
    free(d);
}

static struct mhd_daemon *daemon_with_room(struct httpd *h, enum listener listener)
{
    for (struct mhd_daemon *d = h->daemons; d != NULL; d = d->next)
        if (d->listener == listener && !d->retired && d->clients < DAEMON_CLIENTS_MAX)
            return d;
    return daemon_new(h, listener);
}

static void watch_listener(struct httpd *h, enum listener which, bool on)
{
    struct accept_source *a = &h->accept[which];

    if (a->fd == -1 || a->watched == on || (on && h->draining && which != LISTENER_OPS))
        return;
    if (!on)
        loop_remove(h->setup.loop, a->fd, &a->src);
    else if (loop_add(h->setup.loop, a->fd, EPOLLIN | EPOLLEXCLUSIVE, &a->src) < 0)
        return; /* tried again by the timer or at the next chance */
    a->watched = on;
}

static void watch_listeners(struct httpd *h, bool on)
{
    for (int i = 0; i < LISTENER_COUNT; i++)
        watch_listener(h, (enum listener)i, on);
}

static bool is_full(const struct httpd *h)
{
    return h->client_count >= h->config->connections;
}

static void on_accept_timer(struct timer *t)
{
    struct httpd *h = container_of(t, struct httpd, accept_timer);

    watch_listener(h, LISTENER_OPS, true);
    if (is_full(h))
        (void)loop_timer_set(h->setup.loop, t, ACCEPT_PAUSE_MS);
    else
        watch_listeners(h, true);
}

/* At the limit of connections, or without memory or descriptors: then the ops listener, too. */
static void pause_accept(struct httpd *h, bool ops_too)
{
    if (loop_timer_set(h->setup.loop, &h->accept_timer, ACCEPT_PAUSE_MS) < 0)
        return;
    watch_listener(h, LISTENER_HTTP, false);
    watch_listener(h, LISTENER_HTTPS, false);
    if (ops_too)
        watch_listener(h, LISTENER_OPS, false);
}

static void format_peer(const struct sockaddr_storage *addr, char out[46])
{
    const void *ip = &((const struct sockaddr_in *)(const void *)addr)->sin_addr;

    if (addr->ss_family == AF_INET6)
        ip = &((const struct sockaddr_in6 *)(const void *)addr)->sin6_addr;
    if (inet_ntop(addr->ss_family, ip, out, 46) == NULL)
        out[0] = '\0';
}

static void accept_one(struct httpd *h, enum listener listener, int fd,
                       const struct sockaddr_storage *addr, socklen_t addr_len)
{
    struct mhd_daemon *d = daemon_with_room(h, listener);
    struct visitor *visitor = NULL;
    int one = 1;

    if (listener != LISTENER_OPS) {
        visitor = visitor_enter(h->visitors, addr, h->config->address_connections,
                                loop_now_ms(h->setup.loop));
        if (visitor == NULL)
            counter_inc(&h->setup.counters->address_refusals_total);
    }
    if (d == NULL || (visitor == NULL && listener != LISTENER_OPS)) {
        visitor_leave(visitor);
        (void)close(fd);
        return;
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)); /* a hint, not a need */
    d->readable = true;
    if (MHD_add_connection(d->mhd, fd, (const struct sockaddr *)(const void *)addr, addr_len) !=
        MHD_YES) {
        visitor_leave(visitor);
        return; /* it closed the socket */
    }
    /* The newest client is the head of the list: on_connection() ran inside the call above. */
    if (h->clients != NULL && h->clients->fd == fd) {
        format_peer(addr, h->clients->peer);
        h->clients->visitor = visitor;
    } else {
        visitor_leave(visitor);
    }
}

static void on_listener(struct event_source *src, uint32_t events)
{
    struct accept_source *a = container_of(src, struct accept_source, src);
    struct httpd *h = a->httpd;

    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        struct sockaddr_storage addr = {0};
        socklen_t addr_len = sizeof(addr);
        int fd;

        if (is_full(h) && a->listener != LISTENER_OPS) {
            pause_accept(h, false);
            return;
        }
        fd = accept4(a->fd, (struct sockaddr *)&addr, &addr_len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd == -1) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
                pause_accept(h, true); /* level-triggered: without a pause this would spin */
            return;
        }
        accept_one(h, a->listener, fd, &addr, addr_len);
    }
}

/* After a run: when must the next one be, if nothing else happens? A TLS daemon says "at once" as
 * long as a handshake is open; believe it only if something moved, else wait longer and longer. */
static void schedule_daemon(struct mhd_daemon *d, bool had_reason)
{
    MHD_UNSIGNED_LONG_LONG timeout_ms = 0;
    int64_t now_ms = loop_now_ms(d->httpd->setup.loop);

    if (MHD_get_timeout(d->mhd, &timeout_ms) != MHD_YES) {
        d->next_run_ms = -1;
        d->backoff_ms = 0;
        return;
    }
    if (timeout_ms == 0 && d->listener == LISTENER_HTTPS && !had_reason && !d->worked) {
        d->backoff_ms = d->backoff_ms == 0 ? 1 : d->backoff_ms * 2;
        if (d->backoff_ms > TLS_BACKOFF_MAX_MS)
            d->backoff_ms = TLS_BACKOFF_MAX_MS;
        timeout_ms = (MHD_UNSIGNED_LONG_LONG)d->backoff_ms;
    } else {
        d->backoff_ms = 0;
    }
    d->next_run_ms = now_ms + (int64_t)timeout_ms;
}

static void free_retired(struct httpd *h)
{
    struct mhd_daemon **link = &h->daemons;

    while (*link != NULL) {
        struct mhd_daemon *d = *link;

        if (d->retired && d->clients == 0) {
            *link = d->next;
            daemon_free(d);
        } else {
            link = &d->next;
        }
    }
}

/* An answer takes libmicrohttpd several runs: sent, completed, next request read. As long as a
 * daemon says that it has more to do they follow each other here, without a look at the loop in
 * between; a few at most, so that other work has its turn. */
static void run_daemon(struct mhd_daemon *d, int64_t now_ms)
{
    bool had_reason = d->readable || d->resumed;

    for (int i = 0; i < RUNS_PER_TURN; i++) {
        d->readable = d->resumed = d->worked = false;
        (void)MHD_run(d->mhd); /* MHD_NO only for a daemon that is shut down */
        schedule_daemon(d, had_reason);
        had_reason = false;
        if (d->next_run_ms == -1 || d->next_run_ms > now_ms)
            break;
    }
}

void httpd_run(struct httpd *h)
{
    int64_t now_ms = loop_now_ms(h->setup.loop);
    bool has_retired = false;

    for (struct mhd_daemon *d = h->daemons; d != NULL; d = d->next) {
        bool is_due = d->next_run_ms != -1 && d->next_run_ms <= now_ms;

        has_retired |= d->retired;
        if (d->readable || d->resumed || is_due)
            run_daemon(d, now_ms);
    }
    if (has_retired)
        free_retired(h);
}

int64_t httpd_next_ms(const struct httpd *h)
{
    int64_t now_ms = loop_now_ms(h->setup.loop);
    int64_t next_ms = -1;

    for (const struct mhd_daemon *d = h->daemons; d != NULL; d = d->next) {
        int64_t left_ms;

        if (d->readable || d->resumed)
            return 0;
        if (d->next_run_ms == -1)
            continue;
        left_ms = d->next_run_ms > now_ms ? d->next_run_ms - now_ms : 0;
        if (next_ms == -1 || left_ms < next_ms)
            next_ms = left_ms;
    }
    return next_ms;
}

int httpd_new(const struct httpd_setup *setup, struct httpd **out)
{
    struct httpd *h = calloc(1, sizeof(*h));

    *out = NULL;
    if (h == NULL)
        return -ENOMEM;
    h->visitors = visitors_new();
    if (h->visitors == NULL) {
        free(h);
        return -ENOMEM;
    }
    h->setup = *setup;
    h->config = config_ref(setup->config);
    h->accept_timer.on_timer = on_accept_timer;
    for (int i = 0; i < LISTENER_COUNT; i++) {
        h->accept[i].src.on_event = on_listener;
        h->accept[i].httpd = h;
        h->accept[i].listener = (enum listener)i;
        h->accept[i].fd = setup->listen_fds[i];
        /* The first daemon of each kind now: a bad certificate shows at start, not at a client. */
        if (h->accept[i].fd != -1 && daemon_new(h, (enum listener)i) == NULL) {
            httpd_free(h);
            return -EINVAL;
        }
    }
    watch_listeners(h, true);
    *out = h;
    return 0;
}

void httpd_free(struct httpd *h)
{
    if (h == NULL)
        return;
    watch_listeners(h, false);
    loop_timer_cancel(h->setup.loop, &h->accept_timer);
    for (struct client *c = h->clients; c != NULL; c = c->next)
        client_shutdown(c); /* resumes it: stopping with suspended connections is undefined */
    for (struct mhd_daemon *d = h->daemons; d != NULL; d = d->next)
        (void)MHD_run(d->mhd);
    while (h->daemons != NULL) {
        struct mhd_daemon *d = h->daemons;

        h->daemons = d->next;
        daemon_free(d);
    }
    visitors_free(h->visitors);
    config_unref(h->config);
    free(h);
}

int httpd_set_config(struct httpd *h, struct config *config)
{
    struct config *old = h->config;
    struct mhd_daemon *fresh = NULL;

    h->config = config_ref(config);
    if (h->accept[LISTENER_HTTPS].fd != -1) {
        fresh = daemon_new(h, LISTENER_HTTPS);
        if (fresh == NULL) {
            h->config = old;
            config_unref(config);
            return -EINVAL;
        }
        for (struct mhd_daemon *d = h->daemons; d != NULL; d = d->next)
            if (d->listener == LISTENER_HTTPS && d != fresh)
                d->retired = true;
    }
    config_unref(old);
    return 0;
}

void httpd_drain(struct httpd *h)
{
    h->draining = true;
    for (int i = 0; i < LISTENER_COUNT; i++) {
        struct accept_source *a = &h->accept[i];

        if (i == LISTENER_OPS || a->fd == -1)
            continue;
        if (a->watched)
            loop_remove(h->setup.loop, a->fd, &a->src);
        a->watched = false;
        /* While one copy is open the kernel goes on taking connections that nobody will serve. */
        (void)close(a->fd);
        a->fd = -1;
    }
    for (struct client *c = h->clients; c != NULL; c = c->next)
        if (c->request == NULL && c->daemon->listener != LISTENER_OPS)
            client_shutdown(c);
}

size_t httpd_open_requests(const struct httpd *h)
{
    return h->open_requests;
}
