/* clock.h - the two clocks. Durations and deadlines use the monotonic one (_ms, _us, _ns), moments
 * that are stored or shown use Unix time (_at_ms). */
#ifndef XROUTER_COMMON_CLOCK_H
#define XROUTER_COMMON_CLOCK_H

#include <stdint.h>

#define CLOCK_HOUR_MS INT64_C(3600000)
#define CLOCK_DAY_MS (24 * CLOCK_HOUR_MS)
#define CLOCK_TEXT_BYTES 25 /* "2026-11-23T19:13:03.000Z" and its NUL */

int64_t clock_monotonic_ms(void);
int64_t clock_monotonic_us(void);
int64_t clock_now_at_ms(void);

/* RFC 3339, UTC, milliseconds. */
void clock_format(int64_t at_ms, char out[CLOCK_TEXT_BYTES]);
/* Reads what clock_format() writes, with or without a fraction, "Z" or "+00:00", or a plain date
 * ("2026-02-01" = its midnight UTC). Returns 0 or -EINVAL. */
int clock_parse(const char *text, int64_t *at_ms);

#endif
