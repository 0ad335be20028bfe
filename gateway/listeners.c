#include "gateway/listeners.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define HOST_BYTES 256

/* "host:port", "[::1]:port", ":port" (all addresses). */
static int split_address(const char *address, char host[HOST_BYTES], const char **port)
{
    const char *colon = strrchr(address, ':');
    size_t len;

    if (colon == NULL)
        return -EINVAL;
    *port = colon + 1;
    len = (size_t)(colon - address);
    if (len >= 2 && address[0] == '[' && colon[-1] == ']') {
        address++;
        len -= 2;
    }
    if (len >= HOST_BYTES)
        return -ENAMETOOLONG;
    memcpy(host, address, len);
    host[len] = '\0';
    return 0;
}

static int open_one(const struct addrinfo *ai)
{
    const int on = 1;
    int rc, fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd == -1)
        return -errno;
    /* NODELAY is inherited by accepted connections: small answers must not wait for an ACK. */
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0 &&
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0 &&
        bind(fd, ai->ai_addr, ai->ai_addrlen) == 0 && listen(fd, SOMAXCONN) == 0)
        return fd;
    rc = -errno;
    close(fd);
    return rc;
}

static int real_address(int fd, char *out, size_t bytes)
{
    struct sockaddr_storage addr = {0};
    socklen_t len = sizeof(addr);
    char host[INET6_ADDRSTRLEN], port[8];

    if (getsockname(fd, (struct sockaddr *)&addr, &len) == -1)
        return -errno;
    if (getnameinfo((struct sockaddr *)&addr, len, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return -EINVAL;
    snprintf(out, bytes, addr.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
    return 0;
}

static int open_listener(const char *option, const char *address, int *fd, char *real, size_t bytes,
                         struct buf *why)
{
    const struct addrinfo hints = {
        .ai_flags = AI_PASSIVE | AI_NUMERICSERV,
        .ai_family = AF_UNSPEC,
        .ai_socktype = SOCK_STREAM,
    };
    struct addrinfo *found = NULL;
    char host[HOST_BYTES];
    const char *port;
    int rc, gai;

    if (address[0] == '\0')
        return 0;
    rc = split_address(address, host, &port);
    if (rc < 0) {
        buf_printf(why, "%s: \"%s\" is not host:port", option, address);
        return rc;
    }
    gai = getaddrinfo(host[0] == '\0' ? NULL : host, port, &hints, &found);
    if (gai != 0) {
        buf_printf(why, "%s: %s: %s", option, address, gai_strerror(gai));
        return -EADDRNOTAVAIL;
    }
    rc = open_one(found);
    freeaddrinfo(found);
    if (rc < 0) {
        buf_printf(why, "%s: %s: %s", option, address, strerror(-rc));
        return rc;
    }
    *fd = rc;
    rc = real_address(*fd, real, bytes);
    if (rc < 0)
        buf_printf(why, "%s: %s: %s", option, address, strerror(-rc));
    return rc;
}

int listeners_open(struct listeners *l, const struct config *config, struct buf *why)
{
    int rc;

    *l = (struct listeners){-1, -1, -1, "", "", ""};
    rc = open_listener("listen.http", config->listen_http, &l->http, l->http_address,
                       sizeof(l->http_address), why);
    if (rc == 0)
        rc = open_listener("listen.https", config->listen_https, &l->https, l->https_address,
                           sizeof(l->https_address), why);
    if (rc == 0)
        rc = open_listener("listen.ops", config->listen_ops, &l->ops, l->ops_address,
                           sizeof(l->ops_address), why);
    if (rc < 0)
        listeners_close(l);
    return rc;
}

void listeners_close(struct listeners *l)
{
    int *const fds[] = {&l->http, &l->https, &l->ops};

    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
        if (*fds[i] != -1)
            close(*fds[i]);
        *fds[i] = -1;
    }
}
