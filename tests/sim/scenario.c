#include "tests/sim/scenario.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ARGS_MAX 2
#define NEEDED INT64_MIN
#define NUMBER_MAX 1000000000

struct argument {
    size_t offset; /* 0: the scenario has no such argument (flags is there) */
    int64_t fallback;
    const char *words; /* NULL: a number */
};

struct scenario {
    const char *name;
    uint64_t flag;
    struct argument args[ARGS_MAX];
};

#define FIELD(name) offsetof(struct plan, name)

/* clang-format off */
static const struct scenario scenarios[] = {
    {"slow_first",        PLAN(SLOW_FIRST),        {{FIELD(slow_first_ms), NEEDED, NULL}}},
    {"slow_headers",      PLAN(SLOW_HEADERS),      {{FIELD(slow_headers_ms), NEEDED, NULL}}},
    {"oauth_slow",        PLAN(SLOW_HEADERS),      {{FIELD(slow_headers_ms), NEEDED, NULL}}},
    {"drip",              PLAN(DRIP),              {{FIELD(drip_bytes), 1, NULL}, {FIELD(drip_ms), 1, NULL}}},
    {"one_chunk",         PLAN(ONE_CHUNK),         {{0}}},
    {"burst",             PLAN(BURST),             {{FIELD(burst_mb), 1, NULL}}},
    {"cut",               PLAN(CUT),               {{FIELD(cut_after), 1, NULL}}},
    {"cut_after_finish",  PLAN(CUT_AFTER_FINISH),  {{0}}},
    {"reset",             PLAN(RESET),             {{FIELD(reset_after), 0, NULL}}},
    {"refuse",            PLAN(REFUSE),            {{FIELD(refuse_ms), 1000, NULL}}},
    {"malformed",         PLAN(MALFORMED),         {{FIELD(malformed_at), 1, NULL}}},
    {"no_done",           PLAN(NO_DONE),           {{0}}},
    {"no_usage",          PLAN(NO_USAGE),          {{0}}},
    {"double_done",       PLAN(DOUBLE_DONE),       {{0}}},
    {"after_done",        PLAN(AFTER_DONE),        {{0}}},
    {"comment",           PLAN(COMMENT),           {{0}}},
    {"crlf",              PLAN(CRLF),              {{0}}},
    {"stream_error",      PLAN(STREAM_ERROR),      {{FIELD(stream_error_after), 1, NULL}}},
    {"json_for_stream",   PLAN(JSON_FOR_STREAM),   {{0}}},
    {"status",            PLAN(STATUS),            {{FIELD(status), NEEDED, NULL}, {FIELD(body), BODY_JSON, "json|html|empty"}}},
    {"retry_after",       PLAN(RETRY_AFTER),       {{FIELD(retry_after_s), 1, NULL}}},
    {"fail",              PLAN(FAIL),              {{FIELD(fail_count), NEEDED, NULL}, {FIELD(fail_status), 500, NULL}}},
    {"auth_once",         PLAN(AUTH_ONCE),         {{0}}},
    {"auth_always",       PLAN(AUTH_ALWAYS),       {{0}}},
    {"oauth_down",        PLAN(OAUTH_DOWN),        {{FIELD(status), 500, NULL}}},
    {"oauth_html",        PLAN(OAUTH_HTML),        {{0}}},
    {"expired_clock",     PLAN(EXPIRED_CLOCK),     {{FIELD(expired_clock), CLOCK_PAST, "past|seconds"}}},
    {"call",              PLAN(CALL),              {{0}}},
    {"call_string_args",  PLAN(CALL_STRING_ARGS),  {{0}}},
    {"call_split",        PLAN(CALL_SPLIT),        {{0}}},
    {"call_text_first",   PLAN(CALL_TEXT_FIRST),   {{0}}},
    {"call_in_progress",  PLAN(CALL_IN_PROGRESS),  {{0}}},
    {"call_error",        PLAN(CALL_ERROR),        {{0}}},
    {"blacklist",         PLAN(BLACKLIST),         {{0}}},
    {"length",            PLAN(LENGTH),            {{0}}},
    {"think",             PLAN(THINK),             {{0}}},
    {"object_plural",     PLAN(OBJECT_PLURAL),     {{0}}},
    {"hang_after_finish", PLAN(HANG_AFTER_FINISH), {{0}}},
    {"big_header",        PLAN(BIG_HEADER),        {{FIELD(big_header_kb), 16, NULL}}},
    {"interim",           PLAN(INTERIM),           {{FIELD(interim_count), 1, NULL}}},
    {"bad_chunk",         PLAN(BAD_CHUNK),         {{FIELD(bad_chunk_at), 1, NULL}}},
    {"close_delimited",   PLAN(CLOSE_DELIMITED),   {{0}}},
    {"bad_usage",         PLAN(BAD_USAGE),         {{FIELD(bad_usage), NEEDED, "negative|string|huge|overflow|twice"}}},
    {"normal",            PLAN(NORMAL),            {{0}}},
};
/* clang-format on */

static const struct scenario *lookup(const char *name, size_t len)
{
    for (size_t i = 0; i < sizeof(scenarios) / sizeof(scenarios[0]); i++) {
        if (strlen(scenarios[i].name) == len && memcmp(scenarios[i].name, name, len) == 0)
            return &scenarios[i];
    }
    return NULL;
}

static int read_number(const char *text, size_t len, int64_t *value)
{
    int64_t sum = 0;

    if (len == 0)
        return -EINVAL;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return -EINVAL;
        sum = sum * 10 + (text[i] - '0');
        if (sum > NUMBER_MAX)
            return -EINVAL;
    }
    *value = sum;
    return 0;
}

static int read_word(const char *words, const char *text, size_t len, int64_t *value)
{
    int64_t index = 0;

    for (const char *p = words; *p != '\0'; index++) {
        size_t n = strcspn(p, "|");

        if (n == len && memcmp(p, text, len) == 0) {
            *value = index;
            return 0;
        }
        p += n + (p[n] == '|');
    }
    return -EINVAL;
}

static size_t span_until(const char *text, size_t len, char stop)
{
    const char *end = memchr(text, stop, len);

    return end == NULL ? len : (size_t)(end - text);
}

static int refuse(char why[SCENARIO_WHY_BYTES], const char *text, size_t len)
{
    int shown = len > 60 ? 60 : (int)len;

    snprintf(why, SCENARIO_WHY_BYTES, "llm-sim: bad scenario: %.*s", shown, text);
    return -EINVAL;
}

/* One scenario, without '+'. */
static int parse_one(struct plan *plan, const char *text, size_t len)
{
    size_t n = span_until(text, len, ':');
    const struct scenario *scenario = lookup(text, n);
    bool more = n < len;

    if (scenario == NULL)
        return -EINVAL;
    text += n;
    len -= n;
    for (size_t i = 0; i < ARGS_MAX; i++) {
        const struct argument *arg = &scenario->args[i];
        int64_t *value = (int64_t *)((char *)plan + arg->offset);
        int rc = 0;

        if (arg->offset == 0)
            break;
        if (more) {
            n = span_until(text + 1, len - 1, ':');
            rc = arg->words == NULL ? read_number(text + 1, n, value)
                                    : read_word(arg->words, text + 1, n, value);
            text += n + 1;
            len -= n + 1;
            more = len > 0;
        } else if (arg->fallback == NEEDED) {
            rc = -EINVAL;
        } else {
            *value = arg->fallback;
        }
        if (rc < 0)
            return rc;
    }
    plan->flags |= scenario->flag;
    return more ? -EINVAL : 0;
}

int scenario_parse(struct plan *plan, const char *text, size_t len, char why[SCENARIO_WHY_BYTES])
{
    for (;;) {
        size_t n = span_until(text, len, '+');

        if (parse_one(plan, text, n) < 0)
            return refuse(why, text, n);
        if (n == len)
            break;
        text += n + 1;
        len -= n + 1;
    }
    if (plan_has(plan, PLAN(STATUS) | PLAN(OAUTH_DOWN)) &&
        (plan->status < 200 || plan->status > 599))
        return refuse(why, text, len);
    if (plan_has(plan, PLAN(FAIL)) && (plan->fail_status < 200 || plan->fail_status > 599))
        return refuse(why, text, len);
    if (plan_has(plan, PLAN(DRIP)) && plan->drip_bytes == 0)
        return refuse(why, text, len);
    return 0;
}

const char *scenario_marker_end(const char *text)
{
    const char *end;

    if (text[0] != '[' || text[1] != '[')
        return NULL;
    end = strstr(text, "]]");
    return end == NULL ? NULL : end + 2;
}

static bool has_prefix(const char *text, size_t len, const char *prefix)
{
    size_t n = strlen(prefix);

    return len >= n && memcmp(text, prefix, n) == 0;
}

static int read_pace(const char *text, size_t len, struct pace *pace)
{
    const struct {
        const char *prefix;
        uint32_t *field;
    } rows[] = {
        {"words:", &pace->words},       {"chunk_ms:", &pace->chunk_ms},
        {"first_ms:", &pace->first_ms}, {"chunk_words:", &pace->chunk_words},
        {"calls:", &pace->calls},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        size_t n = strlen(rows[i].prefix);
        int64_t value;

        if (!has_prefix(text, len, rows[i].prefix))
            continue;
        if (read_number(text + n, len - n, &value) < 0)
            return -EINVAL;
        *rows[i].field = (uint32_t)value;
    }
    return 0;
}

static void keep_marker(char marker[MARKER_TEXT_BYTES], const char *text, size_t len)
{
    size_t used = strlen(marker);
    size_t room = MARKER_TEXT_BYTES - 1 - used;

    if (len > room) {
        len = room;
        /* Not through the middle of a character: the journal is JSON. */
        while (len > 0 && ((unsigned char)text[len] & 0xc0) == 0x80)
            len--;
    }
    memcpy(marker + used, text, len);
    marker[used + len] = '\0';
}

int scenario_read_markers(const char *text, struct plan *plan, struct pace *pace,
                          char marker[MARKER_TEXT_BYTES], char why[SCENARIO_WHY_BYTES])
{
    marker[0] = '\0';
    for (const char *p = strstr(text, "[["); p != NULL; p = strstr(p, "[[")) {
        const char *end = scenario_marker_end(p);
        const char *inner = p + 2;
        size_t len;
        int rc = 0;

        if (end == NULL)
            break;
        len = (size_t)(end - 2 - inner);
        keep_marker(marker, p, (size_t)(end - p));
        if (has_prefix(inner, len, "sim:") && plan != NULL)
            rc = scenario_parse(plan, inner + 4, len - 4, why);
        else if (plan != NULL && len == 9 && memcmp(inner, "blacklist", 9) == 0)
            plan->flags |= PLAN(BLACKLIST);
        else if (read_pace(inner, len, pace) < 0)
            rc = refuse(why, inner, len);
        if (rc < 0)
            return rc;
        p = end;
    }
    if (pace->chunk_words == 0)
        pace->chunk_words = 1;
    return 0;
}
