#include "providers/connector.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/container.h"
#include "common/log.h"

/* A socket that libcurl is connecting. */
struct watch {
    struct event_source source;
    struct connector *connector;
    int fd;
};

static void tell_outcomes(struct connector *connector)
{
    CURLMsg *msg;
    int left;

    connector->is_busy = true;
    while ((msg = curl_multi_info_read(connector->multi, &left)) != NULL)
        if (msg->msg == CURLMSG_DONE)
            connector->on_outcome(msg->easy_handle, msg->data.result);
    connector->is_busy = false;
}

static void on_event(struct event_source *src, uint32_t events)
{
    struct watch *w = container_of(src, struct watch, source);
    struct connector *connector = w->connector;
    int bits = 0;
    int running;

    if ((events & EPOLLIN) != 0)
        bits |= CURL_CSELECT_IN;
    if ((events & EPOLLOUT) != 0)
        bits |= CURL_CSELECT_OUT;
    if ((events & (EPOLLERR | EPOLLHUP)) != 0)
        bits |= CURL_CSELECT_ERR;
    /* It may free w. */
    curl_multi_socket_action(connector->multi, w->fd, bits, &running);
    tell_outcomes(connector);
}

static void on_timer(struct timer *t)
{
    struct connector *connector = container_of(t, struct connector, timer);
    int running;

    curl_multi_socket_action(connector->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    tell_outcomes(connector);
}

/* An error returned to libcurl from its callbacks would spoil the multi handle for all connections
 * in it; so a socket that cannot be watched runs into its time limit. */
static void report(int rc)
{
    log_event(LOG_ERROR, "upstream_watch_failed", "", "cannot watch a connection being made: %s",
              strerror(-rc));
}

static int set_timer(CURLM *multi, long timeout_ms, void *arg)
{
    struct connector *connector = arg;
    int rc;

    if (timeout_ms < 0) {
        loop_timer_cancel(connector->loop, &connector->timer);
        return 0;
    }
    rc = loop_timer_set(connector->loop, &connector->timer, timeout_ms);
    if (rc < 0)
        report(rc);
    return 0;
}

static int watch_add(struct connector *connector, int fd, uint32_t events)
{
    struct watch *w = calloc(1, sizeof(*w));
    int rc;

    if (w == NULL)
        return -ENOMEM;
    *w = (struct watch){.source = {.on_event = on_event}, .connector = connector, .fd = fd};
    rc = loop_add(connector->loop, fd, events, &w->source);
    if (rc < 0) {
        free(w);
        return rc;
    }
    curl_multi_assign(connector->multi, fd, w);
    return 0;
}

static int set_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *watch)
{
    struct connector *connector = arg;
    struct watch *w = watch;
    uint32_t events = 0;
    int rc;

    if (what == CURL_POLL_REMOVE) {
        if (w != NULL)
            loop_remove(connector->loop, fd, &w->source);
        free(w);
        return 0;
    }
    if ((what & CURL_POLL_IN) != 0)
        events |= EPOLLIN;
    if ((what & CURL_POLL_OUT) != 0)
        events |= EPOLLOUT;
    if (w != NULL)
        rc = loop_modify(connector->loop, fd, events, &w->source);
    else
        rc = watch_add(connector, fd, events);
    if (rc < 0)
        report(rc);
    return 0;
}

struct connector *connector_new(struct loop *loop, connector_outcome_fn on_outcome)
{
    struct connector *connector = calloc(1, sizeof(*connector));

    if (connector == NULL)
        return NULL;
    connector->loop = loop;
    connector->on_outcome = on_outcome;
    connector->timer.on_timer = on_timer;
    connector->multi = curl_multi_init();
    if (connector->multi == NULL) {
        free(connector);
        return NULL;
    }
    curl_multi_setopt(connector->multi, CURLMOPT_SOCKETFUNCTION, set_socket);
    curl_multi_setopt(connector->multi, CURLMOPT_SOCKETDATA, connector);
    curl_multi_setopt(connector->multi, CURLMOPT_TIMERFUNCTION, set_timer);
    curl_multi_setopt(connector->multi, CURLMOPT_TIMERDATA, connector);
    return connector;
}

void connector_free(struct connector *connector)
{
    assert(!connector->is_busy && connector->count == 0);
    curl_multi_cleanup(connector->multi); /* may still call set_timer() */
    loop_timer_cancel(connector->loop, &connector->timer);
    free(connector);
}

int connector_add(struct connector *connector, CURL *easy)
{
    if (curl_multi_add_handle(connector->multi, easy) != CURLM_OK)
        return -ENOMEM;
    connector->count++;
    return 0;
}

void connector_remove(struct connector *connector, CURL *easy)
{
    assert(connector->count > 0);
    curl_multi_remove_handle(connector->multi, easy);
    connector->count--;
}
