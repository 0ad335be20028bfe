/* spend_period.h - the calendar of spending limits: UTC days, weeks from Monday, months. */
#ifndef XROUTER_USAGE_SPEND_PERIOD_H
#define XROUTER_USAGE_SPEND_PERIOD_H

#include <stdint.h>

enum spend_period { SPEND_DAY, SPEND_WEEK, SPEND_MONTH, SPEND_PERIODS };
extern const char *const SPEND_PERIOD_NAMES[SPEND_PERIODS]; /* "day", "week", "month" */

/* The number of the period that the moment lies in: days and months since 1970-01, weeks since
 * Monday 1969-12-29. at_ms is not negative. */
int64_t spend_period_number(enum spend_period period, int64_t at_ms);
/* The Unix millisecond the period begins at; it ends where the next one begins. number is not
 * negative. */
int64_t spend_period_start_ms(enum spend_period period, int64_t number);

#endif
