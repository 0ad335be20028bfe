#include "usage/provider_status.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "usage/database.h"

#define REFRESH_MS 60000
#define RATE_ONE 10000    /* hundredths of a percent */
#define RATE_DEGRADED 500 /* from here on */
#define UNKNOWN INT64_C(-1)

struct state {
    uint64_t finished, failures, answers, first_byte_ms; /* the counters at the last look */
    const char *status;
    int64_t latency_ms, error_rate; /* UNKNOWN */
};

struct provider_status {
    const struct counters_region *region;
    int64_t written_at_ms; /* 0 = never, or not what is known now */
    uint64_t generation;   /* of the config that was written */
    size_t count;
    struct state *states; /* by the provider's index in the counters */
};

struct provider_status *provider_status_new(const struct counters_region *region)
{
    struct provider_status *p = calloc(1, sizeof(*p));

    if (p != NULL)
        p->region = region;
    return p;
}

void provider_status_free(struct provider_status *p)
{
    if (p == NULL)
        return;
    free(p->states);
    free(p);
}

/* Providers are added by a reload and never removed. */
static int grow(struct provider_status *p)
{
    size_t count = p->count;
    struct state *grown;

    while (counters_provider_name(p->region, count) != NULL)
        count++;
    if (count == p->count)
        return 0;
    grown = reallocarray(p->states, count, sizeof(*grown));
    if (grown == NULL)
        return -ENOMEM;
    for (size_t i = p->count; i < count; i++)
        grown[i] = (struct state){.status = "unused", .latency_ms = UNKNOWN, .error_rate = UNKNOWN};
    p->states = grown;
    p->count = count;
    return 0;
}

static uint64_t load(const _Atomic uint64_t *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

static const char *judge(int64_t error_rate)
{
    return error_rate >= RATE_ONE ? "down" : error_rate >= RATE_DEGRADED ? "degraded" : "ok";
}

/* True if something has changed. */
static bool update(struct state *s, const struct provider_counters *now)
{
    struct state next = *s;
    uint64_t finished, failures, answers;

    next.finished = load(&now->finished_total);
    next.failures = load(&now->failures_total);
    next.answers = load(&now->answers_total);
    next.first_byte_ms = load(&now->first_byte_ms_total);
    finished = next.finished - s->finished;
    failures = next.failures - s->failures;
    answers = next.answers - s->answers;
    if (finished > 0) {
        /* The words are read one after the other, while they grow. */
        next.error_rate =
            failures < finished ? (int64_t)(failures * RATE_ONE / finished) : RATE_ONE;
        next.status = judge(next.error_rate);
    }
    if (answers > 0)
        next.latency_ms = (int64_t)((next.first_byte_ms - s->first_byte_ms) / answers);
    if (next.status == s->status && next.error_rate == s->error_rate &&
        next.latency_ms == s->latency_ms) {
        *s = next;
        return false;
    }
    *s = next;
    return true;
}

static bool look(struct provider_status *p)
{
    bool is_new = false;

    for (size_t i = 0; i < p->count; i++) {
        struct provider_counters sum;

        counters_sum_provider(p->region, i, &sum);
        is_new |= update(&p->states[i], &sum);
    }
    return is_new;
}

static void bind_known(sqlite3_stmt *stmt, int column, int64_t value)
{
    if (value == UNKNOWN)
        sqlite3_bind_null(stmt, column);
    else
        sqlite3_bind_int64(stmt, column, value);
}

static int write_row(sqlite3_stmt *stmt, const struct provider_status *p, const char *provider,
                     const char *model, int64_t now_at_ms)
{
    static const struct state nothing = {
        .status = "unused", .latency_ms = UNKNOWN, .error_rate = UNKNOWN};
    int index = counters_find_provider(p->region, provider);
    const struct state *s = index >= 0 && (size_t)index < p->count ? &p->states[index] : &nothing;
    char id[2 * COUNTERS_NAME_BYTES + 2];

    snprintf(id, sizeof(id), "%s/%s", provider, model);
    sqlite3_bind_text(stmt, 1, id, -1, SQLITE_STATIC);
    sqlite3_bind_text(stmt, 2, provider, -1, SQLITE_STATIC);
    sqlite3_bind_text(stmt, 3, model, -1, SQLITE_STATIC);
    sqlite3_bind_text(stmt, 4, s->status, -1, SQLITE_STATIC);
    bind_known(stmt, 5, s->latency_ms);
    bind_known(stmt, 6, s->error_rate);
    sqlite3_bind_int64(stmt, 7, now_at_ms);
    return database_step(stmt);
}

static int write_rows(struct provider_status *p, sqlite3 *db, const struct config *config,
                      int64_t now_at_ms)
{
    sqlite3_stmt *stmt = NULL;
    char forget[96];
    int rc = database_prepare(
        db, "INSERT OR REPLACE INTO provider_status VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)", &stmt);

    for (size_t i = 0; i < config->model_count && rc == 0; i++) {
        const struct model_config *model = &config->models[i];

        for (size_t j = 0; j < model->candidate_count && rc == 0; j++)
            rc = write_row(stmt, p, model->candidates[j].provider, model->candidates[j].model,
                           now_at_ms);
    }
    sqlite3_finalize(stmt);
    /* What the config does not name any more has kept an earlier moment. */
    snprintf(forget, sizeof(forget), "DELETE FROM provider_status WHERE updated_at <> %" PRId64,
             now_at_ms);
    return rc < 0 ? rc : database_exec(db, forget);
}

int provider_status_write(struct provider_status *p, sqlite3 *db, const struct config *config,
                          int64_t now_at_ms)
{
    int rc = grow(p);

    if (rc < 0)
        return rc;
    if (look(p) || config->generation != p->generation)
        p->written_at_ms = 0;
    if (p->written_at_ms != 0 && now_at_ms >= p->written_at_ms &&
        now_at_ms < p->written_at_ms + REFRESH_MS)
        return 0;
    rc = database_exec(db, "BEGIN IMMEDIATE");
    if (rc == 0)
        rc = write_rows(p, db, config, now_at_ms);
    if (rc == 0)
        rc = database_exec(db, "COMMIT");
    if (rc < 0) {
        database_rollback(db);
        return rc;
    }
    p->written_at_ms = now_at_ms;
    p->generation = config->generation;
    return 1;
}
