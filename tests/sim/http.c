#include "tests/sim/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/sim/conn.h"
#include "tests/sim/sim.h"

#define ACCEPTS_PER_EVENT 64
#define BACKLOG 4096
#define LISTEN_RETRY_MS 10

struct http_server {
    struct event_source source;
    struct timer timer;
    struct sim *sim;
    SSL_CTX *tls;
    int fd; /* -1: not listening right now */
    struct sockaddr_storage bound;
    socklen_t bound_len;
    char address[128];
};

static void stop_listening(struct http_server *server, int64_t ms)
{
    if (server->fd != -1) {
        loop_remove(server->sim->loop, server->fd, &server->source);
        close(server->fd);
        server->fd = -1;
    }
    if (loop_timer_set(server->sim->loop, &server->timer, ms) < 0)
        fprintf(stderr, "llm-sim: out of memory: will not listen again\n");
}

static void on_listener_event(struct event_source *source, uint32_t events)
{
    struct http_server *server = (struct http_server *)source;

    for (int i = 0; i < ACCEPTS_PER_EVENT && server->fd != -1; i++) {
        int fd = accept4(server->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd != -1) {
            conn_open(server->sim, fd, server->tls);
            continue;
        }
        if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
            stop_listening(server, LISTEN_RETRY_MS); /* level-triggered: it would spin */
        if (errno != ECONNABORTED && errno != EINTR)
            return;
    }
}

static int start_listening(struct http_server *server)
{
    const int on = 1;
    int rc;

    server->fd =
        socket(server->bound.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
    if (server->fd == -1)
        return -errno;
    (void)setsockopt(server->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(server->fd, (struct sockaddr *)&server->bound, server->bound_len) == -1 ||
        listen(server->fd, BACKLOG) == -1 ||
        getsockname(server->fd, (struct sockaddr *)&server->bound, &server->bound_len) == -1)
        rc = -errno;
    else
        rc = loop_add(server->sim->loop, server->fd, EPOLLIN, &server->source);
    if (rc < 0) {
        close(server->fd);
        server->fd = -1;
    }
    return rc;
}

static void on_listen_again(struct timer *timer)
{
    struct http_server *server =
        (struct http_server *)((char *)timer - offsetof(struct http_server, timer));
    int rc = start_listening(server);

    if (rc < 0) {
        fprintf(stderr, "llm-sim: listening again on %s: %s\n", server->address, strerror(-rc));
        stop_listening(server, LISTEN_RETRY_MS);
    }
}

static int parse_address(const char *text, struct http_server *server)
{
    const struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
                                   .ai_socktype = SOCK_STREAM};
    const char *colon = strrchr(text, ':');
    struct addrinfo *found = NULL;
    char host[64];
    size_t len;

    if (colon == NULL)
        return -EINVAL;
    len = (size_t)(colon - text);
    if (len >= 2 && text[0] == '[' && text[len - 1] == ']') {
        text++;
        len -= 2;
    }
    if (len >= sizeof(host))
        return -EINVAL;
    memcpy(host, text, len);
    host[len] = '\0';
    if (getaddrinfo(host, colon + 1, &hints, &found) != 0)
        return -EINVAL;
    memcpy(&server->bound, found->ai_addr, found->ai_addrlen);
    server->bound_len = found->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

static int format_address(struct http_server *server)
{
    char host[64];
    char port[8];
    bool v6 = server->bound.ss_family == AF_INET6;

    if (getnameinfo((struct sockaddr *)&server->bound, server->bound_len, host, sizeof(host), port,
                    sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return -EINVAL;
    snprintf(server->address, sizeof(server->address), "%s%s%s:%s", v6 ? "[" : "", host,
             v6 ? "]" : "", port);
    return 0;
}

int http_server_open(struct sim *sim, const char *address, SSL_CTX *tls, struct http_server **out)
{
    struct http_server *server = calloc(1, sizeof(*server));
    int rc = -ENOMEM;

    *out = NULL;
    if (server == NULL)
        return rc;
    server->source.on_event = on_listener_event;
    server->timer.on_timer = on_listen_again;
    server->sim = sim;
    server->tls = tls;
    server->fd = -1;
    rc = parse_address(address, server);
    if (rc == 0)
        rc = start_listening(server);
    if (rc == 0)
        rc = format_address(server);
    if (rc < 0) {
        http_server_close(server);
        return rc;
    }
    *out = server;
    return 0;
}

void http_server_close(struct http_server *server)
{
    if (server == NULL)
        return;
    conn_close_all(server->sim);
    loop_timer_cancel(server->sim->loop, &server->timer);
    if (server->fd != -1) {
        loop_remove(server->sim->loop, server->fd, &server->source);
        close(server->fd);
    }
    free(server);
}

const char *http_server_address(const struct http_server *server)
{
    return server->address;
}

void http_server_refuse(struct http_server *server, int64_t ms)
{
    stop_listening(server, ms);
    conn_close_idle(server->sim);
}
