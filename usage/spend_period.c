#include "usage/spend_period.h"

#include "common/clock.h"

#define WEEK_DAYS 7
#define WEEK_0_DAY 3 /* 1970-01-01 was a Thursday: week 0 began three days before */
/* Years are counted from March, so that the leap day is a year's last, and from the year 0. */
#define ERA_DAYS 146097  /* of 400 years */
#define EPOCH_DAY 719468 /* 1970-01-01, from 0000-03-01 */
#define EPOCH_MONTH (1970 * 12 - 2)

const char *const SPEND_PERIOD_NAMES[SPEND_PERIODS] = {"day", "week", "month"};

static int64_t month_of_day(int64_t day)
{
    int64_t era = (day + EPOCH_DAY) / ERA_DAYS;
    int64_t day_of_era = (day + EPOCH_DAY) % ERA_DAYS;
    int64_t year =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / (ERA_DAYS - 1)) / 365;
    int64_t day_of_year = day_of_era - (year * 365 + year / 4 - year / 100);
    int64_t month = (5 * day_of_year + 2) / 153;

    return (era * 400 + year) * 12 + month - EPOCH_MONTH;
}

static int64_t first_day_of_month(int64_t number)
{
    int64_t year = (number + EPOCH_MONTH) / 12;
    int64_t month = (number + EPOCH_MONTH) % 12;
    int64_t era = year / 400;

    year %= 400;
    return era * ERA_DAYS + year * 365 + year / 4 - year / 100 + (153 * month + 2) / 5 - EPOCH_DAY;
}

int64_t spend_period_number(enum spend_period period, int64_t at_ms)
{
    int64_t day = at_ms / CLOCK_DAY_MS;

    switch (period) {
    case SPEND_WEEK:
        return (day + WEEK_0_DAY) / WEEK_DAYS;
    case SPEND_MONTH:
        return month_of_day(day);
    case SPEND_DAY:
    case SPEND_PERIODS:
        break;
    }
    return day;
}

int64_t spend_period_start_ms(enum spend_period period, int64_t number)
{
    switch (period) {
    case SPEND_WEEK:
        return (number * WEEK_DAYS - WEEK_0_DAY) * CLOCK_DAY_MS;
    case SPEND_MONTH:
        return first_day_of_month(number) * CLOCK_DAY_MS;
    case SPEND_DAY:
    case SPEND_PERIODS:
        break;
    }
    return number * CLOCK_DAY_MS;
}
