#include "usage/writer.h"

#include <errno.h>
#include <string.h>

#include "common/log.h"
#include "usage/group.h"
#include "usage/ledger.h"
#include "usage/state_paths.h"
#include "usage/takeover.h"

/* What takeover.h commits with. */
struct recovery {
    struct ledger *ledger;
    struct group *group;
    uint64_t wal_bytes;
};

/* A start does not wait for a program that reads the database: the log grows instead. */
static int commit(void *arg)
{
    const struct recovery *r = arg;
    int rc = ledger_make_room(r->ledger, r->wal_bytes);

    return rc < 0 && rc != -EBUSY ? rc : group_commit(r->group);
}

/* Rings whose cursors make no sense: their events cannot be told from garbage. */
static int check_rings(struct outbox_region *outbox)
{
    int rc = 0;

    for (size_t slot = 0; slot < outbox_slot_count(outbox); slot++) {
        if (outbox_is_sane(outbox_slot(outbox, slot)))
            continue;
        log_event(LOG_ERROR, "ring_damaged", "", "slot %zu: the ring's cursors make no sense",
                  slot);
        rc = -EBADMSG;
    }
    return rc;
}

static int drain_rings(struct takeover *t)
{
    int rc = 0;

    while (rc == 0 && !takeover_is_done(t)) {
        takeover_rings(t, true);
        if (group_is_empty(t->group))
            return -ENOMEM; /* something is left and could not be held */
        while (rc == 0 && !group_is_empty(t->group))
            rc = t->commit(t->arg);
    }
    return rc;
}

static int drain_spool(struct takeover *t)
{
    int rc;

    do {
        rc = takeover_spool(t);
    } while (rc == 1);
    return rc;
}

static int recover(const struct state_paths *paths, struct ledger *ledger, uint64_t wal_bytes,
                   struct outbox_region *outbox, struct counters *counters)
{
    const struct group_setup setup = {ledger, outbox, counters, paths->dead_letters};
    struct group *group = group_new(&setup);
    struct recovery recovery = {ledger, group, wal_bytes};
    struct takeover takeover = {
        .outbox = outbox,
        .group = group,
        .counters = counters,
        .spool_dir = paths->spool,
        .commit = commit,
        .arg = &recovery,
    };
    int rc = group != NULL ? drain_rings(&takeover) : -ENOMEM;

    if (rc == 0)
        rc = drain_spool(&takeover);
    group_free(group);
    if (rc < 0)
        log_event(LOG_ERROR, "recovery_failed", "", "usage of the last run cannot be committed: %s",
                  strerror(-rc));
    else
        rc = check_rings(outbox);
    return rc;
}

int writer_recover(const struct config *config, struct outbox_region *outbox, uint64_t *events)
{
    char why[DATABASE_WHY_BYTES];
    struct state_paths paths;
    struct counters counters = {0};
    struct ledger *ledger;
    int rc = state_paths_set(&paths, config);

    *events = 0;
    if (rc < 0) {
        log_event(LOG_ERROR, "recovery_failed", "", "%s: %s", config->state_dir, strerror(-rc));
        return rc;
    }
    rc = ledger_open(paths.database, &ledger, why);
    if (rc < 0) {
        log_event(LOG_ERROR, "recovery_failed", "", "%s: %s", paths.database, why);
        return rc;
    }
    rc = recover(&paths, ledger, config->wal_bytes, outbox, &counters);
    *events = counters.events_committed_total;
    ledger_close(ledger);
    return rc;
}
