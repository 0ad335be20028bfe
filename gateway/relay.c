#include "gateway/relay.h"

#include <string.h>

#include "common/container.h"

static void start(struct relay *r)
{
    if (r->started)
        return;
    r->started = true;
    r->on_start(r);
    http_answer_stream(r->request, 200, "text/event-stream");
}

static void on_ping(struct timer *t)
{
    struct relay *r = container_of(t, struct relay, ping);

    if (r->pending.len == 0) {
        buf_str(&r->pending, ": ping\n\n");
        start(r);
        http_wake(r->request);
    }
    relay_watch(r);
}

void relay_init(struct relay *r, struct loop *loop, struct http_request *request,
                void (*on_start)(struct relay *r))
{
    memset(r, 0, sizeof(*r));
    r->request = request;
    r->loop = loop;
    r->on_start = on_start;
    r->ping.on_timer = on_ping;
    buf_init(&r->pending, RELAY_PENDING_MAX);
}

void relay_watch(struct relay *r)
{
    /* Without memory for the timer there is no ping: the answer still comes. */
    (void)loop_timer_set(r->loop, &r->ping, r->request->config->stream_ping_ms);
}

void relay_clear(struct relay *r)
{
    loop_timer_cancel(r->loop, &r->ping);
    buf_clear(&r->pending);
}

void relay_on_output(struct relay *r)
{
    /* The first output ends the pinging: from here on the provider's own idle timeout watches. */
    loop_timer_cancel(r->loop, &r->ping);
    if (!r->paused && r->dispatch != NULL && r->pending.len >= RELAY_HIGH_WATER) {
        r->paused = true;
        dispatch_pause(r->dispatch);
    }
    start(r);
    http_wake(r->request);
}

bool relay_end(struct relay *r, const struct error *e)
{
    loop_timer_cancel(r->loop, &r->ping);
    r->dispatch = NULL;
    r->ended = true;
    r->failed = e != NULL;
    if (!r->started)
        return false;
    if (e != NULL) {
        buf_str(&r->pending, "data: ");
        error_encode(e, &r->pending);
        buf_str(&r->pending, "\n\n");
    }
    http_wake(r->request);
    return true;
}

ssize_t relay_read(struct relay *r, char *dst, size_t max)
{
    size_t n = buf_take(&r->pending, dst, max);

    if (r->paused && r->dispatch != NULL && r->pending.len < RELAY_LOW_WATER) {
        r->paused = false;
        dispatch_resume(r->dispatch);
    }
    if (n > 0)
        return (ssize_t)n;
    if (!r->ended)
        return 0;
    return r->failed ? HTTP_STREAM_ABORT : HTTP_STREAM_END;
}
