#include "common/clock.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define MS_PER_DAY INT64_C(86400000)
#define FIRST_AT_MS INT64_C(-62135596800000) /* 0001-01-01T00:00:00.000Z */
#define LAST_AT_MS INT64_C(253402300799999)  /* 9999-12-31T23:59:59.999Z */

struct moment {
    unsigned year, month, day, hour, minute, second, ms;
};

static int64_t read_clock_ns(clockid_t id)
{
    struct timespec ts = {0};

    clock_gettime(id, &ts); /* cannot fail for the two clocks that every kernel has */
    return (int64_t)ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

/* Days since 1970-01-01, by counting years from March: the leap day is then a year's last. */
static int64_t days_of(unsigned year, unsigned month, unsigned day)
{
    int64_t y = (int64_t)year - (month <= 2);
    int64_t era = y / 400;
    int64_t year_of_era = y % 400;
    int64_t day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;

    return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year -
           719468;
}

static unsigned days_in_month(unsigned year, unsigned month)
{
    static const unsigned char days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

    return month == 2 && is_leap ? 29 : days[month - 1];
}

/* Reads exactly count digits. */
static bool read_digits(const char **at, unsigned count, unsigned *out)
{
    unsigned value = 0;

    for (unsigned i = 0; i < count; i++) {
        char c = (*at)[i];

        if (c < '0' || c > '9')
            return false;
        value = value * 10 + (unsigned)(c - '0');
    }
    *at += count;
    *out = value;
    return true;
}

static bool read_char(const char **at, char c)
{
    if (**at != c)
        return false;
    (*at)++;
    return true;
}

/* ".5" is 500 ms; what is finer than a millisecond is dropped. */
static bool read_fraction(const char **at, unsigned *ms)
{
    unsigned scale = 100;

    *ms = 0;
    if (**at < '0' || **at > '9')
        return false;
    for (; **at >= '0' && **at <= '9'; (*at)++) {
        *ms += (unsigned)(**at - '0') * scale;
        scale /= 10;
    }
    return true;
}

static bool read_zone(const char **at)
{
    static const char utc[] = "+00:00";

    if (read_char(at, 'Z'))
        return true;
    for (const char *c = utc; *c != '\0'; c++)
        if (!read_char(at, *c))
            return false;
    return true;
}

static bool read_date(const char **at, struct moment *m)
{
    return read_digits(at, 4, &m->year) && read_char(at, '-') && read_digits(at, 2, &m->month) &&
           read_char(at, '-') && read_digits(at, 2, &m->day) && m->year >= 1 && m->month >= 1 &&
           m->month <= 12 && m->day >= 1 && m->day <= days_in_month(m->year, m->month);
}

static bool read_time(const char **at, struct moment *m)
{
    if (!read_digits(at, 2, &m->hour) || !read_char(at, ':') || !read_digits(at, 2, &m->minute) ||
        !read_char(at, ':') || !read_digits(at, 2, &m->second))
        return false;
    if (read_char(at, '.') && !read_fraction(at, &m->ms))
        return false;
    return m->hour <= 23 && m->minute <= 59 && m->second <= 59;
}

int64_t clock_monotonic_ms(void)
{
    return read_clock_ns(CLOCK_MONOTONIC) / 1000000;
}

int64_t clock_monotonic_us(void)
{
    return read_clock_ns(CLOCK_MONOTONIC) / 1000;
}

int64_t clock_now_at_ms(void)
{
    return read_clock_ns(CLOCK_REALTIME) / 1000000;
}

static void put_digits(char *out, size_t count, unsigned value)
{
    for (; count > 0; value /= 10)
        out[--count] = (char)('0' + value % 10);
}

void clock_format(int64_t at_ms, char out[CLOCK_TEXT_BYTES])
{
    int64_t ms, seconds;
    time_t whole;
    struct tm tm = {0};

    if (at_ms < FIRST_AT_MS)
        at_ms = FIRST_AT_MS;
    if (at_ms > LAST_AT_MS)
        at_ms = LAST_AT_MS;
    ms = ((at_ms % 1000) + 1000) % 1000;
    seconds = (at_ms - ms) / 1000;
    whole = (time_t)seconds;
    gmtime_r(&whole, &tm); /* cannot fail between the years 1 and 9999 */
    /* Each line of the logs has one: printf would cost more than all the rest of it. */
    memcpy(out, "0000-00-00T00:00:00.000Z", CLOCK_TEXT_BYTES);
    put_digits(out, 4, (unsigned)tm.tm_year + 1900);
    put_digits(out + 5, 2, (unsigned)tm.tm_mon + 1);
    put_digits(out + 8, 2, (unsigned)tm.tm_mday);
    put_digits(out + 11, 2, (unsigned)tm.tm_hour);
    put_digits(out + 14, 2, (unsigned)tm.tm_min);
    put_digits(out + 17, 2, (unsigned)tm.tm_sec);
    put_digits(out + 20, 3, (unsigned)ms);
}

int clock_parse(const char *text, int64_t *at_ms)
{
    const char *at = text;
    struct moment m = {0};

    if (!read_date(&at, &m))
        return -EINVAL;
    if (*at != '\0' && (!read_char(&at, 'T') || !read_time(&at, &m) || !read_zone(&at)))
        return -EINVAL;
    if (*at != '\0')
        return -EINVAL;
    *at_ms = days_of(m.year, m.month, m.day) * MS_PER_DAY +
             (int64_t)(m.hour * 3600 + m.minute * 60 + m.second) * 1000 + m.ms;
    return 0;
}
