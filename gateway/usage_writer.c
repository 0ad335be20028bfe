#include "gateway/child.h"

#include "usage/writer.h"

#define DRAIN_TURN_MS 5
#define ORPHAN_TURN_MS 50

struct usage_writer {
    struct child *child;
    struct writer *writer;
    struct open_requests requests;
    struct config *config;
    bool draining;
    int64_t deadline_ms; /* of the drain, 0 = none */
};

static void on_config(void *arg, struct config *config)
{
    struct usage_writer *u = arg;

    writer_set_config(u->writer, config);
    config_unref(u->config);
    u->config = config;
}

static void on_drain(void *arg, int64_t deadline_ms)
{
    struct usage_writer *u = arg;

    u->draining = true;
    u->deadline_ms = deadline_ms;
}

static bool is_late(const struct usage_writer *u)
{
    return u->deadline_ms != 0 && loop_now_ms(child_loop(u->child)) >= u->deadline_ms;
}

static int64_t on_turn(void *arg)
{
    struct usage_writer *u = arg;
    int64_t next_ms;

    writer_turn(u->writer);
    next_ms = writer_next_ms(u->writer);
    if (!u->draining)
        return next_ms;
    /* Without a master nobody holds us back until the workers have had their say. */
    if (child_is_orphan(u->child) && child_sees_alive(u->child, ROLE_WORKER) && !is_late(u))
        return next_ms < 0 || next_ms > ORPHAN_TURN_MS ? ORPHAN_TURN_MS : next_ms;
    if (writer_drain(u->writer) || is_late(u))
        return CHILD_EXIT;
    return next_ms < 0 || next_ms > DRAIN_TURN_MS ? DRAIN_TURN_MS : next_ms;
}

static int open_writer(struct usage_writer *u, const struct child_setup *setup)
{
    const struct writer_setup writer = {
        .config = u->config,
        .loop = child_loop(u->child),
        .outbox = setup->instance->outbox,
        .keys = setup->instance->keys,
        .accounts = setup->instance->accounts,
        .idempotency = setup->instance->idempotency,
        .calibration = setup->instance->calibration,
        .requests = &u->requests,
        .counters = counters_slot(setup->instance->counters, setup->slot),
        .start_id = shm_start_id(setup->instance->shm),
        .region = setup->instance->counters,
    };

    return writer_open(&writer, &u->writer);
}

int usage_writer_main(const struct child_setup *setup)
{
    static const struct child_ops ops = {
        .on_config = on_config,
        .on_drain = on_drain,
        .on_turn = on_turn,
    };
    struct usage_writer u = {
        .config = config_ref(setup->config),
        .requests = {.each = inflight_each_open, .arg = setup->instance->inflight},
    };
    int status = 1;

    u.child = child_new(setup, ROLE_WRITER);
    if (u.child != NULL && open_writer(&u, setup) == 0) {
        child_ready(u.child);
        status = child_run(u.child, &ops, &u);
    }
    writer_close(u.writer);
    child_free(u.child);
    config_unref(u.config);
    return status;
}
