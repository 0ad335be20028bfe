#include "usage/takeover.h"

#include <errno.h>
#include <unistd.h>

#include "common/log.h"
#include "common/shm.h"
#include "usage/spool.h"

static void read_ring(struct takeover *t, size_t slot, struct outbox *ob)
{
    uint8_t records[OUTBOX_PACKET_MAX];
    uint64_t next = group_position(t->group, slot);

    while (next < outbox_head(ob) && !group_is_full(t->group)) {
        uint64_t from = next;
        ssize_t n = outbox_read(ob, from, records, sizeof(records), &next);

        if (n == -EBADMSG) {
            counter_inc(&t->counters->events_dead_total);
            log_event(LOG_ERROR, "ring_damaged", "",
                      "slot %zu: what lies from %llu to %llu are no usage records and is skipped",
                      slot, (unsigned long long)from, (unsigned long long)next);
            n = 0;
        }
        if (n < 0 || next <= from || group_add(t->group, slot, next, records, (size_t)n) < 0)
            return; /* again next time */
    }
}

void takeover_rings(struct takeover *t, bool all)
{
    for (size_t slot = 0; slot < outbox_slot_count(t->outbox); slot++) {
        struct outbox *ob = outbox_slot(t->outbox, slot);

        if ((all || outbox_owner(ob) == 0) && outbox_is_sane(ob))
            read_ring(t, slot, ob);
    }
}

bool takeover_is_done(const struct takeover *t)
{
    for (size_t slot = 0; slot < outbox_slot_count(t->outbox); slot++) {
        struct outbox *ob = outbox_slot(t->outbox, slot);

        if (outbox_is_sane(ob) && outbox_tail(ob) < outbox_head(ob))
            return false;
    }
    return true;
}

/* ---- spool files ---- */

struct scan {
    struct takeover *takeover;
    uint64_t records; /* of the current file */
    int rc;           /* 1 = a file is done, -errno = stopped by that */
};

static int on_record(void *arg, const uint8_t *record, size_t len)
{
    struct scan *scan = arg;
    struct takeover *t = scan->takeover;

    if (scan->rc != 0) /* a bad file cannot stop the scan: this is the next one's first record */
        return scan->rc;
    scan->records++;
    scan->rc = group_add_spooled(t->group, record, len);
    if (scan->rc == 0 && group_records(t->group) >= GROUP_COMMIT_RECORDS)
        scan->rc = t->commit(t->arg);
    return scan->rc;
}

static void finish_file(struct scan *scan, const char *path, bool is_bad)
{
    struct takeover *t = scan->takeover;

    if (scan->rc == 0)
        scan->rc = group_add_file(t->group, path, is_bad);
    while (scan->rc == 0 && !group_is_empty(t->group))
        scan->rc = t->commit(t->arg);
    if (scan->rc < 0)
        return;
    if (access(path, F_OK) == 0) { /* it could not be removed: now the next one, this one later */
        scan->records = 0;
        return;
    }
    counter_add(&t->counters->events_spooled_total, scan->records);
    scan->rc = 1;
}

static int on_file(void *arg, const char *path)
{
    struct scan *scan = arg;

    finish_file(scan, path, false);
    return scan->rc;
}

static void on_bad(void *arg, const char *path, const char *reason)
{
    struct scan *scan = arg;

    finish_file(scan, path, true);
    if (scan->rc == 1)
        log_event(LOG_ERROR, "spool_file_bad", "", "%s: %s; it was renamed to .bad", path, reason);
}

int takeover_spool(struct takeover *t)
{
    struct scan scan = {.takeover = t};
    const struct spool_visitor visitor = {
        .on_record = on_record, .on_file = on_file, .on_bad = on_bad, .arg = &scan};
    int rc = spool_scan(t->spool_dir, &visitor);

    return scan.rc != 0 ? scan.rc : rc;
}
