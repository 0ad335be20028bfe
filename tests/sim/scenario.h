/* scenario.h - how one answer is to misbehave: scenario texts such as "cut:3" become a plan.
 *
 * A text is a name and its arguments, split by ':'; several are joined by '+' ("drip:1:1+think").
 * They come from the script queue, from a model id "sim-TEXT" or from markers [[sim:TEXT]] in the
 * last user message; the first of these that has one wins. */
#ifndef XROUTER_SIM_SCENARIO_H
#define XROUTER_SIM_SCENARIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "tests/sim/config.h"

#define SCENARIO_MODEL_PREFIX "sim-"
#define SCENARIO_WHY_BYTES 120
#define MARKER_TEXT_BYTES 64

/* What a plan is made of: bits of struct plan.flags. */
/* clang-format off */
#define PLAN_FLAGS(X) \
    X(SLOW_FIRST) X(SLOW_HEADERS) X(DRIP) X(ONE_CHUNK) X(BURST) X(CUT) X(CUT_AFTER_FINISH) \
    X(RESET) X(REFUSE) X(MALFORMED) X(NO_DONE) X(NO_USAGE) X(DOUBLE_DONE) X(AFTER_DONE) \
    X(COMMENT) X(CRLF) X(STREAM_ERROR) X(JSON_FOR_STREAM) X(STATUS) X(RETRY_AFTER) X(FAIL) \
    X(AUTH_ONCE) X(AUTH_ALWAYS) X(OAUTH_DOWN) X(OAUTH_HTML) X(EXPIRED_CLOCK) \
    X(CALL) X(CALL_STRING_ARGS) X(CALL_SPLIT) X(CALL_TEXT_FIRST) X(CALL_IN_PROGRESS) X(CALL_ERROR) \
    X(BLACKLIST) X(LENGTH) X(THINK) X(OBJECT_PLURAL) X(HANG_AFTER_FINISH) X(BIG_HEADER) \
    X(INTERIM) X(BAD_CHUNK) X(CLOSE_DELIMITED) X(BAD_USAGE) X(NORMAL)
/* clang-format on */

enum plan_bit {
#define X(name) PLAN_BIT_##name,
    PLAN_FLAGS(X)
#undef X
};
#define PLAN(name) (1ULL << PLAN_BIT_##name)

enum plan_body { BODY_JSON, BODY_HTML, BODY_EMPTY };
enum plan_clock { CLOCK_PAST, CLOCK_SECONDS };
enum plan_usage {
    USAGE_NEGATIVE,
    USAGE_STRING,
    USAGE_HUGE,
    USAGE_OVERFLOW,
    USAGE_TWICE,
};

/* Numbers are valid only with their flag. Counts of events begin at 1. */
struct plan {
    uint64_t flags;
    int64_t slow_first_ms;
    int64_t slow_headers_ms;
    int64_t drip_bytes;
    int64_t drip_ms;
    int64_t burst_mb;
    int64_t cut_after;
    int64_t reset_after;
    int64_t refuse_ms;
    int64_t malformed_at;
    int64_t stream_error_after;
    int64_t status; /* of status, oauth_down */
    int64_t body;   /* enum plan_body */
    int64_t retry_after_s;
    int64_t fail_count;
    int64_t fail_status;
    int64_t expired_clock; /* enum plan_clock */
    int64_t big_header_kb;
    int64_t interim_count;
    int64_t bad_chunk_at;
    int64_t bad_usage; /* enum plan_usage */
};

static inline bool plan_has(const struct plan *plan, uint64_t flags)
{
    return (plan->flags & flags) != 0;
}

/* How an answer is paced and how long it is: the configuration, then markers. */
struct pace {
    uint32_t first_ms;
    uint32_t chunk_ms;
    uint32_t words;
    uint32_t chunk_words;
    uint32_t calls; /* in parallel; 0: as the request makes it */
};

/* Adds the scenarios in text to plan. Returns 0 or -EINVAL with why filled. */
int scenario_parse(struct plan *plan, const char *text, size_t len, char why[SCENARIO_WHY_BYTES]);

/* Reads the markers of a message: [[sim:...]] into plan (NULL: not wanted), [[words:N]],
 * [[chunk_ms:N]], [[first_ms:N]], [[chunk_words:N]], [[calls:N]] into pace, [[blacklist]] into
 * plan. marker gets the raw markers, as many bytes of them as fit. Unknown [[...]] are left alone.
 * Returns 0 or -EINVAL with why filled. */
int scenario_read_markers(const char *text, struct plan *plan, struct pace *pace,
                          char marker[MARKER_TEXT_BYTES], char why[SCENARIO_WHY_BYTES]);
/* The end of the [[...]] that begins at text, or NULL if none begins here. */
const char *scenario_marker_end(const char *text);

/* --- The script: what the next requests to a path shall meet. --- */

struct script; /* opaque; also counts the attempts of fail:n:code and auth_once */

struct script *script_new(void); /* NULL when out of memory */
void script_free(struct script *script);
void script_reset(struct script *script);

/* Queues what POST /__sim/script was sent: one object or an array of {"path", "scenario", "times"}.
 * path: without /api, default /v1/chat/completions; times: default 1, -1 = until the next reset.
 * All or nothing. Returns how many entries were queued, -EINVAL (why filled) or -ENOMEM. */
int script_add(struct script *script, const char *text, size_t len, char why[SCENARIO_WHY_BYTES]);
/* Takes one use of the first entry for path into plan; false if there is none. */
bool script_take(struct script *script, const char *path, size_t len, struct plan *plan);
size_t script_pending(const struct script *script); /* entries not used up */

/* Whether this attempt, one of those known by key, is to fail: the first count ones are. After the
 * first one that may pass, the count begins anew. */
bool script_attempt_fails(struct script *script, uint64_t key, int64_t count);

#endif
