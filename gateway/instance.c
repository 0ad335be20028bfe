#define _GNU_SOURCE 1 /* sched_getaffinity, CPU_COUNT */
#include "gateway/instance.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/secret.h"
#include "gateway/version.h"
#include "providers/upstream.h"

#define SECRET_SUFFIX ".secret"
#define SINGLE_PROCESSES 3 /* usage-writer, helper, master */

size_t instance_worker_count(const struct config *config)
{
    cpu_set_t set;

    if (config->workers > 0)
        return config->workers;
    if (sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 0)
        return CPU_COUNT(&set) < 128 ? (size_t)CPU_COUNT(&set) : 128;
    return 1;
}

static void *region_at(const struct shm *shm, const struct shm_region_spec *spec)
{
    return shm_region(shm, spec->name, spec->layout, NULL);
}

/* The clock may have been set back since the last start: ids that counted from zero again could
 * meet those of the same millisecond. */
static void start_ids(struct inflight_region *r, const uint8_t start_id[SHM_START_ID_BYTES])
{
    for (size_t i = 0; i < inflight_slot_count(r); i++)
        memcpy(&inflight_ids(r, i)->sequence, start_id, sizeof(uint32_t)); /* random bytes */
}

/* Slots are twice the workers: an upgrade runs two generations side by side. */
static int create_public(struct instance *in, const char *name, const struct config *config,
                         uint32_t node, const uint8_t start_id[SHM_START_ID_BYTES])
{
    size_t slots = 2 * instance_worker_count(config);
    const struct shm_region_spec specs[] = {
        counters_region_spec(slots + SINGLE_PROCESSES, config->models_max, config->providers_max),
        processes_region_spec(slots),
        inflight_region_spec(slots, config->in_flight),
        outbox_region_spec(slots, config->outbox_bytes),
        addresses_region_spec(),
        accounts_region_spec(config->keys),
        idempotency_region_spec(config->idempotency_keys),
        calibration_region_spec(config->models_max),
        targets_region_spec(config->targets_max, config->providers_max),
        queue_region_spec(config->providers_max),
        facts_region_spec(config->providers_max),
        limits_region_spec(config->keys, config->models_max, slots),
    };
    int rc = shm_create(name, 0640, specs, sizeof(specs) / sizeof(specs[0]), start_id, &in->shm);

    if (rc < 0)
        return rc;
    counters_region_init(region_at(in->shm, &specs[0]), slots + SINGLE_PROCESSES,
                         config->models_max, config->providers_max);
    processes_region_init(region_at(in->shm, &specs[1]), slots);
    inflight_region_init(region_at(in->shm, &specs[2]), slots, config->in_flight, node);
    start_ids(region_at(in->shm, &specs[2]), start_id);
    outbox_region_init(region_at(in->shm, &specs[3]), slots, config->outbox_bytes);
    addresses_region_init(region_at(in->shm, &specs[4]));
    accounts_region_init(region_at(in->shm, &specs[5]), config->keys);
    idempotency_region_init(region_at(in->shm, &specs[6]), config->idempotency_keys);
    calibration_region_init(region_at(in->shm, &specs[7]), config->models_max);
    targets_region_init(region_at(in->shm, &specs[8]), config->targets_max, config->providers_max);
    queue_region_init(region_at(in->shm, &specs[9]), config->providers_max);
    facts_region_init(region_at(in->shm, &specs[10]), config->providers_max);
    limits_region_init(region_at(in->shm, &specs[11]), config->keys, config->models_max, slots);
    return 0;
}

static int create_secret(struct instance *in, const char *name, const struct config *config,
                         const uint8_t pepper[KEY_PEPPER_BYTES],
                         const uint8_t start_id[SHM_START_ID_BYTES])
{
    const struct shm_region_spec specs[] = {
        keytable_region_spec(config->keys),
        token_lease_region_spec(),
    };
    int rc = shm_create(name, 0600, specs, sizeof(specs) / sizeof(specs[0]), start_id, &in->secret);

    if (rc < 0)
        return rc;
    keytable_region_init(region_at(in->secret, &specs[0]), config->keys, pepper);
    token_lease_region_init(region_at(in->secret, &specs[1]));
    return 0;
}

static void find_regions(struct instance *in)
{
    in->counters = counters_region_get(in->shm);
    in->processes = processes_region_get(in->shm);
    in->inflight = inflight_region_get(in->shm);
    in->outbox = outbox_region_get(in->shm);
    in->addresses = addresses_region_get(in->shm);
    in->accounts = accounts_region_get(in->shm);
    in->idempotency = idempotency_region_get(in->shm);
    in->calibration = calibration_region_get(in->shm);
    in->targets = targets_region_get(in->shm);
    in->queue = queue_region_get(in->shm);
    in->facts = facts_region_get(in->shm);
    in->limits = limits_region_get(in->shm);
    if (in->secret == NULL)
        return;
    in->keys = keytable_region_get(in->secret);
    in->tokens = token_lease_region_get(in->secret);
}

static void fill_row(struct instance_row *row, const struct config *config)
{
    atomic_store(&row->started_at_ms, clock_now_at_ms());
    atomic_store(&row->started_ms, clock_monotonic_ms());
    atomic_store(&row->state, PROCESS_STARTING);
    row->workers = (uint32_t)instance_worker_count(config);
    snprintf(row->version, sizeof(row->version), "%s", XROUTER_VERSION);
    snprintf(row->config_file, sizeof(row->config_file), "%s", config->file);
}

static int explain_create(struct buf *why, const char *name, int rc)
{
    if (rc == -ENOSPC)
        buf_printf(why,
                   "shared memory %s does not fit into /dev/shm: make it larger or lower "
                   "limits.outbox_bytes, limits.in_flight, limits.keys or limits.idempotency_keys",
                   name);
    else
        buf_printf(why, "shared memory %s: %s", name, strerror(-rc));
    return rc;
}

int instance_create(struct instance *out, const struct config *config,
                    const uint8_t pepper[KEY_PEPPER_BYTES], uint32_t node, struct buf *why)
{
    char name[SHM_NAME_BYTES], secret_name[SHM_NAME_BYTES];
    uint8_t start_id[SHM_START_ID_BYTES];
    int rc;

    *out = (struct instance){0};
    rc = shm_instance_name(config->runtime_dir, "", name);
    if (rc == 0)
        rc = shm_instance_name(config->runtime_dir, SECRET_SUFFIX, secret_name);
    if (rc == 0)
        rc = secret_random(start_id, sizeof(start_id));
    if (rc < 0)
        return explain_create(why, config->runtime_dir, rc);
    rc = create_public(out, name, config, node, start_id);
    if (rc < 0)
        return explain_create(why, name, rc);
    rc = create_secret(out, secret_name, config, pepper, start_id);
    if (rc < 0) {
        shm_unlink_name(name);
        instance_close(out);
        return explain_create(why, secret_name, rc);
    }
    find_regions(out);
    fill_row(processes_instance(out->processes), config);
    return 0;
}

/* Whether the regions belong together and the rings can be read. */
static const char *old_fault(const struct instance *in)
{
    if (in->counters == NULL || in->processes == NULL || in->inflight == NULL || in->outbox == NULL)
        return "a region is missing, damaged or of another version";
    if (inflight_slot_count(in->inflight) != outbox_slot_count(in->outbox) ||
        inflight_slot_count(in->inflight) > counters_slot_count(in->counters))
        return "its regions do not fit each other";
    for (size_t i = 0; i < outbox_slot_count(in->outbox); i++)
        if (!outbox_is_sane(outbox_slot(in->outbox, i)))
            return "a ring of usage events is damaged";
    return NULL;
}

int instance_attach(struct instance *out, const char *runtime_dir, const char **fault)
{
    char name[SHM_NAME_BYTES];
    int rc;

    *out = (struct instance){0};
    *fault = NULL;
    rc = shm_instance_name(runtime_dir, "", name);
    if (rc < 0)
        return rc;
    rc = shm_attach(name, true, &out->shm, fault);
    if (rc < 0)
        return rc;
    find_regions(out);
    *fault = old_fault(out);
    if (*fault == NULL)
        return 0;
    instance_close(out);
    return -EPROTO;
}

void instance_close(struct instance *in)
{
    shm_close(in->shm);
    shm_close(in->secret);
    *in = (struct instance){0};
}

int instance_unlink(const char *runtime_dir)
{
    static const char *const suffixes[] = {"", SECRET_SUFFIX};
    int first = 0;

    for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
        char name[SHM_NAME_BYTES];
        int rc = shm_instance_name(runtime_dir, suffixes[i], name);

        if (rc == 0)
            rc = shm_unlink_name(name);
        if (rc < 0 && first == 0)
            first = rc;
    }
    return first;
}

int instance_set_aside(const char *runtime_dir, int64_t now_at_ms, struct buf *new_name)
{
    char name[SHM_NAME_BYTES], suffix[40], aside[SHM_NAME_BYTES];
    int rc = shm_instance_name(runtime_dir, "", name);

    if (rc < 0)
        return rc;
    snprintf(suffix, sizeof(suffix), ".broken-%lld", (long long)(now_at_ms / 1000));
    rc = shm_instance_name(runtime_dir, suffix, aside);
    if (rc == 0)
        rc = shm_rename_name(name, aside);
    return rc < 0 ? rc : buf_printf(new_name, "/dev/shm%s", aside);
}

static bool is_numeric(const char *host)
{
    unsigned char bytes[sizeof(struct in6_addr)];

    return inet_pton(AF_INET, host, bytes) == 1 || inet_pton(AF_INET6, host, bytes) == 1;
}

static int register_host(struct instance *in, const char *url, struct buf *why)
{
    struct url_parts parts;
    int rc = url_split(url, &parts);

    if (rc < 0) {
        buf_printf(why, "\"%s\" is not a URL", url);
        return rc;
    }
    if (is_numeric(parts.host))
        return 0;
    rc = addresses_register(in->addresses, parts.host);
    if (rc < 0)
        buf_printf(why, "the host %s of a provider has no room: %s (at most %d hosts)", parts.host,
                   strerror(-rc), ADDRESSES_HOSTS_MAX);
    return rc;
}

static int register_provider(struct instance *in, const struct provider_config *p,
                             const struct config *config, struct buf *why)
{
    int rc = counters_register_provider(in->counters, p->name);

    if (rc < 0) {
        buf_printf(why, "provider \"%s\" does not fit into limits.providers (%u): %s", p->name,
                   config->providers_max, strerror(-rc));
        return rc;
    }
    rc = register_host(in, p->base_url, why);
    return rc < 0 || p->auth_url[0] == '\0' ? rc : register_host(in, p->auth_url, why);
}

static int register_model(struct instance *in, const struct model_config *model,
                          const struct config *config, struct buf *why)
{
    int rc = counters_register_model(in->counters, model->id);

    if (rc < 0) {
        buf_printf(why, "model \"%s\" does not fit into limits.models (%u): %s", model->id,
                   config->models_max, strerror(-rc));
        return rc;
    }
    for (size_t i = 0; i < model->candidate_count; i++) {
        const struct candidate_config *candidate = &model->candidates[i];

        rc = targets_register(in->targets, candidate->provider, candidate->model);
        if (rc >= 0)
            continue;
        buf_printf(why, "the model %s of provider %s does not fit into limits.targets (%u): %s",
                   candidate->model, candidate->provider, config->targets_max, strerror(-rc));
        return rc;
    }
    return 0;
}

int instance_register(struct instance *in, const struct config *config, struct buf *why)
{
    int rc = 0;

    for (size_t i = 0; i < config->provider_count && rc >= 0; i++)
        rc = register_provider(in, &config->providers[i], config, why);
    for (size_t i = 0; i < config->model_count && rc >= 0; i++)
        rc = register_model(in, &config->models[i], config, why);
    return rc < 0 ? rc : 0;
}

static bool is_settled(const struct instance *in, size_t slot)
{
    for (size_t i = 0; i < inflight_row_count(in->inflight); i++) {
        struct inflight_row *row = inflight_row_at(in->inflight, slot, i);
        uint32_t state = atomic_load_explicit(&row->state, memory_order_acquire);

        if (state != INFLIGHT_FREE && state != INFLIGHT_SETTLED)
            return false;
    }
    return true;
}

bool instance_is_drained(const struct instance *in)
{
    for (size_t i = 0; i < inflight_slot_count(in->inflight); i++)
        if (!is_settled(in, i))
            return false;
    for (size_t i = 0; i < outbox_slot_count(in->outbox); i++) {
        const struct outbox *ob = outbox_slot(in->outbox, i);

        if (outbox_head(ob) > outbox_tail(ob))
            return false;
    }
    return true;
}
