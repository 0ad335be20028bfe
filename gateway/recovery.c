#include "gateway/recovery.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>

#include "common/clock.h"
#include "common/log.h"
#include "gateway/instance.h"
#include "gateway/locks.h"
#include "usage/writer.h"

#define ORPHANS_MAX 512

int recovery_end_orphans(const char *runtime_dir)
{
    pid_t pids[ORPHANS_MAX];
    int count = locks_sharers(runtime_dir, pids, ORPHANS_MAX);
    int signalled = 0;

    for (int i = 0; i < count; i++)
        if (kill(pids[i], SIGKILL) == 0)
            signalled++;
    return count < 0 ? count : signalled;
}

static int set_aside(const struct config *config, const char *fault, struct buf *why)
{
    struct buf name;
    int rc;

    buf_init(&name, 256);
    rc = instance_set_aside(config->runtime_dir, clock_now_at_ms(), &name);
    if (rc == 0)
        log_event(LOG_ERROR, "segment_set_aside", "",
                  "the shared memory of the crashed instance cannot be read (%s): its usage events "
                  "that were not committed are kept in %s",
                  fault, buf_text(&name));
    else
        buf_printf(why, "the unreadable shared memory of a crashed instance cannot be renamed: %s",
                   strerror(-rc));
    buf_clear(&name);
    return rc;
}

int recovery_attach(const struct config *config, struct instance *old, struct buf *why)
{
    const char *fault;
    size_t reaped = 0;
    int rc = instance_attach(old, config->runtime_dir, &fault);

    if (rc == -ENOENT)
        return 0;
    if (rc == -EPROTO)
        return set_aside(config, fault, why);
    if (rc < 0) {
        buf_printf(why, "the shared memory of a crashed instance: %s", strerror(-rc));
        return rc;
    }
    for (size_t i = 0; i < inflight_slot_count(old->inflight); i++)
        reaped += inflight_reap(old->inflight, i, outbox_slot(old->outbox, i), NULL, old->counters,
                                clock_now_at_ms());
    log_event(LOG_WARN, "recovery", "",
              "the last instance did not stop in order: %zu requests settled for its workers",
              reaped);
    return 1;
}

int recovery_main(const struct config *config, struct instance *old)
{
    uint64_t events = 0;
    int lock, rc;

    log_init("recovery", -1, LOG_INFO);
    /* A transaction that dies is rolled back, so there is nothing to wait for. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) == -1)
        return 1;
    /* Held until the end: another start must not open the database meanwhile. */
    lock = locks_share(config->runtime_dir);
    if (lock < 0) {
        log_event(LOG_ERROR, "recovery_failed", "", "cannot take the children's lock: %s",
                  strerror(-lock));
        return 1;
    }
    rc = writer_recover(config, old->outbox, &events);
    if (rc < 0) {
        log_event(LOG_ERROR, "recovery_failed", "",
                  "usage events of the crashed instance cannot be written: %s", strerror(-rc));
        return 1;
    }
    log_event(LOG_INFO, "recovered", "", "%llu usage events of the last instance were recovered",
              (unsigned long long)events);
    return 0;
}
