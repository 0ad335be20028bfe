#include "usage/report_query.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"

#define DEFAULT_MS (30 * CLOCK_DAY_MS)

static int parse_moment(const char *text, int64_t now_at_ms, int64_t *at_ms)
{
    char *end;
    int64_t count, unit_ms;

    if (clock_parse(text, at_ms) == 0)
        return *at_ms >= 0 ? 0 : -EINVAL;
    if (text[0] < '0' || text[0] > '9')
        return -EINVAL;
    errno = 0;
    count = strtoll(text, &end, 10);
    if (errno != 0 || end[0] == '\0' || end[1] != '\0')
        return -EINVAL;
    switch (end[0]) {
    case 'h':
        unit_ms = CLOCK_HOUR_MS;
        break;
    case 'd':
        unit_ms = CLOCK_DAY_MS;
        break;
    case 'w':
        unit_ms = 7 * CLOCK_DAY_MS;
        break;
    default:
        return -EINVAL;
    }
    if (__builtin_mul_overflow(count, unit_ms, &count) || count > now_at_ms)
        return -EINVAL;
    *at_ms = now_at_ms - count;
    return 0;
}

static int decode_moment(const char *name, const char *text, int64_t now_at_ms, int64_t *at_ms,
                         struct error *e)
{
    if (text == NULL || parse_moment(text, now_at_ms, at_ms) == 0)
        return 0;
    return error_set(e, XR_EINVALID, name,
                     "%s must be a date like 2026-02-01 or 2026-02-01T10:00:00Z, or how long ago "
                     "like 36h, 7d, 4w.",
                     name);
}

int report_query_decode(const struct report_words *words, int64_t now_at_ms,
                        struct report_query *out, struct error *e)
{
    *out = (struct report_query){
        .since_at_ms = now_at_ms > DEFAULT_MS ? now_at_ms - DEFAULT_MS : 0,
        .until_at_ms = now_at_ms,
        .by = REPORT_BY_DAY,
    };
    if (decode_moment("since", words->since, now_at_ms, &out->since_at_ms, e) < 0 ||
        decode_moment("until", words->until, now_at_ms, &out->until_at_ms, e) < 0)
        return XR_EINVALID;
    if (words->by != NULL && report_by_parse(words->by, &out->by) < 0)
        return error_set(e, XR_EINVALID, "by", "by must be hour, day, model or key.");
    if (words->model == NULL)
        return 0;
    if (words->model[0] == '\0' || strlen(words->model) >= sizeof(out->model))
        return error_set(e, XR_EINVALID, "model", "model must be a model's name.");
    memcpy(out->model, words->model, strlen(words->model) + 1);
    return 0;
}
