/* report.h - usage summed by hour, day, model or key: from the daily sums, where the range has
 * whole days, and from the hourly ones at its edges. How many requests there were does not matter.
 *
 * A report is made in slices, so that the writer's loop goes on between them; what is committed
 * meanwhile may or may not be in it. */
#ifndef XROUTER_USAGE_REPORT_H
#define XROUTER_USAGE_REPORT_H

#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "usage/ledger.h"

#define REPORT_ROWS_MAX 4000

enum report_by { REPORT_BY_HOUR, REPORT_BY_DAY, REPORT_BY_MODEL, REPORT_BY_KEY };

struct report_query {
    /* The hours that they lie in count whole; where the sums by the hour are deleted already, the
     * days. By the hour, a report begins where there are such sums. */
    int64_t since_at_ms;
    int64_t until_at_ms;
    enum report_by by;
    uint64_t key_id;              /* 0 = all keys */
    char model[USAGE_NAME_BYTES]; /* "" = all models */
};

struct report; /* opaque */
struct sums;   /* usage/sums.h */

int report_by_parse(const char *text, enum report_by *out); /* 0 or -EINVAL */

struct report *report_new(const struct report_query *query); /* NULL when out of memory */
void report_free(struct report *r);                          /* NULL is fine */
/* Reads about max sums (of one key: a look-up of a period counts, too). 1 = there is more, 0 =
 * complete, -E2BIG (more than REPORT_ROWS_MAX rows), -errno as database_errno(). */
int report_step(struct report *r, struct ledger *l, size_t max);
/* Of a report that is complete; of the query that it was made with. */
const struct sums *report_total(const struct report *r);
uint64_t report_key_id(const struct report *r);
/* Appends {"since","until","by","rows":[...],"total":{...}}: what is covered, the rows in the order
 * of their first field, hours and days as the moments they begin, keys by id with their name beside
 * it. 0 or -errno. */
int report_encode(const struct report *r, struct ledger *l, struct buf *out);

#endif
