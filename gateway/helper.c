#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "gateway/child.h"
#include "gateway/log_writer.h"
#include "gateway/resolver.h"
#include "gateway/spooler.h"

#define DRAIN_TURN_MS 10
#define ORPHAN_TURN_MS 50
#define PATH_BYTES 4096

/* The blocking chores, each in threads of its own; the loop only gives orders and is never held. */
struct helper {
    struct child *child;
    struct config *config;
    struct counters *counters;
    struct resolver *resolver;
    struct spooler *spooler;
    struct log_writer *log_writer;
    uint64_t lost_seen;
    bool draining, finishing_spool, finishing_log;
    int64_t deadline_ms; /* of the drain, 0 = none */
};

static void on_config(void *arg, struct config *config)
{
    struct helper *h = arg;

    config_unref(h->config);
    h->config = config;
    resolver_look(h->resolver, false);
}

static void on_drain(void *arg, int64_t deadline_ms)
{
    struct helper *h = arg;

    h->draining = true;
    h->deadline_ms = deadline_ms;
}

static void on_control(void *arg, const struct control *message)
{
    struct helper *h = arg;

    if (message->type == CONTROL_REOPEN_LOGS)
        log_writer_reopen(h->log_writer);
}

static void note_lost_lines(struct helper *h)
{
    uint64_t lost = log_writer_lost(h->log_writer);

    counter_add(&h->counters->log_lines_dropped_total, lost - h->lost_seen);
    h->lost_seen = lost;
}

static bool is_late(const struct helper *h)
{
    return h->deadline_ms > 0 && loop_now_ms(child_loop(h->child)) >= h->deadline_ms;
}

/* Events first, so that what there is to say about them still reaches the log. */
static int64_t drain_turn(struct helper *h)
{
    /* Without a master nobody holds us back until the others have had their say. */
    if (child_is_orphan(h->child) && !is_late(h) &&
        (child_sees_alive(h->child, ROLE_WORKER) || child_sees_alive(h->child, ROLE_WRITER)))
        return ORPHAN_TURN_MS;
    if (!h->finishing_spool) {
        h->finishing_spool = true;
        spooler_finish(h->spooler);
    }
    if (spooler_is_done(h->spooler) && !h->finishing_log) {
        h->finishing_log = true;
        log_writer_finish(h->log_writer);
    }
    if (h->finishing_log && log_writer_is_done(h->log_writer))
        return CHILD_EXIT;
    return DRAIN_TURN_MS;
}

static int64_t on_turn(void *arg)
{
    struct helper *h = arg;

    note_lost_lines(h);
    return h->draining ? drain_turn(h) : -1;
}

static int start_chores(struct helper *h, const struct child_setup *setup)
{
    char spool_dir[PATH_BYTES];

    h->counters = counters_slot(setup->instance->counters, setup->slot);
    h->log_writer = log_writer_new(setup->log_error_read, h->config->log_error_file,
                                   setup->log_access_read, h->config->log_access_file);
    if (h->log_writer == NULL) {
        log_event(LOG_ERROR, "helper_failed", "", "the log files cannot be opened: %s",
                  strerror(errno));
        return -errno;
    }
    if (snprintf(spool_dir, sizeof(spool_dir), "%s/spool", h->config->state_dir) >=
        (int)sizeof(spool_dir))
        errno = ENAMETOOLONG;
    else
        h->spooler = spooler_new(spool_dir, setup->instance->outbox);
    if (h->spooler != NULL)
        h->resolver = resolver_new(child_loop(h->child), setup->instance->addresses, h->counters);
    if (h->resolver == NULL) {
        log_event(LOG_ERROR, "helper_failed", "", "a chore cannot start: %s", strerror(errno));
        return -errno;
    }
    return 0;
}

int helper_main(const struct child_setup *setup)
{
    static const struct child_ops ops = {
        .on_config = on_config,
        .on_drain = on_drain,
        .on_control = on_control,
        .on_turn = on_turn,
    };
    struct helper h = {.config = config_ref(setup->config)};
    int status = 1;

    h.child = child_new(setup, ROLE_HELPER);
    if (h.child != NULL && start_chores(&h, setup) == 0) {
        resolver_look(h.resolver, true);
        child_ready(h.child);
        status = child_run(h.child, &ops, &h);
    }
    resolver_free(h.resolver);
    spooler_free(h.spooler);
    log_writer_free(h.log_writer);
    child_free(h.child);
    config_unref(h.config);
    return status;
}
