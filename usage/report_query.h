/* report_query.h - what a report is asked for in words: "7d", "2026-02-01", "model". */
#ifndef XROUTER_USAGE_REPORT_QUERY_H
#define XROUTER_USAGE_REPORT_QUERY_H

#include <stdint.h>

#include "common/error.h"
#include "usage/report.h"

struct report_words {          /* NULL = the default */
    const char *since, *until; /* a moment ("2026-02-01", "2026-02-01T10:00:00Z") or how long ago
                                  ("36h", "7d", "4w"): 30 days ago until now */
    const char *by;            /* hour, day (the default), model, key */
    const char *model;         /* all models */
};

/* Fills all of *out but the key. 0, or XR_EINVALID with e naming the word. */
int report_query_decode(const struct report_words *words, int64_t now_at_ms,
                        struct report_query *out, struct error *e);

#endif
