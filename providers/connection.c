#include "providers/connection.h"

#include <assert.h>
#include <errno.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/container.h"
#include "common/error.h"
#include "providers/connector.h"

/* curl_easy_send and curl_easy_recv find a handle's connection by walking all connections of its
 * multi handle, so TLS connections share one multi handle only in small groups. One origin's
 * groups do not serve another: a multi handle caches the parsed certificates of one CA file. */
#define CONNECTOR_CONNECTIONS_MAX 64
#define LOOKUP_POLL_MS 10
#define TLS_WRITE_MAX 16384 /* one record: so that a slow send shows its progress */
#define OUR_EVENTS (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET)

struct origin {
    struct origin *next;
    struct connections *pool;
    bool tls;
    uint16_t port;
    char host[256];
    char authority[272];
    char *ca_file, *cert_file, *key_file; /* as in struct dial_files */
    size_t users;                         /* origin_get() and connections */
    struct connector *connectors;
    struct connection *idle_newest, *idle_oldest;
    size_t idle_count;
    struct timer idle_timer;
};

struct connections {
    struct loop *loop;
    const struct addresses_region *addresses;
    struct counters *counters;
    struct origin *origins;
    struct connection *all;
};

struct connection {
    struct event_source source;     /* of fd */
    struct connection_owner *owner; /* NULL = idle */
    struct origin *origin;
    struct connector *connector;
    struct connection *prev, *next;   /* of all */
    struct connection *older, *newer; /* of the idle ones */
    CURL *easy;
    struct curl_slist *addresses; /* borrowed by easy */
    struct timer timer;           /* a look-up is awaited */
    int64_t idle_since_ms;
    int fd;           /* -1 until connected; libcurl's to close */
    bool is_attached; /* libcurl knows that the connection is in use */
    bool is_drained;  /* nothing to read until the next event */
    bool is_hung_up;  /* an end or error was announced: read until it shows */
};

static struct connections *pool_of(const struct connection *c)
{
    return c->origin->pool;
}

static bool is_ended_by(uint32_t events)
{
    return (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
}

/* The idle list. */

static void unlink_idle(struct connection *c)
{
    struct origin *o = c->origin;

    if (c->newer != NULL)
        c->newer->older = c->older;
    else
        o->idle_newest = c->older;
    if (c->older != NULL)
        c->older->newer = c->newer;
    else
        o->idle_oldest = c->newer;
    c->older = c->newer = NULL;
    o->idle_count--;
    counter_dec(&o->pool->counters->upstream_connections_idle);
}

static int arm_idle_timer(struct origin *o)
{
    int64_t due_ms;

    if (o->idle_oldest == NULL || timer_is_set(&o->idle_timer))
        return 0;
    due_ms = o->idle_oldest->idle_since_ms + CONNECTION_IDLE_MS;
    return loop_timer_set(o->pool->loop, &o->idle_timer, due_ms - loop_now_ms(o->pool->loop));
}

static void on_idle_timer(struct timer *t)
{
    struct origin *o = container_of(t, struct origin, idle_timer);
    int64_t now_ms = loop_now_ms(o->pool->loop);

    while (o->idle_oldest != NULL && now_ms - o->idle_oldest->idle_since_ms >= CONNECTION_IDLE_MS)
        connection_close(o->idle_oldest);
    /* It has just left its place in the heap: there is room. */
    (void)arm_idle_timer(o);
}

/* A kept-alive connection became readable: read once. A TLS ticket is no data, anything else means
 * that it is of no use any more. */
static bool is_still_usable(struct connection *c)
{
    char byte;

    return connection_recv(c, &byte, 1) == -EAGAIN;
}

static void on_event(struct event_source *src, uint32_t events)
{
    struct connection *c = container_of(src, struct connection, source);

    if ((events & EPOLLIN) != 0 || is_ended_by(events))
        c->is_drained = false;
    if (is_ended_by(events))
        c->is_hung_up = true;
    if (c->owner != NULL)
        c->owner->on_io(c->owner);
    else if (!c->is_drained && !is_still_usable(c))
        connection_close(c);
}

/* libcurl's outcomes. */

static void fail(struct connection *c, int rc, const char *reason)
{
    struct connection_owner *owner = c->owner;

    connection_close(c);
    owner->on_failed(owner, rc, reason);
}

static void finish_connect(struct connection *c, CURLcode result)
{
    struct connections *pool = pool_of(c);
    const char *reason = "the connection was lost";
    curl_socket_t fd = CURL_SOCKET_BAD;
    int rc = XR_EUPSTREAM;

    if (result != CURLE_OK) {
        rc = dial_explain(result, &reason);
        fail(c, rc, reason);
        return;
    }
    if (curl_easy_getinfo(c->easy, CURLINFO_ACTIVESOCKET, &fd) != CURLE_OK ||
        fd == CURL_SOCKET_BAD) {
        fail(c, rc, reason);
        return;
    }
    if (loop_add(pool->loop, fd, OUR_EVENTS, &c->source) < 0) {
        fail(c, -ENOMEM, "the connection cannot be watched");
        return;
    }
    c->fd = fd;
    /* libcurl has copied them into its own table. */
    curl_easy_setopt(c->easy, CURLOPT_RESOLVE, NULL);
    curl_slist_free_all(c->addresses);
    c->addresses = NULL;
    counter_inc(&pool->counters->upstream_connects_total);
    counter_inc(&pool->counters->upstream_connections_open);
    c->owner->on_ready(c->owner);
}

static void on_outcome(CURL *easy, CURLcode result)
{
    char *private = NULL;

    curl_easy_getinfo(easy, CURLINFO_PRIVATE, &private);
    finish_connect((struct connection *)(void *)private, result);
}

static struct connector *connector_with_room(struct origin *o)
{
    struct connector *connector = o->connectors;

    while (connector != NULL && connector->count >= CONNECTOR_CONNECTIONS_MAX)
        connector = connector->next;
    if (connector != NULL)
        return connector;
    connector = connector_new(o->pool->loop, on_outcome);
    if (connector == NULL)
        return NULL;
    connector->next = o->connectors;
    o->connectors = connector;
    return connector;
}

static bool has_busy_connector(const struct origin *origin)
{
    const struct connector *connector = origin->connectors;

    while (connector != NULL && !connector->is_busy)
        connector = connector->next;
    return connector != NULL;
}

static void free_files(struct origin *o)
{
    free(o->ca_file);
    free(o->cert_file);
    free(o->key_file);
}

static void origin_free(struct origin *origin)
{
    while (origin->connectors != NULL) {
        struct connector *connector = origin->connectors;

        origin->connectors = connector->next;
        connector_free(connector);
    }
    loop_timer_cancel(origin->pool->loop, &origin->idle_timer);
    free_files(origin);
    free(origin);
}

/* Connecting. */

static struct dial dial_of(const struct origin *o, int64_t connect_ms)
{
    return (struct dial){.tls = o->tls,
                         .port = o->port,
                         .host = o->host,
                         .authority = o->authority,
                         .files = {o->ca_file, o->cert_file, o->key_file},
                         .connect_ms = connect_ms};
}

/* 0 when the host's addresses are set or not needed, -EAGAIN, XR_EUPSTREAM or -ENOMEM. */
static int look_up(struct connection *c)
{
    struct connections *pool = pool_of(c);
    struct address_list list;
    struct dial dial;
    int rc;

    if (url_host_is_numeric(c->origin->host))
        return 0;
    if (pool->addresses == NULL)
        return XR_EUPSTREAM;
    rc = addresses_lookup(pool->addresses, c->origin->host, &list);
    if (rc == -EAGAIN)
        return rc;
    if (rc < 0 || list.count == 0)
        return XR_EUPSTREAM;
    dial = dial_of(c->origin, 0);
    return dial_set_addresses(c->easy, &dial, &list, &c->addresses);
}

static int begin_connect(struct connection *c)
{
    struct connector *connector = connector_with_room(c->origin);

    int rc = connector == NULL ? -ENOMEM : connector_add(connector, c->easy);

    if (rc == 0)
        c->connector = connector;
    return rc;
}

/* Goes as far as the addresses allow. */
static int advance(struct connection *c, const char **reason)
{
    int rc = look_up(c);

    if (rc == 0)
        rc = begin_connect(c);
    else if (rc == -EAGAIN)
        rc = loop_timer_set(pool_of(c)->loop, &c->timer, LOOKUP_POLL_MS);
    *reason = rc == XR_EUPSTREAM ? "its name could not be looked up" : "out of memory";
    return rc;
}

static void on_timer(struct timer *t)
{
    struct connection *c = container_of(t, struct connection, timer);
    const char *reason;
    int rc = advance(c, &reason);

    if (rc < 0)
        fail(c, rc, reason);
}

static struct connection *connection_new(struct origin *origin, int64_t connect_ms,
                                         struct connection_owner *owner)
{
    struct connections *pool = origin->pool;
    struct dial dial = dial_of(origin, connect_ms);
    struct connection *c = calloc(1, sizeof(*c));

    if (c == NULL)
        return NULL;
    c->easy = dial_new(&dial, c);
    if (c->easy == NULL) {
        free(c);
        return NULL;
    }
    c->fd = -1;
    c->source.on_event = on_event;
    c->timer.on_timer = on_timer;
    c->owner = owner;
    c->origin = origin;
    origin->users++;
    c->next = pool->all;
    if (c->next != NULL)
        c->next->prev = c;
    pool->all = c;
    return c;
}

struct connections *connections_new(struct loop *loop, const struct addresses_region *addresses,
                                    struct counters *counters)
{
    struct connections *pool;

    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return NULL;
    pool = calloc(1, sizeof(*pool));
    if (pool == NULL) {
        curl_global_cleanup();
        return NULL;
    }
    *pool = (struct connections){.loop = loop, .addresses = addresses, .counters = counters};
    return pool;
}

void connections_free(struct connections *pool)
{
    if (pool == NULL)
        return;
    while (pool->all != NULL)
        connection_close(pool->all);
    while (pool->origins != NULL) {
        struct origin *origin = pool->origins;

        pool->origins = origin->next;
        origin_free(origin);
    }
    free(pool);
    curl_global_cleanup();
}

void connections_close_idle(struct connections *pool)
{
    struct origin **at = &pool->origins;

    for (struct origin *o = pool->origins; o != NULL; o = o->next)
        while (o->idle_oldest != NULL)
            connection_close(o->idle_oldest);
    while (*at != NULL) {
        struct origin *o = *at;

        if (o->users > 0 || has_busy_connector(o)) {
            at = &o->next;
            continue;
        }
        *at = o->next;
        origin_free(o);
    }
}

static int copy_files(struct origin *o, const struct dial_files *files)
{
    o->ca_file = strdup(files->ca);
    o->cert_file = strdup(files->client_cert);
    o->key_file = strdup(files->client_key);
    if (o->ca_file != NULL && o->cert_file != NULL && o->key_file != NULL)
        return 0;
    free_files(o);
    return -ENOMEM;
}

/* A connection is trusted for what was checked, and speaks for whom it showed, when it was made. */
static bool is_origin(const struct origin *o, const struct url_parts *url,
                      const struct dial_files *files)
{
    return o->tls == url->tls && o->port == url->port && strcmp(o->host, url->host) == 0 &&
           strcmp(o->ca_file, files->ca) == 0 && strcmp(o->cert_file, files->client_cert) == 0 &&
           strcmp(o->key_file, files->client_key) == 0;
}

struct origin *origin_get(struct connections *pool, const struct url_parts *url,
                          const struct dial_files *files)
{
    struct origin *o = pool->origins;

    while (o != NULL && !is_origin(o, url, files))
        o = o->next;
    if (o == NULL) {
        o = calloc(1, sizeof(*o));
        if (o == NULL || copy_files(o, files) < 0) {
            free(o);
            return NULL;
        }
        o->pool = pool;
        o->tls = url->tls;
        o->port = url->port;
        memcpy(o->host, url->host, sizeof(o->host));
        memcpy(o->authority, url->authority, sizeof(o->authority));
        o->idle_timer.on_timer = on_idle_timer;
        o->next = pool->origins;
        pool->origins = o;
    }
    o->users++;
    return o;
}

void origin_put(struct origin *origin)
{
    assert(origin->users > 0);
    origin->users--;
}

struct connection *connection_take(struct origin *origin, struct connection_owner *owner)
{
    struct connection *c = origin->idle_newest;

    if (c == NULL)
        return NULL;
    unlink_idle(c);
    c->owner = owner;
    return c;
}

int connection_open(struct origin *origin, int64_t connect_ms, struct connection_owner *owner,
                    struct connection **out, const char **reason)
{
    struct connection *c = connection_new(origin, connect_ms, owner);
    int rc;

    *out = NULL;
    *reason = "out of memory";
    if (c == NULL)
        return -ENOMEM;
    rc = advance(c, reason);
    if (rc < 0) {
        connection_close(c);
        return rc;
    }
    *out = c;
    return 0;
}

static ssize_t send_with_curl(struct connection *c, const char *data, size_t len)
{
    size_t n = 0;
    CURLcode code;

    if (len > TLS_WRITE_MAX)
        len = TLS_WRITE_MAX;
    code = curl_easy_send(c->easy, data, len, &n);
    if (code == CURLE_AGAIN)
        return -EAGAIN;
    if (code != CURLE_OK)
        return -EPIPE;
    c->is_attached = true;
    return (ssize_t)n;
}

ssize_t connection_send(struct connection *c, const char *data, size_t len)
{
    ssize_t n;

    /* The first bytes always go through libcurl: that makes it regard the connection as used.
     * Until then it counts as idle, and libcurl closes idle ones on its own. */
    if (c->origin->tls || !c->is_attached)
        return send_with_curl(c, data, len);
    do
        n = send(c->fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n == -1 && errno == EINTR);
    return n == -1 ? -errno : n;
}

/* libcurl reports a TLS connection that was merely cut like one that was closed properly. Without
 * the peer's farewell anybody on the way could have shortened a body that ends with the connection.
 */
static bool is_closed_properly(struct connection *c)
{
    struct curl_tlssessioninfo *info = NULL;

    if (curl_easy_getinfo(c->easy, CURLINFO_TLS_SSL_PTR, &info) != CURLE_OK || info == NULL ||
        info->backend != CURLSSLBACKEND_OPENSSL || info->internals == NULL)
        return false;
    return (SSL_get_shutdown(info->internals) & SSL_RECEIVED_SHUTDOWN) != 0;
}

static ssize_t recv_with_curl(struct connection *c, char *data, size_t len)
{
    size_t n = 0;
    CURLcode code = curl_easy_recv(c->easy, data, len, &n);

    if (code == CURLE_AGAIN) {
        c->is_drained = true;
        return -EAGAIN;
    }
    if (code != CURLE_OK || (n == 0 && !is_closed_properly(c)))
        return -ECONNRESET;
    return (ssize_t)n;
}

ssize_t connection_recv(struct connection *c, char *data, size_t len)
{
    ssize_t n;

    if (c->is_drained)
        return -EAGAIN;
    if (c->origin->tls)
        return recv_with_curl(c, data, len);
    do
        n = recv(c->fd, data, len, MSG_DONTWAIT);
    while (n == -1 && errno == EINTR);
    if (n == -1) {
        int rc = -errno;

        c->is_drained = rc == -EAGAIN;
        return rc;
    }
    /* Less than asked for: the socket is empty, and what comes next is an event of its own. */
    c->is_drained = n > 0 && (size_t)n < len && !c->is_hung_up;
    return n;
}

void connection_wake(struct connection *c)
{
    /* Setting the same bits again reports what is ready now; a socket can practically always be
     * written to. It fails only for an fd that is not watched. */
    int rc = loop_modify(pool_of(c)->loop, c->fd, OUR_EVENTS, &c->source);

    assert(rc == 0);
}

void connection_keep(struct connection *c)
{
    struct origin *o = c->origin;

    c->owner = NULL;
    c->older = o->idle_newest;
    if (c->older != NULL)
        c->older->newer = c;
    else
        o->idle_oldest = c;
    o->idle_newest = c;
    o->idle_count++;
    counter_inc(&o->pool->counters->upstream_connections_idle);
    c->idle_since_ms = loop_now_ms(o->pool->loop);
    if (o->idle_count > CONNECTION_IDLE_MAX || !is_still_usable(c) || arm_idle_timer(o) < 0)
        connection_close(c);
}

void connection_close(struct connection *c)
{
    struct connections *pool = pool_of(c);

    if (c->older != NULL || c->newer != NULL || c->origin->idle_newest == c)
        unlink_idle(c);
    if (c->prev != NULL)
        c->prev->next = c->next;
    else
        pool->all = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
    loop_timer_cancel(pool->loop, &c->timer);
    if (c->fd != -1) {
        loop_remove(pool->loop, c->fd, &c->source);
        counter_dec(&pool->counters->upstream_connections_open);
    }
    if (c->connector != NULL)
        connector_remove(c->connector, c->easy); /* closes the socket */
    curl_easy_cleanup(c->easy);
    curl_slist_free_all(c->addresses);
    c->origin->users--;
    free(c);
}
