#include "gateway/processes.h"

#include <assert.h>
#include <string.h>

#define ROLES_ONCE 3 /* usage-writer, helper, master: one row each behind the workers' */

struct processes_region {
    uint32_t worker_slots;
    uint32_t reserved;
    struct instance_row instance;
    struct process_row rows[];
};

static const char *const role_names[] = {
    [ROLE_WORKER] = "worker",
    [ROLE_WRITER] = "usage-writer",
    [ROLE_HELPER] = "helper",
    [ROLE_MASTER] = "master",
};

static const char *const state_names[] = {
    [PROCESS_NONE] = "none",         [PROCESS_STARTING] = "starting", [PROCESS_READY] = "ready",
    [PROCESS_DRAINING] = "draining", [PROCESS_DEAD] = "dead",
};

static uint64_t layout(void)
{
    const uint64_t sizes[] = {
        1,
        sizeof(struct processes_region),
        sizeof(struct instance_row),
        sizeof(struct process_row),
        offsetof(struct process_row, heartbeat_ms),
        offsetof(struct instance_row, http),
    };

    return shm_layout_hash(0, sizes, sizeof(sizes));
}

struct shm_region_spec processes_region_spec(size_t worker_slots)
{
    struct shm_region_spec spec = {
        .name = PROCESSES_REGION,
        .bytes = sizeof(struct processes_region) +
                 (worker_slots + ROLES_ONCE) * sizeof(struct process_row),
        .layout = layout(),
    };

    return spec;
}

void processes_region_init(struct processes_region *r, size_t worker_slots)
{
    r->worker_slots = (uint32_t)worker_slots;
    for (size_t i = 0; i < processes_count(r); i++) {
        r->rows[i].slot = (uint32_t)i;
        r->rows[i].role = ROLE_WORKER;
    }
    for (uint32_t role = ROLE_WRITER; role <= ROLE_MASTER; role++)
        r->rows[process_slot(r, role)].role = role;
}

struct processes_region *processes_region_get(const struct shm *shm)
{
    size_t bytes;
    struct processes_region *r = shm_region(shm, PROCESSES_REGION, layout(), &bytes);

    if (r == NULL || bytes < sizeof(*r) ||
        (bytes - sizeof(*r)) / sizeof(struct process_row) < processes_count(r))
        return NULL;
    return r;
}

size_t processes_worker_slots(const struct processes_region *r)
{
    return r->worker_slots;
}

size_t processes_count(const struct processes_region *r)
{
    return (size_t)r->worker_slots + ROLES_ONCE;
}

struct process_row *process_row_at(struct processes_region *r, size_t slot)
{
    assert(slot < processes_count(r));
    return &r->rows[slot];
}

struct instance_row *processes_instance(struct processes_region *r)
{
    return &r->instance;
}

size_t process_slot(const struct processes_region *r, enum process_role role)
{
    assert(role >= ROLE_WRITER && role <= ROLE_MASTER);
    return r->worker_slots + (size_t)(role - ROLE_WRITER);
}

const char *process_role_name(enum process_role role)
{
    return (size_t)role < sizeof(role_names) / sizeof(role_names[0]) ? role_names[role] : "unknown";
}

const char *process_state_name(enum process_state state)
{
    return (size_t)state < sizeof(state_names) / sizeof(state_names[0]) ? state_names[state]
                                                                        : "unknown";
}
