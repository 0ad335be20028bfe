/* counters.h - what the instance counts, declared once: the shared-memory layout, `xrouterctl
 * stat`, /metrics and the manual all come from the lists below, so a new counter is one new line.
 *
 * Each process writes only its own slot; readers sum the slots. When a process dies the master
 * zeroes its gauges, never its counters. No lock, no atomic read-modify-write: one storer a word.
 */
#ifndef XROUTER_COMMON_COUNTERS_H
#define XROUTER_COMMON_COUNTERS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/shm.h"

/* clang-format off */
/*  field                              kind     unit            help */
#define COUNTERS(X) \
  X(connections_total,                 COUNTER, "connections",  "Client connections accepted") \
  X(connections_open,                  GAUGE,   "connections",  "Client connections open now") \
  X(requests_total,                    COUNTER, "requests",     "Requests received on the public listeners") \
  X(requests_in_flight,                GAUGE,   "requests",     "Requests admitted and not fully answered yet") \
  X(responses_2xx_total,               COUNTER, "responses",    "Answers with a 2xx status") \
  X(responses_4xx_total,               COUNTER, "responses",    "Answers with a 4xx status") \
  X(responses_5xx_total,               COUNTER, "responses",    "Answers with a 5xx status") \
  X(errors_client_total,               COUNTER, "errors",       "Failures that were the client's fault") \
  X(errors_policy_total,               COUNTER, "errors",       "Requests refused by a limit or permission") \
  X(errors_provider_total,             COUNTER, "errors",       "Failures that were a provider's fault") \
  X(errors_gateway_total,              COUNTER, "errors",       "Failures that were the gateway's fault") \
  X(errors_other_total,                COUNTER, "errors",       "Failures that were nobody's fault") \
  X(streams_total,                     COUNTER, "streams",      "Answers sent as server-sent events") \
  X(stream_chunks_total,               COUNTER, "chunks",       "Events relayed to clients") \
  X(clients_gone_total,                COUNTER, "requests",     "Clients that left before their answer was complete") \
  X(auth_failures_total,               COUNTER, "requests",     "Requests with no, an unknown, a revoked or an expired key") \
  X(tokens_input_total,                COUNTER, "tokens",       "Prompt tokens, cached ones included") \
  X(tokens_cached_total,               COUNTER, "tokens",       "Prompt tokens the provider had cached") \
  X(tokens_output_total,               COUNTER, "tokens",       "Completion tokens") \
  X(cost_nano_total,                   COUNTER, "nanocredits",  "Cost of settled requests") \
  X(wrong_key_refusals_total,          COUNTER, "requests",     "Requests refused because their address had sent too many wrong API keys") \
  X(address_refusals_total,            COUNTER, "connections",  "Connections closed at once because their address had too many") \
  X(rate_refusals_total,               COUNTER, "requests",     "Requests refused by a rate limit of their key, of the model or of the gateway") \
  X(credit_refusals_total,             COUNTER, "requests",     "Requests refused because a balance or spending limit did not cover them") \
  X(overrun_nano_total,                COUNTER, "nanocredits",  "Cost above what had been reserved for it") \
  X(recounts_total,                    COUNTER, "accounts",     "Accounts counted anew") \
  X(upstream_requests_total,           COUNTER, "requests",     "Requests sent to providers") \
  X(upstream_failures_total,           COUNTER, "requests",     "Provider requests that failed") \
  X(upstream_retries_total,            COUNTER, "requests",     "Provider requests repeated") \
  X(upstream_connects_total,           COUNTER, "connections",  "Connections opened to providers") \
  X(upstream_connections_open,         GAUGE,   "connections",  "Connections to providers open now") \
  X(upstream_connections_idle,         GAUGE,   "connections",  "Kept-alive connections to providers waiting for work") \
  X(token_refreshes_total,             COUNTER, "refreshes",    "Access tokens fetched from providers") \
  X(token_refresh_failures_total,      COUNTER, "refreshes",    "Access-token fetches that failed") \
  X(events_queued_total,               COUNTER, "events",       "Usage events put into the outbox") \
  X(events_committed_total,            COUNTER, "events",       "Usage events committed to the ledger") \
  X(events_duplicate_total,            COUNTER, "events",       "Usage events the ledger had already") \
  X(events_dead_total,                 COUNTER, "events",       "Usage events set aside in the dead-letter file") \
  X(events_spooled_total,              COUNTER, "events",       "Usage events that went through the spool") \
  X(events_reaped_total,               COUNTER, "events",       "Usage events written for dead workers") \
  X(ledger_commits_total,              COUNTER, "commits",      "Ledger transactions committed") \
  X(ledger_failures_total,             COUNTER, "commits",      "Ledger transactions that failed and are tried again") \
  X(idempotent_replays_total,          COUNTER, "requests",     "Requests answered with the stored answer of their Idempotency-Key") \
  X(idempotency_conflicts_total,       COUNTER, "requests",     "Requests refused because of their Idempotency-Key") \
  X(answers_stored_total,              COUNTER, "answers",      "Answers stored for Idempotency-Keys") \
  X(answers_dropped_total,             COUNTER, "answers",      "Answers for Idempotency-Keys that were lost, or dropped for want of room") \
  X(ledger_drift,                      GAUGE,   "drifts",       "Places where the ledger did not agree with itself when it was last verified") \
  X(ledger_verified_timestamp_seconds, GAUGE,   "seconds",      "When the ledger was last verified, Unix time") \
  X(database_damaged,                  GAUGE,   "databases",    "1 if the last check of the whole database, after an unclean stop, found it damaged") \
  X(database_checked_timestamp_seconds, GAUGE,  "seconds",      "When the whole database was last checked, Unix time") \
  X(backups_total,                     COUNTER, "backups",      "Backups made and checked") \
  X(backup_failures_total,             COUNTER, "backups",      "Backups that failed") \
  X(backup_timestamp_seconds,          GAUGE,   "seconds",      "When the last backup was complete, Unix time") \
  X(retention_rows_total,              COUNTER, "rows",         "Ledger rows deleted or folded because of their age") \
  X(ledger_failing,                    GAUGE,   "",             "1 while usage cannot be committed and waits in rings and spool") \
  X(ledger_wal_bytes,                  GAUGE,   "bytes",        "Size of the database's write-ahead log") \
  X(worker_starts_total,               COUNTER, "processes",    "Workers started") \
  X(worker_deaths_total,               COUNTER, "processes",    "Workers that died without being asked to") \
  X(watchdog_kills_total,              COUNTER, "processes",    "Workers replaced because they were silent") \
  X(reloads_total,                     COUNTER, "reloads",      "Configurations taken over") \
  X(reload_failures_total,             COUNTER, "reloads",      "Configurations refused") \
  X(resolves_total,                    COUNTER, "look-ups",     "Provider names looked up") \
  X(resolve_failures_total,            COUNTER, "look-ups",     "Provider names that could not be looked up") \
  X(log_lines_dropped_total,           COUNTER, "lines",        "Log lines dropped because the log could not keep up")

/*  field                              help */
#define HISTOGRAMS(X) \
  X(request_duration_ms,               "From the request's first byte to the answer's last") \
  X(first_byte_ms,                     "From the request's first byte to the answer's first") \
  X(gateway_overhead_ms,               "Request duration minus the time spent waiting for providers")

/*  field                              kind     unit            help */
#define MODEL_COUNTERS(X) \
  X(requests_total,                    COUNTER, "requests",     "Requests for the model") \
  X(errors_total,                      COUNTER, "requests",     "Requests for the model that failed") \
  X(tokens_input_total,                COUNTER, "tokens",       "Prompt tokens") \
  X(tokens_cached_total,               COUNTER, "tokens",       "Prompt tokens the provider had cached") \
  X(tokens_output_total,               COUNTER, "tokens",       "Completion tokens") \
  X(cost_nano_total,                   COUNTER, "nanocredits",  "Cost")

#define PROVIDER_COUNTERS(X) \
  X(requests_total,                    COUNTER, "requests",     "Requests sent to the provider") \
  X(failures_total,                    COUNTER, "requests",     "Requests the provider failed") \
  X(finished_total,                    COUNTER, "requests",     "Requests the provider has finished, well or not") \
  X(answers_total,                     COUNTER, "answers",      "Answers the provider has begun") \
  X(first_byte_ms_total,               COUNTER, "milliseconds", "From a request sent to its answer begun, added up") \
  X(in_flight,                         GAUGE,   "requests",     "Requests at the provider now")
/* clang-format on */

#define HISTOGRAM_BUCKETS 14 /* the bounds below and +Inf */
extern const uint32_t HISTOGRAM_BOUNDS_MS[HISTOGRAM_BUCKETS - 1];

struct histogram {
    _Atomic uint64_t bucket[HISTOGRAM_BUCKETS]; /* not cumulative */
    _Atomic uint64_t sum_us;
};

#define X(field, kind, unit, help) _Atomic uint64_t field;
struct model_counters {
    MODEL_COUNTERS(X)
};
struct provider_counters {
    PROVIDER_COUNTERS(X)
};
struct counters {
    COUNTERS(X)
#undef X
#define X(field, help) struct histogram field;
    HISTOGRAMS(X)
} __attribute__((aligned(64))); /* no false sharing, no locks */
#undef X

enum counter_kind { KIND_COUNTER, KIND_GAUGE };
struct counter_desc {
    const char *name;
    enum counter_kind kind;
    const char *unit;
    const char *help;
    size_t offset; /* of its word in the struct */
};
extern const struct counter_desc COUNTER_DESCS[], MODEL_COUNTER_DESCS[], PROVIDER_COUNTER_DESCS[];
extern const size_t COUNTER_COUNT, MODEL_COUNTER_COUNT, PROVIDER_COUNTER_COUNT;
struct histogram_desc {
    const char *name;
    const char *help;
    size_t offset;
};
extern const struct histogram_desc HISTOGRAM_DESCS[];
extern const size_t HISTOGRAM_COUNT;

/* The only way to change a word: this process is its only storer. */
#define counter_add(word, n)                                                                \
    atomic_store_explicit((word), atomic_load_explicit((word), memory_order_relaxed) + (n), \
                          memory_order_relaxed)
#define counter_inc(word) counter_add((word), 1)
#define counter_dec(word) counter_add((word), (uint64_t)-1)
#define counter_set(word, n) atomic_store_explicit((word), (n), memory_order_relaxed)
void histogram_observe_us(struct histogram *h, int64_t us);

/* The region "counters": names of models and providers, then one slot a process. */
#define COUNTERS_REGION "counters"
#define COUNTERS_NAME_BYTES 96
struct counters_region; /* in shared memory; opaque */

struct shm_region_spec counters_region_spec(size_t slots, size_t models, size_t providers);
void counters_region_init(struct counters_region *r, size_t slots, size_t models, size_t providers);
uint64_t counters_layout(void);
/* From an attached object, NULL if it has none of this layout. */
struct counters_region *counters_region_get(const struct shm *shm);

size_t counters_slot_count(const struct counters_region *r);
struct counters *counters_slot(struct counters_region *r, size_t slot);
struct model_counters *counters_model(struct counters_region *r, size_t slot, size_t model);
struct provider_counters *counters_provider(struct counters_region *r, size_t slot,
                                            size_t provider);
void counters_zero_gauges(struct counters_region *r, size_t slot);

/* Name -> index, for the life of the instance: the master registers (finds or adds; -ENOSPC when
 * full), everybody looks up (-ENOENT). */
int counters_register_model(struct counters_region *r, const char *name);
int counters_register_provider(struct counters_region *r, const char *name);
int counters_find_model(const struct counters_region *r, const char *name);
int counters_find_provider(const struct counters_region *r, const char *name);
const char *counters_model_name(const struct counters_region *r,
                                size_t model); /* NULL past the last */
const char *counters_provider_name(const struct counters_region *r, size_t provider);

/* Sums over all slots into a plain copy. */
void counters_sum(const struct counters_region *r, struct counters *out);
void counters_sum_model(const struct counters_region *r, size_t model, struct model_counters *out);
void counters_sum_provider(const struct counters_region *r, size_t provider,
                           struct provider_counters *out);

/* A gauge of models whose values are not in this region: whoever has them lends a list of such
 * gauges to the two functions below. */
struct model_gauge {
    const char *name; /* xrouter_model_NAME{model="..."}, and the member NAME of a model */
    unsigned places;  /* digits behind the point, shown always; with any, JSON has a string */
    const char *help;
    /* The model's value in units of 10^-places. False: none; then there is no sample, and null. */
    bool (*read)(const void *arg, size_t model, uint64_t *value);
};
struct model_gauges {
    const struct model_gauge *list;
    size_t count;
    const void *arg; /* for read */
};

/* Prometheus text format: every family with HELP and TYPE, names xrouter_..., histograms in
 * seconds, nanocredits as xrouter_..._credits decimals, models and providers as labels.
 * more: NULL is fine. */
int counters_render_prometheus(const struct counters_region *r, const struct model_gauges *more,
                               struct buf *out);
/* A label's value, escaped as that format wants it. */
void counters_put_label(struct buf *out, const char *text);
/* The members "counters":{},"providers":[],"models":[] of `stat --json`, without outer braces. */
int counters_render_json(const struct counters_region *r, const struct model_gauges *more,
                         struct buf *out);

#endif
