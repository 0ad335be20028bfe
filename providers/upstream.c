#include "providers/upstream.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/container.h"
#include "providers/connection.h"
#include "providers/outgoing.h"

#define READ_BYTES 16384
#define READ_PER_TURN 65536 /* of one exchange, so that the others get their turn */

enum phase {
    PHASE_CONNECT,
    PHASE_SEND,
    PHASE_WAIT, /* sent, and no byte of the body yet */
    PHASE_BODY
};

struct upstream {
    struct connection_owner owner;
    struct upstreams *pool;
    struct upstream *prev, *next;
    struct origin *origin;
    struct connection *connection; /* NULL only while ending */
    struct upstream_callbacks callbacks;
    void *arg;
    struct outgoing request; /* kept until the first response byte: it may be sent twice */
    struct http1 *parser;
    struct buf stash; /* read but not yet delivered, because of a pause */
    struct timer timer;
    int64_t timer_due_ms;
    int64_t connect_ms, first_byte_ms, idle_ms;
    int64_t total_due_ms;
    int64_t opened_us;  /* monotonic, when the connection was asked for; 0 = one was there */
    int64_t connect_us; /* what that took */
    int64_t active_ms;  /* when the phase began, or last went on */
    enum phase phase;
    bool is_paused;
    bool is_reused;     /* the connection had served before */
    bool is_repeated;   /* this is the second try */
    bool is_unsendable; /* the provider takes no more bytes; it may have answered all the same */
    bool in_callback;
    bool is_dead; /* cancelled inside a callback: freed when that returns */
};

struct upstreams {
    struct loop *loop;
    struct connections *connections;
    struct counters *counters;
    struct upstream *all;
    char buffer[READ_BYTES]; /* for whichever exchange reads now: reading does not nest */
};

static bool is_sent(const struct upstream *u)
{
    return u->phase >= PHASE_WAIT;
}

static int64_t now_ms(const struct upstream *u)
{
    return loop_now_ms(u->pool->loop);
}

/* The end of an exchange. */

static void detach(struct upstream *u, bool keep_connection)
{
    struct upstreams *pool = u->pool;

    if (pool == NULL)
        return;
    u->pool = NULL;
    if (u->prev != NULL)
        u->prev->next = u->next;
    else
        pool->all = u->next;
    if (u->next != NULL)
        u->next->prev = u->prev;
    loop_timer_cancel(pool->loop, &u->timer);
    if (u->connection != NULL && keep_connection)
        connection_keep(u->connection);
    else if (u->connection != NULL)
        connection_close(u->connection);
    u->connection = NULL;
    origin_put(u->origin);
}

static void upstream_free(struct upstream *u)
{
    outgoing_clear(&u->request);
    buf_clear(&u->stash);
    http1_free(u->parser);
    free(u);
}

/* Tells the caller and frees u. e is filled already, all zero for success. */
static void finish(struct upstream *u, int rc, const struct error *e, bool keep_connection)
{
    detach(u, keep_connection);
    u->in_callback = true; /* upstream_cancel() from inside has nothing left to do */
    u->callbacks.on_end(u->arg, rc, e);
    upstream_free(u);
}

static void finish_ok(struct upstream *u, bool keep_connection)
{
    struct error e = {0};

    finish(u, 0, &e, keep_connection);
}

static void finish_failed(struct upstream *u, int rc, const char *reason)
{
    struct error e = {0};

    error_set(&e, rc, NULL, "The provider failed: %s.", reason);
    finish(u, rc, &e, false);
}

/* A callback of the caller's refused: its error, and its text, are its own. */
static void finish_refused(struct upstream *u, int rc)
{
    struct error e = {.number = rc};

    finish(u, rc, &e, false);
}

/* Deadlines. One timer, moved only when it would come too late; when it comes too early, it looks
 * and goes back to sleep. So a stream of chunks touches no heap. */

static int64_t phase_due_ms(const struct upstream *u)
{
    switch (u->phase) {
    case PHASE_CONNECT:
        return u->active_ms + u->connect_ms;
    case PHASE_SEND:
        return u->active_ms + u->first_byte_ms;
    case PHASE_WAIT:
        return u->is_paused ? INT64_MAX : u->active_ms + u->first_byte_ms;
    case PHASE_BODY:
        return u->is_paused ? INT64_MAX : u->active_ms + u->idle_ms;
    }
    return INT64_MAX;
}

static int arm(struct upstream *u)
{
    int64_t due_ms = phase_due_ms(u);

    if (due_ms > u->total_due_ms)
        due_ms = u->total_due_ms;
    if (timer_is_set(&u->timer) && u->timer_due_ms <= due_ms)
        return 0;
    u->timer_due_ms = due_ms;
    return loop_timer_set(u->pool->loop, &u->timer, due_ms - now_ms(u));
}

static const char *late_reason(const struct upstream *u)
{
    if (now_ms(u) >= u->total_due_ms)
        return "its answer was not complete in time";
    switch (u->phase) {
    case PHASE_CONNECT:
        return "no connection in time";
    case PHASE_SEND:
        return "it did not take the request in time";
    case PHASE_WAIT:
        return "no answer in time";
    case PHASE_BODY:
        return "its answer stopped in the middle";
    }
    return "";
}

static void on_timer(struct timer *t)
{
    struct upstream *u = container_of(t, struct upstream, timer);
    int rc;

    if (now_ms(u) >= u->total_due_ms || now_ms(u) >= phase_due_ms(u)) {
        finish_failed(u, XR_ETIMEOUT, late_reason(u));
        return;
    }
    rc = arm(u);
    if (rc < 0)
        finish_failed(u, rc, "out of memory");
}

/* A phase begins. The timer is set all along, and moving a set timer does not fail. */
static void enter(struct upstream *u, enum phase phase)
{
    int rc;

    u->phase = phase;
    u->active_ms = now_ms(u);
    rc = arm(u);
    assert(rc == 0);
}

/* Sending. 0 (all sent, or no room for now) or -errno: the connection is broken. */
static int send_request(struct upstream *u)
{
    const char *data;
    size_t len;

    while ((data = outgoing_next(&u->request, &len)) != NULL) {
        ssize_t n = connection_send(u->connection, data, len);

        if (n == -EAGAIN)
            return 0;
        if (n < 0)
            return (int)n;
        outgoing_advance(&u->request, (size_t)n);
        u->active_ms = now_ms(u);
    }
    enter(u, PHASE_WAIT);
    if (!u->is_reused)
        outgoing_clear(&u->request);
    return 0;
}

/* Whether the exchange may begin again: the provider had closed the kept-alive connection before
 * it could see the request, as far as anybody can know. */
static bool may_repeat(const struct upstream *u)
{
    return u->is_reused && !http1_has_begun(u->parser);
}

/* Once more, on a connection of its own. */
static int repeat(struct upstream *u, const char **reason)
{
    if (u->connection != NULL)
        connection_close(u->connection);
    u->connection = NULL;
    u->opened_us = clock_monotonic_us();
    outgoing_rewind(&u->request);
    u->is_reused = false;
    u->is_repeated = true;
    u->is_unsendable = false;
    counter_inc(&u->pool->counters->upstream_retries_total);
    enter(u, PHASE_CONNECT);
    return connection_open(u->origin, u->connect_ms, &u->owner, &u->connection, reason);
}

/* The connection broke or ended without the response being complete. */
static void give_up_or_repeat(struct upstream *u, const char *why)
{
    const char *reason = why;
    int rc = XR_EUPSTREAM;

    if (may_repeat(u)) {
        rc = repeat(u, &reason);
        if (rc == 0)
            return;
    }
    finish_failed(u, rc, reason);
}

/* Receiving. These return whether the exchange is still there and may go on. */

static bool survives_callback(struct upstream *u)
{
    u->in_callback = false;
    if (!u->is_dead)
        return true;
    upstream_free(u);
    return false;
}

static bool deliver_head(struct upstream *u)
{
    int rc;

    u->in_callback = true;
    rc = u->callbacks.on_head(u->arg, http1_get_head(u->parser));
    if (!survives_callback(u))
        return false;
    if (rc != 0)
        finish_refused(u, rc);
    return rc == 0;
}

static bool deliver_body(struct upstream *u, const char *data, size_t len)
{
    int rc;

    if (u->phase == PHASE_WAIT)
        enter(u, PHASE_BODY);
    u->in_callback = true;
    rc = u->callbacks.on_body(u->arg, data, len);
    if (!survives_callback(u))
        return false;
    if (rc > 0)
        finish_ok(u, false);
    else if (rc < 0)
        finish_refused(u, rc);
    return rc == 0;
}

static bool stash(struct upstream *u, const char *in, size_t len)
{
    int rc = buf_append(&u->stash, in, len);

    if (rc < 0)
        finish_failed(u, rc, "out of memory");
    return rc == 0;
}

/* Response bytes. Also called with none: an end may follow a piece of body without a further byte.
 */
static bool feed(struct upstream *u, const char *in, size_t len)
{
    for (;;) {
        const char *data, *why;
        size_t data_len, used;
        int step;

        if (u->is_paused)
            return stash(u, in, len);
        step = http1_feed(u->parser, in, len, &used, &data, &data_len, &why);
        in += used;
        len -= used;
        if (step == HTTP1_MORE)
            return true;
        if (step == HTTP1_HEAD && !deliver_head(u))
            return false;
        if (step == HTTP1_BODY && !deliver_body(u, data, data_len))
            return false;
        if (step == HTTP1_END) {
            /* Bytes behind the end belong to nothing: such a connection is not to be trusted. */
            finish_ok(u, len == 0 && is_sent(u) && http1_get_head(u->parser)->keep_alive);
            return false;
        }
        if (step < 0) {
            finish_failed(u, step == -ENOMEM ? step : XR_EUPSTREAM, why);
            return false;
        }
    }
}

static bool feed_stash(struct upstream *u)
{
    struct buf bytes = u->stash;
    bool alive;

    buf_init(&u->stash, READ_BYTES);
    alive = feed(u, bytes.data, bytes.len);
    buf_clear(&bytes);
    return alive;
}

static void on_closed(struct upstream *u)
{
    const char *why;

    if (may_repeat(u))
        give_up_or_repeat(u, "the connection was closed");
    else if (http1_eof(u->parser, &why) == HTTP1_END)
        finish_ok(u, false);
    else
        finish_failed(u, XR_EUPSTREAM, why);
}

static void receive(struct upstream *u)
{
    size_t budget = READ_PER_TURN;

    if (u->is_paused || !feed_stash(u))
        return;
    while (!u->is_paused) {
        ssize_t n;

        if (budget == 0) {
            connection_wake(u->connection);
            return;
        }
        n = connection_recv(u->connection, u->pool->buffer, READ_BYTES);
        if (n == -EAGAIN)
            return;
        if (n == 0) {
            on_closed(u);
            return;
        }
        if (n < 0) {
            give_up_or_repeat(u, "the connection was lost");
            return;
        }
        budget -= (size_t)n < budget ? (size_t)n : budget;
        if (u->phase != PHASE_WAIT)
            u->active_ms = now_ms(u);
        if (is_sent(u) && u->request.head.len > 0)
            outgoing_clear(
                &u->request); /* with a byte of the response there is no repeating any more */
        if (!feed(u, u->pool->buffer, (size_t)n))
            return;
    }
}

static void on_io(struct connection_owner *owner)
{
    struct upstream *u = container_of(owner, struct upstream, owner);

    if (u->phase == PHASE_SEND && !u->is_unsendable && send_request(u) < 0) {
        if (may_repeat(u)) {
            give_up_or_repeat(u, "the connection was lost");
            return;
        }
        /* It may have refused the request early and closed: its answer is worth reading. */
        u->is_unsendable = true;
    }
    receive(u);
}

static void on_ready(struct connection_owner *owner)
{
    struct upstream *u = container_of(owner, struct upstream, owner);

    u->connect_us = clock_monotonic_us() - u->opened_us;
    enter(u, PHASE_SEND);
    /* A new connection reports itself in the next turn anyway: on_io() meets what happens here. */
    u->is_unsendable = send_request(u) < 0;
}

static void on_failed(struct connection_owner *owner, int rc, const char *reason)
{
    struct upstream *u = container_of(owner, struct upstream, owner);

    u->connection = NULL; /* gone already */
    finish_failed(u, rc, reason);
}

/* Beginning. */

static int begin(struct upstream *u, const char **reason)
{
    u->connection = connection_take(u->origin, &u->owner);
    if (u->connection == NULL)
        u->opened_us = clock_monotonic_us();
    if (u->connection == NULL)
        return connection_open(u->origin, u->connect_ms, &u->owner, &u->connection, reason);
    u->is_reused = true;
    enter(u, PHASE_SEND);
    return send_request(u) < 0 ? repeat(u, reason) : 0;
}

struct upstreams *upstreams_new(struct loop *loop, const struct addresses_region *addresses,
                                struct counters *counters)
{
    struct upstreams *pool = malloc(sizeof(*pool));

    if (pool == NULL)
        return NULL;
    pool->loop = loop;
    pool->counters = counters;
    pool->all = NULL;
    pool->connections = connections_new(loop, addresses, counters);
    if (pool->connections == NULL) {
        free(pool);
        return NULL;
    }
    return pool;
}

void upstreams_free(struct upstreams *pool)
{
    struct upstream *u, *next;

    if (pool == NULL)
        return;
    for (u = pool->all; u != NULL; u = next) {
        next = u->next;
        upstream_cancel(u);
    }
    connections_free(pool->connections);
    free(pool);
}

void upstreams_close_idle(struct upstreams *pool)
{
    connections_close_idle(pool->connections);
}

static struct upstream *upstream_new(struct upstreams *pool, const struct upstream_target *target,
                                     const struct url_parts *url)
{
    const struct dial_files files = {
        .ca = target->ca_bundle_file,
        .client_cert = target->client_cert_file != NULL ? target->client_cert_file : "",
        .client_key = target->client_key_file != NULL ? target->client_key_file : ""};
    struct upstream *u = calloc(1, sizeof(*u));

    if (u == NULL)
        return NULL;
    u->parser = http1_new();
    u->origin = origin_get(pool->connections, url, &files);
    if (u->parser == NULL || u->origin == NULL) {
        if (u->origin != NULL)
            origin_put(u->origin);
        http1_free(u->parser);
        free(u);
        return NULL;
    }
    u->owner =
        (struct connection_owner){.on_ready = on_ready, .on_failed = on_failed, .on_io = on_io};
    u->pool = pool;
    u->timer.on_timer = on_timer;
    buf_init(&u->stash, READ_BYTES);
    u->connect_ms = target->connect_ms;
    u->first_byte_ms = target->first_byte_ms;
    u->idle_ms = target->idle_ms;
    u->active_ms = now_ms(u);
    u->total_due_ms = u->active_ms + target->total_ms;
    u->next = pool->all;
    if (u->next != NULL)
        u->next->prev = u;
    pool->all = u;
    return u;
}

static struct upstream *fail_start(struct error *e, int rc, const char *reason)
{
    error_set(e, rc, NULL, "The provider cannot be asked: %s.", reason);
    return NULL;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

struct upstream_target upstream_target_of(const struct provider_config *p, int64_t left_ms)
{
    return (struct upstream_target){.url = p->base_url,
                                    .ca_bundle_file = p->ca_bundle_file,
                                    .client_cert_file = p->client_cert_file,
                                    .client_key_file = p->client_key_file,
                                    .connect_ms = least(p->connect_ms, left_ms),
                                    .first_byte_ms = least(p->first_byte_ms, left_ms),
                                    .idle_ms = least(p->idle_ms, left_ms),
                                    .total_ms = least(p->total_ms, left_ms)};
}

struct upstream *upstream_start(struct upstreams *pool, const struct upstream_target *target,
                                struct buf *head, struct buf *body,
                                const struct upstream_callbacks *callbacks, void *arg,
                                struct error *e)
{
    const char *reason = "out of memory";
    struct outgoing request;
    struct url_parts url;
    struct upstream *u;
    int rc = outgoing_take(&request, head, body);

    if (rc == 0 && url_split(target->url, &url) < 0) {
        rc = XR_EUPSTREAM;
        reason = "its URL is not valid";
    }
    u = rc == 0 ? upstream_new(pool, target, &url) : NULL;
    if (u == NULL) {
        outgoing_clear(&request);
        return fail_start(e, rc == 0 ? -ENOMEM : rc, reason);
    }
    u->request = request;
    u->callbacks = *callbacks;
    u->arg = arg;
    rc = arm(u);
    if (rc == 0)
        rc = begin(u, &reason);
    if (rc < 0) {
        detach(u, false);
        upstream_free(u);
        return fail_start(e, rc, reason);
    }
    return u;
}

void upstream_cancel(struct upstream *u)
{
    detach(u, false);
    if (u->in_callback)
        u->is_dead = true;
    else
        upstream_free(u);
}

void upstream_pause(struct upstream *u)
{
    u->is_paused = true;
}

void upstream_resume(struct upstream *u)
{
    if (!u->is_paused)
        return;
    u->is_paused = false;
    if (u->pool == NULL)
        return; /* cancelled: it only waits for its callback to return */
    if (u->phase >= PHASE_WAIT)
        enter(u, u->phase); /* the silence was ours */
    if (u->phase > PHASE_CONNECT)
        connection_wake(u->connection);
}

bool upstream_was_repeated(const struct upstream *u)
{
    return u->is_repeated;
}

int64_t upstream_connect_us(const struct upstream *u)
{
    return u->connect_us;
}
