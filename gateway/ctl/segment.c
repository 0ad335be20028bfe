#include "gateway/ctl/ctl.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/counters.h"
#include "common/shm.h"
#include "gateway/inflight.h"
#include "gateway/processes.h"

#define HEARTBEAT_FRESH_MS 5000
#define NAME_PREFIX "/xrouter-"

static bool is_process(uint32_t pid)
{
    return pid != 0 && (kill((pid_t)pid, 0) == 0 || errno == EPERM);
}

static bool is_running(struct processes_region *processes)
{
    struct process_row *master = process_row_at(processes, process_slot(processes, ROLE_MASTER));
    int64_t age_ms = clock_monotonic_ms() - atomic_load(&master->heartbeat_ms);

    return is_process(atomic_load(&master->pid)) && age_ms < HEARTBEAT_FRESH_MS;
}

static enum ctl_exit explain(int rc, const char *name, const char *why)
{
    switch (rc) {
    case -ENOENT:
        ctl_complain("not running");
        return CTL_NOT_RUNNING;
    case -EPROTO:
        return ctl_refuse("shared memory %s: %s", name, why);
    default:
        return ctl_refuse("shared memory %s: %s", name, strerror(-rc));
    }
}

enum ctl_exit ctl_segment_open(const struct ctl *ctl, struct ctl_segment *s)
{
    char name[SHM_NAME_BYTES] = "";
    const char *why = "";
    int rc = shm_instance_name(ctl->config->runtime_dir, "", name);

    *s = (struct ctl_segment){0};
    if (rc == 0)
        rc = shm_attach(name, false, &s->shm, &why);
    if (rc < 0)
        return explain(rc, name[0] != '\0' ? name : ctl->config->runtime_dir, why);
    s->counters = counters_region_get(s->shm);
    s->processes = processes_region_get(s->shm);
    s->inflight = inflight_region_get(s->shm);
    if (s->counters == NULL || s->processes == NULL || s->inflight == NULL) {
        ctl_segment_close(s);
        return ctl_refuse("shared memory %s: made by another version of xrouter", name);
    }
    snprintf(s->instance, sizeof(s->instance), "%.12s", name + strlen(NAME_PREFIX));
    s->running = is_running(s->processes);
    return CTL_OK;
}

void ctl_segment_close(struct ctl_segment *s)
{
    shm_close(s->shm);
    *s = (struct ctl_segment){0};
}
