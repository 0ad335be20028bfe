#include "gateway/worker.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/container.h"
#include "common/log.h"
#include "gateway/ask.h"
#include "gateway/chat.h"
#include "gateway/endpoints.h"
#include "router/uploads.h"

#define STOP_GRACE_MS 500 /* after the drain's deadline: for error events to reach the clients */

static void on_config(void *arg, struct config *config)
{
    struct worker *w = arg;

    if (httpd_set_config(w->httpd, config) < 0) {
        log_event(LOG_ERROR, "reload_failed", "",
                  "this worker keeps its old configuration: the new certificate cannot be used");
        config_unref(config);
        return;
    }
    config_unref(w->config);
    w->config = config;
    upstreams_close_idle(w->upstreams);
}

static void on_drain_timer(struct timer *t)
{
    struct worker *w = container_of(t, struct worker, drain_timer);

    if (w->stopping) {
        w->expired = true;
        return;
    }
    w->stopping = true;
    chat_cut_all(w, XR_EDRAINING, "The gateway is shutting down.");
    if (loop_timer_set(w->loop, t, STOP_GRACE_MS) < 0)
        w->expired = true;
}

/* deadline_ms: monotonic, 0 = none, -1 = now. */
static void on_drain(void *arg, int64_t deadline_ms)
{
    struct worker *w = arg;
    int64_t left_ms = deadline_ms - loop_now_ms(w->loop);

    if (!w->draining) {
        w->draining = true;
        httpd_drain(w->httpd);
    }
    if (w->stopping)
        return; /* the clients have been told, and there is no stricter order */
    loop_timer_cancel(w->loop, &w->drain_timer);
    if (deadline_ms == 0)
        return;
    if (loop_timer_set(w->loop, &w->drain_timer, deadline_ms == -1 || left_ms < 0 ? 0 : left_ms) <
        0)
        on_drain_timer(&w->drain_timer);
}

static void on_control(void *arg, const struct control *message)
{
    struct worker *w = arg;

    if (message->type == CONTROL_KILL)
        w->has_killed = true;
}

static int64_t on_turn(void *arg)
{
    struct worker *w = arg;
    bool is_counting;

    if (w->has_killed) {
        w->has_killed = false;
        chat_cut_killed(w);
    }
    is_counting = counting_turn(&w->counting);
    httpd_run(w->httpd); /* resumed connections move here */
    usage_sender_flush(w->sender);
    if (w->draining &&
        (w->expired || (httpd_open_requests(w->httpd) == 0 && w->engine.removals == NULL)))
        return CHILD_EXIT;
    return is_counting ? 0 : httpd_next_ms(w->httpd);
}

static const struct child_ops worker_ops = {
    .on_config = on_config,
    .on_drain = on_drain,
    .on_control = on_control,
    .on_turn = on_turn,
};

static int open_asker(struct worker *w)
{
    char *path;
    int rc;

    if (asprintf(&path, "%s/writer.sock", w->config->runtime_dir) < 0)
        return -ENOMEM;
    rc = asker_new(w->loop, path, &w->asker);
    free(path);
    return rc;
}

static int open_worker(struct worker *w)
{
    const struct child_setup *setup = w->setup;
    struct instance *instance = setup->instance;
    struct httpd_setup http = {
        .loop = w->loop,
        .counters = w->counters,
        .keys = instance->keys,
        .limits = instance->limits,
        .ids = inflight_ids(instance->inflight, setup->slot),
        .slot = setup->slot,
        .config = setup->config,
        .endpoints = ENDPOINTS,
        .arg = w,
        .listen_fds = {setup->listen_http, setup->listen_https, setup->listen_ops}};
    int rc;

    inflight_slot_open(instance->inflight, setup->slot);
    rc = settlements_init(&w->settlements, w->loop, instance->inflight, instance->accounts,
                          w->outbox, setup->slot);
    if (rc < 0)
        return rc;
    rc = open_asker(w);
    if (rc < 0)
        return rc;
    w->upstreams = upstreams_new(w->loop, instance->addresses, w->counters);
    if (w->upstreams == NULL)
        return -ENOMEM;
    w->tokens = token_source_new(w->loop, w->upstreams, instance->tokens, w->counters);
    if (w->tokens == NULL)
        return -ENOMEM;
    if (asprintf(&w->usage_socket, "%s/usage.sock", w->config->runtime_dir) < 0) {
        w->usage_socket = NULL;
        return -ENOMEM;
    }
    w->sender = usage_sender_new(w->loop, w->usage_socket, w->outbox, (uint16_t)setup->slot,
                                 shm_start_id(instance->shm));
    if (w->sender == NULL)
        return -ENOMEM;
    w->handover = handover_new(instance->idempotency, w->counters, (uint16_t)setup->slot,
                               shm_start_id(instance->shm));
    if (w->handover == NULL)
        return -ENOMEM;
    usage_sender_set_handover(w->sender, w->handover);
    w->engine = (struct engine){.loop = w->loop,
                                .upstreams = w->upstreams,
                                .tokens = w->tokens,
                                .counters = w->counters,
                                .region = instance->counters,
                                .slot = setup->slot};
    rc = queues_new(w->loop, instance->queue, setup->slot, setup->wake_fds, &w->engine.queues);
    if (rc < 0)
        return rc;
    w->dispatcher = (struct dispatcher){
        .engine = &w->engine, .targets = instance->targets, .budget = DISPATCH_BUDGET_MAX};
    rc = inquirer_new(&(struct inquirer_setup){.engine = &w->engine,
                                               .facts = instance->facts,
                                               .targets = instance->targets,
                                               .config = &w->config},
                      &w->inquirer);
    if (rc < 0)
        return rc;
    return httpd_new(&http, &w->httpd);
}

/* In this order: requests first, they hold attempts, which hold connections. */
static void close_worker(struct worker *w)
{
    httpd_free(w->httpd);
    uploads_give_up(&w->engine);
    inquirer_free(w->inquirer);
    queues_free(w->engine.queues);
    asker_free(w->asker);
    token_source_free(w->tokens);
    upstreams_free(w->upstreams);
    settlements_clear(&w->settlements);
    usage_sender_free(w->sender);
    handover_free(w->handover);
    free(w->usage_socket);
    loop_timer_cancel(w->loop, &w->drain_timer);
    config_unref(w->config);
}

int worker_main(const struct child_setup *setup)
{
    struct worker w = {.setup = setup, .drain_timer = {.on_timer = on_drain_timer}};
    int status = 1;
    int rc;

    w.child = child_new(setup, ROLE_WORKER);
    if (w.child == NULL)
        return 1;
    w.loop = child_loop(w.child);
    w.config = config_ref(setup->config);
    w.counters = counters_slot(setup->instance->counters, setup->slot);
    w.outbox = outbox_slot(setup->instance->outbox, setup->slot);
    /* Now its events travel by the socket; the reaper gives the ring back to the writer. */
    outbox_set_owner(w.outbox, (uint32_t)getpid());
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        log_event(LOG_ERROR, "worker_failed", "", "libcurl cannot be initialised");
        rc = -EIO;
    } else {
        rc = open_worker(&w);
    }
    if (rc == 0) {
        child_ready(w.child);
        status = child_run(w.child, &worker_ops, &w);
    } else {
        log_event(LOG_ERROR, "worker_failed", "", "the worker cannot start: %s", strerror(-rc));
    }
    close_worker(&w);
    child_free(w.child);
    return status;
}
