/* processes.h - the processes of the instance, one row each in shared memory.
 *
 * Slots: 0..workers-1 (room for twice as many, for an upgrade), then usage-writer, helper, master.
 * The same numbers index counters, in-flight rows and rings. The master stores pid and state; each
 * process stores its own heartbeat, once a turn. */
#ifndef XROUTER_GATEWAY_PROCESSES_H
#define XROUTER_GATEWAY_PROCESSES_H

#include <stdatomic.h>
#include <stdint.h>

#include "common/shm.h"

#define PROCESSES_REGION "processes"

enum process_role { ROLE_WORKER, ROLE_WRITER, ROLE_HELPER, ROLE_MASTER };
enum process_state {
    PROCESS_NONE,
    PROCESS_STARTING,
    PROCESS_READY,
    PROCESS_DRAINING,
    PROCESS_DEAD
};

struct process_row {
    uint32_t role; /* enum process_role */
    uint32_t slot;
    _Atomic uint32_t pid; /* 0 = none */
    _Atomic uint32_t state;
    _Atomic int64_t heartbeat_ms; /* monotonic, last turn */
    _Atomic int64_t started_ms;   /* monotonic */
    _Atomic uint32_t generation;  /* +1 at each start */
    uint32_t reserved;
};

struct instance_row {
    _Atomic int64_t started_at_ms;
    _Atomic int64_t started_ms;
    _Atomic uint32_t state; /* of the instance: starting, ready, draining */
    uint32_t workers;
    char version[32];
    char http[64], https[64], ops[64]; /* real listening addresses, "" = off */
    char config_file[256];
};

struct processes_region; /* in shared memory; opaque */

struct shm_region_spec processes_region_spec(size_t worker_slots);
void processes_region_init(struct processes_region *r, size_t worker_slots);
struct processes_region *processes_region_get(const struct shm *shm);
size_t processes_worker_slots(const struct processes_region *r);
size_t processes_count(const struct processes_region *r); /* worker slots + 3 */
struct process_row *process_row_at(struct processes_region *r, size_t slot);
struct instance_row *processes_instance(struct processes_region *r);
size_t process_slot(const struct processes_region *r, enum process_role role); /* not for workers */
const char *process_role_name(enum process_role role);
const char *process_state_name(enum process_state state);

#endif
