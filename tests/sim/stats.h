/* stats.h - what the simulator saw, for tests to assert: counters and the last requests whole. */
#ifndef XROUTER_SIM_STATS_H
#define XROUTER_SIM_STATS_H

#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"

#define STATS_RECENT 16
#define STATS_HEAD_BYTES_MAX (64 * 1024)
#define STATS_BODY_BYTES_MAX (256 * 1024)

/* clang-format off */
#define STATS_ROUTES(X) \
    X(ROUTE_OAUTH,           "/api/v2/oauth") \
    X(ROUTE_CHAT,            "/v1/chat/completions") \
    X(ROUTE_EMBEDDINGS,      "/v1/embeddings") \
    X(ROUTE_COUNT_TOKENS,    "/v1/tokens/count") \
    X(ROUTE_BALANCE,         "/v1/balance") \
    X(ROUTE_FILES,           "/v1/files") \
    X(ROUTE_FILE,            "/v1/files/{id}") \
    X(ROUTE_MODELS,          "/v1/models") \
    X(ROUTE_MODEL,           "/v1/models/{id}") \
    X(ROUTE_OPENAI_CHAT,     "/openai/v1/chat/completions") \
    X(ROUTE_OPENAI_EMBEDDINGS, "/openai/v1/embeddings") \
    X(ROUTE_OPENAI_MODELS,   "/openai/v1/models") \
    X(ROUTE_OPENAI_OTHER,    "/openai") \
    X(ROUTE_ANTHROPIC_CHAT,  "/anthropic/v1/messages") \
    X(ROUTE_ANTHROPIC_MODELS, "/anthropic/v1/models") \
    X(ROUTE_ANTHROPIC_OTHER, "/anthropic") \
    X(ROUTE_OTHER,           "other") \
    X(ROUTE_SIM,             "/__sim") /* not counted */
/* clang-format on */

enum route {
#define X(name, path) name,
    STATS_ROUTES(X)
#undef X
        ROUTE_COUNT
};

struct recent_request {
    int64_t at_ms;
    size_t head_bytes; /* as they were; what is kept may be less */
    size_t body_bytes;
    struct buf head;
    struct buf body;
};

struct stats {
    uint64_t answers[ROUTE_COUNT][600]; /* by status; 0: closed without one */
    uint64_t tokens_issued;
    uint64_t in_flight; /* chat answers being generated */
    uint64_t max_in_flight;
    uint64_t aborted_by_client;
    int64_t last_abort_at_ms;
    uint64_t bytes_sent;
    uint64_t connections_opened;
    uint64_t connections_open;
    uint64_t recent_count; /* requests ever kept; the ring holds the last of them */
    struct recent_request recent[STATS_RECENT];
};

void stats_init(struct stats *stats);
void stats_clear(struct stats *stats);
/* Back to zero, except what is true right now: in flight, open connections. */
void stats_reset(struct stats *stats);

void stats_answer(struct stats *stats, enum route route, int status);
void stats_keep_request(struct stats *stats, const char *head, size_t head_len, const char *body,
                        size_t body_len);
/* Appends the JSON of GET /__sim/stats. */
void stats_render(const struct stats *stats, size_t script_pending, size_t files_held,
                  struct buf *out);

#endif
