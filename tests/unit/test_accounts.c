#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/error.h"
#include "tests/unit/forked.h"
#include "usage/accounts.h"

#define CAPACITY 8
#define KEY_ID UINT64_C(0x0123456789abcdef)
#define PROCESSES 4
#define OPEN_EACH 16 /* 64 requests at once */
#define SETTLEMENTS 1000000
#define DAY_MS INT64_C(86400000)

typedef __int128 wide;

struct fixture {
    struct accounts_region *r;
    uint32_t account;
    int64_t now_at_ms;
};

static int64_t at(const char *text)
{
    int64_t at_ms;

    assert_int_equal(clock_parse(text, &at_ms), 0);
    return at_ms;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    f->r = forked_memory(accounts_region_spec(CAPACITY).bytes);
    accounts_region_init(f->r, CAPACITY);
    f->now_at_ms = at("2026-11-24T12:00:00Z");
    assert_int_equal(accounts_open(f->r, KEY_ID, &f->account), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    munmap(f->r, accounts_region_spec(CAPACITY).bytes);
    free(f);
    return 0;
}

static struct account_values values_of(int64_t at_ms, int64_t balance, int64_t day, int64_t week,
                                       int64_t month)
{
    const int64_t left[SPEND_PERIODS] = {day, week, month};
    struct account_values v = {.balance_nano = balance};

    for (enum spend_period p = SPEND_DAY; p < SPEND_PERIODS; p++) {
        v.spending[p].period = spend_period_number(p, at_ms);
        v.spending[p].left_nano = v.spending[p].next_left_nano = left[p];
    }
    return v;
}

/* What the usage-writer does for a marked account. */
static void put(struct fixture *f, int64_t balance, int64_t day, int64_t week, int64_t month)
{
    struct account_values v = values_of(f->now_at_ms, balance, day, week, month);
    struct account_marks marks;

    account_recount_begin(f->r, f->account, &marks);
    assert_true(account_recount_end(f->r, f->account, &marks, &v));
}

#define NONE ACCOUNT_UNLIMITED

static void assert_left(const struct fixture *f, int64_t balance, int64_t day, int64_t week,
                        int64_t month)
{
    struct account_values v;
    bool is_marked;

    account_get(f->r, f->account, f->now_at_ms, &v, &is_marked);
    assert_false(is_marked);
    assert_int_equal(v.balance_nano, balance);
    assert_int_equal(v.spending[SPEND_DAY].left_nano, day);
    assert_int_equal(v.spending[SPEND_WEEK].left_nano, week);
    assert_int_equal(v.spending[SPEND_MONTH].left_nano, month);
}

static struct reservation reservation_of(const struct fixture *f, int64_t amount)
{
    return (struct reservation){
        .account = f->account, .at_ms = f->now_at_ms, .amount_nano = amount};
}

static int reserve(struct fixture *f, int64_t amount, enum account_word *short_of)
{
    struct reservation r = reservation_of(f, amount);

    return account_reserve(f->r, &r, short_of);
}

static int settle(struct fixture *f, int64_t amount, int64_t cost)
{
    struct reservation r = reservation_of(f, amount);

    return account_settle(f->r, &r, cost);
}

static int64_t balance_of(const struct fixture *f)
{
    struct account_values v;
    bool is_marked;

    account_get(f->r, f->account, f->now_at_ms, &v, &is_marked);
    return v.balance_nano;
}

/* ---- periods ---- */

static void given_known_dates_when_numbered_then_by_the_calendar(void **state)
{
    static const struct {
        const char *date;
        int64_t day, week, month;
    } cases[] = {
        {"1970-01-01", 0, 0, 0}, /* a Thursday */
        {"1970-01-04T23:59:59.999Z", 3, 0, 0},
        {"1970-01-05", 4, 1, 0}, /* a Monday */
        {"1970-01-31T23:59:59.999Z", 30, 4, 0},
        {"1970-02-01", 31, 4, 1},
        {"1972-02-29", 789, 113, 25},
        {"1999-12-31T23:59:59.999Z", 10956, 1565, 359},
        {"2000-01-01", 10957, 1565, 360},
        {"2000-02-29", 11016, 1574, 361}, /* a century that has it */
        {"2000-03-01", 11017, 1574, 362},
        {"2024-02-29T23:59:59.999Z", 19782, 2826, 649},
        {"2024-03-01", 19783, 2826, 650},
        {"2026-05-31T23:59:59.999Z", 20604, 2943, 676}, /* a Sunday */
        {"2026-06-01", 20605, 2944, 677},
        {"2100-02-28T23:59:59.999Z", 47540, 6791, 1561}, /* a century that has not */
        {"2100-03-01", 47541, 6792, 1562},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int64_t at_ms = at(cases[i].date);

        assert_int_equal(spend_period_number(SPEND_DAY, at_ms), cases[i].day);
        assert_int_equal(spend_period_number(SPEND_WEEK, at_ms), cases[i].week);
        assert_int_equal(spend_period_number(SPEND_MONTH, at_ms), cases[i].month);
    }
    assert_int_equal(spend_period_start_ms(SPEND_WEEK, 0), -3 * DAY_MS);
    assert_int_equal(spend_period_start_ms(SPEND_WEEK, 2944), at("2026-06-01"));
    assert_int_equal(spend_period_start_ms(SPEND_MONTH, 650), at("2024-03-01"));
    assert_string_equal(SPEND_PERIOD_NAMES[SPEND_WEEK], "week");
}

static void given_every_day_of_two_centuries_when_numbered_then_as_the_c_library_says(void **state)
{
    for (int64_t day = 0; day < INT64_C(365) * 200; day++) {
        time_t t = (time_t)(day * DAY_MS / 1000);
        int64_t at_ms = day * DAY_MS + DAY_MS / 2;
        struct tm tm;

        gmtime_r(&t, &tm);
        assert_int_equal(spend_period_number(SPEND_MONTH, at_ms),
                         (tm.tm_year - 70) * 12 + tm.tm_mon);
        assert_int_equal(
            spend_period_start_ms(SPEND_MONTH, spend_period_number(SPEND_MONTH, at_ms)),
            (day - tm.tm_mday + 1) * DAY_MS);
        assert_int_equal(spend_period_start_ms(SPEND_WEEK, spend_period_number(SPEND_WEEK, at_ms)),
                         (day - (tm.tm_wday + 6) % 7) * DAY_MS);
        assert_int_equal(spend_period_start_ms(SPEND_DAY, spend_period_number(SPEND_DAY, at_ms)),
                         day * DAY_MS);
    }
}

/* ---- which key has which ---- */

static void given_keys_when_opened_then_each_has_its_own_for_good(void **state)
{
    struct fixture *f = *state;
    uint32_t account;

    for (uint64_t i = 1; i < CAPACITY; i++) {
        assert_int_equal(accounts_open(f->r, KEY_ID + i, &account), 0);
        assert_int_equal(account, i);
    }
    assert_int_equal(accounts_count(f->r), CAPACITY);
    assert_int_equal(accounts_open(f->r, 77, &account), -ENOSPC);
    assert_int_equal(accounts_find(f->r, 77, &account), -ENOENT);
    for (uint64_t i = 0; i < CAPACITY; i++) {
        assert_int_equal(accounts_open(f->r, KEY_ID + i, &account), 0); /* a respawned writer */
        assert_int_equal(account, i);
        assert_int_equal(accounts_find(f->r, KEY_ID + i, &account), 0);
        assert_int_equal(account, i);
        assert_int_equal(account_key_id(f->r, account), KEY_ID + i);
    }
}

static void
given_writer_that_died_before_it_counted_when_followed_then_the_account_stays(void **state)
{
    struct fixture *f = *state;
    uint32_t account;

    assert_int_equal(accounts_open(f->r, 71, &account), 0);
    assert_int_equal(account, 1);
    ((uint64_t *)f->r)[2] = 1; /* the count, as it was; the index has the key */
    assert_int_equal(accounts_open(f->r, 72, &account), 0);
    assert_int_equal(account, 2);
    assert_int_equal(accounts_find(f->r, 71, &account), 0);
    assert_int_equal(account, 1);
    assert_int_equal(accounts_count(f->r), 3);
}

static void given_region_when_attached_then_checked(void **state)
{
    const struct shm_region_spec spec = accounts_region_spec(CAPACITY);
    const uint8_t start_id[SHM_START_ID_BYTES] = "start";
    char name[SHM_NAME_BYTES];
    struct accounts_region *r;
    uint32_t account;
    struct shm *shm;

    snprintf(name, sizeof(name), "/xrouter-test-accounts-%d", (int)getpid());
    assert_int_equal(shm_create(name, 0600, &spec, 1, start_id, &shm), 0);
    assert_null(accounts_region_get(shm)); /* not filled in yet */
    r = shm_region(shm, ACCOUNTS_REGION, spec.layout, NULL);
    accounts_region_init(r, CAPACITY);
    assert_ptr_equal(accounts_region_get(shm), r);
    assert_int_equal(accounts_open(r, KEY_ID, &account), 0);
    for (size_t i = 0; i < 3; i++) { /* capacity, mask, count */
        uint64_t word = ((uint64_t *)r)[i];

        ((uint64_t *)r)[i] = UINT64_C(1) << 40;
        assert_null(accounts_region_get(shm));
        ((uint64_t *)r)[i] = word;
    }
    assert_ptr_equal(accounts_region_get(shm), r);
    shm_close(shm);
    shm_unlink_name(name);
}

/* ---- reserve and settle ---- */

static void given_new_account_when_used_then_nothing_limits_it(void **state)
{
    struct fixture *f = *state;
    enum account_word short_of;

    assert_false(account_is_limited(f->r, f->account));
    assert_false(account_is_marked(f->r, f->account));
    assert_false(account_is_stale(f->r, f->account, f->now_at_ms));
    assert_int_equal(reserve(f, INT64_MAX, &short_of), 0);
    assert_int_equal(settle(f, INT64_MAX, 5), 0);
    assert_left(f, NONE, NONE, NONE, NONE);
}

static void given_all_limits_when_reserved_and_settled_then_each_word_pays_the_cost(void **state)
{
    struct fixture *f = *state;
    enum account_word short_of;

    put(f, 1000, 2000, 3000, 4000);
    assert_true(account_is_limited(f->r, f->account));
    assert_int_equal(reserve(f, 600, &short_of), 0);
    assert_left(f, 400, 1400, 2400, 3400);
    assert_int_equal(settle(f, 600, 50), 0);
    assert_left(f, 950, 1950, 2950, 3950);
}

static void given_some_limits_when_used_then_the_others_stay_out_of_force(void **state)
{
    struct fixture *f = *state;
    enum account_word short_of;

    put(f, NONE, NONE, 3000, NONE);
    assert_int_equal(reserve(f, 600, &short_of), 0);
    assert_left(f, NONE, NONE, 2400, NONE);
    assert_int_equal(settle(f, 600, 700), 0);
    assert_left(f, NONE, NONE, 2300, NONE);
}

static void given_one_short_word_when_reserved_then_refused_by_name_and_nothing_taken(void **state)
{
    struct fixture *f = *state;

    for (enum account_word w = ACCOUNT_BALANCE; w <= ACCOUNT_MONTH; w++) {
        int64_t left[4] = {500, 500, 500, 500};
        enum account_word short_of = ACCOUNT_MONTH + 1;

        left[w] = 99;
        put(f, left[0], left[1], left[2], left[3]);
        assert_int_equal(reserve(f, 100, &short_of), XR_ECREDITS);
        assert_int_equal(short_of, w);
        assert_left(f, left[0], left[1], left[2], left[3]);
        assert_int_equal(reserve(f, 99, &short_of), 0);
    }
}

static void given_cost_above_the_reservation_when_settled_then_refused_until_paid(void **state)
{
    struct fixture *f = *state;
    enum account_word short_of;

    put(f, 100, NONE, NONE, NONE);
    assert_int_equal(reserve(f, 100, &short_of), 0);
    assert_int_equal(reserve(f, 0, &short_of), 0); /* zero is enough for nothing */
    assert_int_equal(settle(f, 100, 130), 0);
    assert_left(f, -30, NONE, NONE, NONE);
    assert_int_equal(reserve(f, 0, &short_of), XR_ECREDITS);
    assert_int_equal(short_of, ACCOUNT_BALANCE);
    account_add(f->r, f->account, 30);
    assert_int_equal(reserve(f, 0, &short_of), 0);
    assert_int_equal(reserve(f, 1, &short_of), XR_ECREDITS);
}

/* ---- marks ---- */

static void given_marked_account_when_used_then_wait_and_values_are_not_shown(void **state)
{
    struct fixture *f = *state;
    struct account_values v;
    enum account_word short_of;
    uint64_t marks;
    bool is_marked;

    put(f, 1000, NONE, 3000, NONE);
    marks = accounts_marks(f->r);
    account_mark(f->r, f->account);
    assert_true(accounts_marks(f->r) > marks);
    assert_true(account_is_marked(f->r, f->account));
    assert_true(account_is_limited(f->r, f->account));
    assert_int_equal(reserve(f, 0, &short_of), -EAGAIN);
    assert_int_equal(settle(f, 0, 0), -EAGAIN);
    account_add(f->r, f->account, 500);
    account_get(f->r, f->account, f->now_at_ms, &v, &is_marked);
    assert_true(is_marked);
    assert_int_equal(v.balance_nano, 0);
    assert_int_equal(v.spending[SPEND_WEEK].left_nano, 0);
    assert_int_equal(v.spending[SPEND_DAY].left_nano, NONE); /* was not in force */
    put(f, 700, NONE, 600, NONE);
    assert_left(f, 700, NONE, 600, NONE);
    assert_int_equal(reserve(f, 0, &short_of), 0);
}

static void given_unlimited_account_when_marked_then_only_mark_all_stops_it(void **state)
{
    struct fixture *f = *state;
    enum account_word short_of;

    account_mark(f->r, f->account);
    assert_false(account_is_marked(f->r, f->account));
    assert_int_equal(reserve(f, 5, &short_of), 0);
    account_mark_all(f->r, f->account);
    assert_true(account_is_marked(f->r, f->account));
    assert_int_equal(reserve(f, 5, &short_of), -EAGAIN);
    assert_int_equal(settle(f, 5, 5), -EAGAIN);
    put(f, NONE, NONE, NONE, 9);
    assert_left(f, NONE, NONE, NONE, 9);
}

static void given_account_that_is_none_when_marked_then_ignored(void **state)
{
    struct fixture *f = *state;

    account_mark(f->r, 1); /* not opened */
    account_mark(f->r, UINT32_MAX);
    assert_int_equal(accounts_marks(f->r), 0);
}

static void given_recount_when_marked_again_meanwhile_then_its_values_do_not_count(void **state)
{
    struct fixture *f = *state;
    struct account_values v = values_of(f->now_at_ms, 11, 12, 13, 14);
    struct account_marks marks, again;

    put(f, 1, 2, 3, 4);
    account_recount_begin(f->r, f->account, &marks);
    account_recount_begin(f->r, f->account, &again);
    assert_memory_equal(&marks, &again, sizeof(marks)); /* marks that stand are kept */
    account_mark(f->r, f->account);
    assert_false(account_recount_end(f->r, f->account, &marks, &v));
    assert_true(account_is_marked(f->r, f->account));
    account_recount_begin(f->r, f->account, &marks);
    assert_true(account_recount_end(f->r, f->account, &marks, &v));
    assert_left(f, 11, 12, 13, 14);
    assert_false(account_recount_end(f->r, f->account, &marks, &v)); /* each mark once */
}

static void given_recount_disturbed_at_any_word_when_used_then_nothing_is_taken(void **state)
{
    struct fixture *f = *state;
    struct account_values v = values_of(f->now_at_ms, 1000, 1000, 1000, 1000), got;

    for (size_t i = 0; i < ACCOUNT_WORDS; i++) {
        enum account_word short_of;
        struct account_marks marks;
        bool is_marked;

        account_recount_begin(f->r, f->account, &marks);
        marks.marks[i]++; /* as if marked again */
        assert_false(account_recount_end(f->r, f->account, &marks, &v));
        assert_int_equal(reserve(f, 100, &short_of), -EAGAIN);
        assert_int_equal(short_of, ACCOUNT_BALANCE);
        assert_int_equal(settle(f, 100, 30), -EAGAIN);
        account_get(f->r, f->account, f->now_at_ms, &got, &is_marked);
        assert_true(is_marked);
        for (enum spend_period p = SPEND_DAY; p < SPEND_PERIODS; p++)
            assert_true(got.spending[p].left_nano == 0 || got.spending[p].left_nano == 1000);
        account_mark(f->r, f->account);
    }
}

/* ---- periods of words ---- */

/* Both sides of a border of one period: its word before, the other one after. */
static void cross(struct fixture *f, enum spend_period p, const char *border)
{
    int64_t after_ms = at(border), before_ms = after_ms - 1;
    struct account_values v = values_of(before_ms, NONE, NONE, NONE, NONE);
    struct reservation before = {f->account, 0, before_ms, 100};
    struct reservation after = {f->account, 0, after_ms, 40};
    struct account_marks marks;
    enum account_word short_of;
    bool is_marked;

    assert_int_equal(spend_period_number(p, after_ms), spend_period_number(p, before_ms) + 1);
    v.spending[p].left_nano = 150;
    v.spending[p].next_left_nano = 1000;
    account_recount_begin(f->r, f->account, &marks);
    assert_true(account_recount_end(f->r, f->account, &marks, &v));
    assert_int_equal(account_reserve(f->r, &before, &short_of), 0);
    assert_false(account_is_stale(f->r, f->account, before_ms));
    assert_true(account_is_stale(f->r, f->account, after_ms));
    assert_int_equal(account_reserve(f->r, &after, &short_of), 0); /* before any recount */
    assert_int_equal(account_reserve(f->r, &before, &short_of), XR_ECREDITS);
    assert_int_equal(short_of, ACCOUNT_DAY + p);
    account_get(f->r, f->account, before_ms, &v, &is_marked);
    assert_int_equal(v.spending[p].left_nano, 50);
    assert_int_equal(v.spending[p].next_left_nano, 960);
    assert_int_equal(account_settle(f->r, &before, 10), 0); /* across the border, where it was */
    assert_int_equal(account_settle(f->r, &after, 1), 0);
    account_get(f->r, f->account, after_ms, &v, &is_marked);
    assert_false(is_marked);
    assert_int_equal(v.spending[p].left_nano, 999);
    account_get(f->r, f->account, before_ms, &v, &is_marked);
    assert_int_equal(v.spending[p].left_nano, 140);
}

static void given_border_of_a_period_when_crossed_then_each_side_has_its_word(void **state)
{
    static const char *const midnights[] = {"2026-11-25", "2027-01-01", "2024-02-29", "2024-03-01",
                                            "2026-03-01", "2000-02-29", "2100-03-01"};
    static const char *const mondays[] = {"2026-11-30", "2024-03-04", "2025-12-29", "2027-01-04",
                                          "1970-01-05"};
    static const char *const firsts[] = {"2026-12-01", "2027-01-01", "2024-02-01", "2024-03-01",
                                         "2026-03-01", "2100-03-01", "1970-02-01"};
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(midnights) / sizeof(midnights[0]); i++)
        cross(f, SPEND_DAY, midnights[i]);
    for (size_t i = 0; i < sizeof(mondays) / sizeof(mondays[0]); i++)
        cross(f, SPEND_WEEK, mondays[i]);
    for (size_t i = 0; i < sizeof(firsts) / sizeof(firsts[0]); i++)
        cross(f, SPEND_MONTH, firsts[i]);
}

static void
given_moment_without_a_word_when_used_then_reserving_waits_and_settling_skips(void **state)
{
    struct fixture *f = *state;
    enum account_word short_of;

    put(f, 1000, 1000, 1000, NONE);
    for (int64_t days = -2; days <= 2; days += 4) {
        struct reservation r = {f->account, 0, f->now_at_ms + days * DAY_MS, 100};

        assert_int_equal(account_reserve(f->r, &r, &short_of), -EAGAIN);
        assert_left(f, 1000, 1000, 1000, NONE); /* nothing was taken from the balance */
    }
    {
        struct reservation r = {f->account, 0, f->now_at_ms - DAY_MS, 100};

        assert_int_equal(account_settle(f->r, &r, 101), 0); /* a day that is over, the same week */
        assert_left(f, 999, 1000, 999, NONE);
    }
}

static void given_two_periods_later_when_shown_then_nothing_is_known(void **state)
{
    struct fixture *f = *state;
    struct account_values v;
    bool is_marked;

    put(f, 1000, 2000, NONE, NONE);
    account_get(f->r, f->account, f->now_at_ms + 2 * DAY_MS, &v, &is_marked);
    assert_true(is_marked);
    assert_int_equal(v.balance_nano, 1000);
    assert_int_equal(v.spending[SPEND_DAY].left_nano, 0);
    account_get(f->r, f->account, f->now_at_ms + DAY_MS, &v, &is_marked);
    assert_false(is_marked);
    assert_int_equal(v.spending[SPEND_DAY].left_nano, 2000);
}

/* ---- sums ---- */

static int64_t random_nano(void)
{
    uint64_t bits = (uint64_t)(unsigned)rand() << 62 ^ (uint64_t)(unsigned)rand() << 31 ^
                    (uint64_t)(unsigned)rand();

    return (int64_t)(bits >> 1 >> (unsigned)rand() % 63); /* of every size */
}

static wide clamp(wide nano)
{
    if (nano > ACCOUNT_MAX_NANO)
        return ACCOUNT_MAX_NANO;
    return nano < -(wide)ACCOUNT_MAX_NANO ? -(wide)ACCOUNT_MAX_NANO : nano;
}

static void given_a_million_random_settlements_when_summed_then_exact_to_the_unit(void **state)
{
    struct fixture *f = *state;
    wide balance = ACCOUNT_MAX_NANO, day = -(wide)ACCOUNT_MAX_NANO;
    size_t at_the_ends = 0;

    srand(30);
    put(f, INT64_MAX - 1, -ACCOUNT_MAX_NANO - 5, NONE, NONE);
    assert_left(f, ACCOUNT_MAX_NANO, -ACCOUNT_MAX_NANO, NONE, NONE);
    for (size_t i = 0; i < SETTLEMENTS; i++) {
        int64_t amount = random_nano(), cost = random_nano();

        assert_int_equal(settle(f, amount, cost), 0);
        balance = clamp(balance + amount - cost);
        day = clamp(day + amount - cost);
        if (balance_of(f) != (int64_t)balance)
            fail_msg("settlement %zu", i);
        at_the_ends += balance == ACCOUNT_MAX_NANO || balance == -(wide)ACCOUNT_MAX_NANO;
    }
    assert_left(f, (int64_t)balance, (int64_t)day, NONE, NONE);
    assert_true(at_the_ends > 10 && at_the_ends < SETTLEMENTS / 2);
}

static void given_the_largest_numbers_when_settled_then_the_word_stays_a_value(void **state)
{
    struct fixture *f = *state;
    enum account_word short_of;

    put(f, -ACCOUNT_MAX_NANO, NONE, NONE, NONE);
    assert_int_equal(settle(f, 0, INT64_MAX), 0);
    assert_left(f, -ACCOUNT_MAX_NANO, NONE, NONE, NONE);
    assert_int_equal(settle(f, INT64_MAX, 0), 0);
    assert_left(f, ACCOUNT_MAX_NANO, NONE, NONE, NONE);
    account_add(f->r, f->account, INT64_MAX);
    assert_left(f, ACCOUNT_MAX_NANO, NONE, NONE, NONE);
    assert_int_equal(reserve(f, INT64_MAX, &short_of), XR_ECREDITS);
    assert_int_equal(reserve(f, ACCOUNT_MAX_NANO, &short_of), 0);
    assert_left(f, 0, NONE, NONE, NONE);
    account_add(f->r, f->account, -7);
    assert_left(f, -7, NONE, NONE, NONE);
}

/* ---- many at once ---- */

struct crowd {
    struct fixture *f;
    _Atomic int64_t spent;
    _Atomic uint64_t refused;
    _Atomic unsigned started;
};

/* Keeps 16 requests open until the money is gone, and settles each below its reservation. */
static int spend(void *arg)
{
    struct crowd *c = arg;
    unsigned seed = (unsigned)getpid();
    int64_t open[OPEN_EACH] = {0};
    unsigned refused_in_row = 0;

    atomic_fetch_add(&c->started, 1);
    while (c->started < PROCESSES)
        ;
    for (size_t i = 0; refused_in_row < 4 * OPEN_EACH; i = (i + 1) % OPEN_EACH) {
        int64_t amount = 1 + rand_r(&seed) % 1000;
        enum account_word short_of;

        if (open[i] > 0) {
            int64_t cost = rand_r(&seed) % (open[i] + 1);

            if (settle(c->f, open[i], cost) != 0)
                return 1;
            atomic_fetch_add(&c->spent, cost);
            open[i] = 0;
        }
        if (reserve(c->f, amount, &short_of) == 0) {
            open[i] = amount;
            refused_in_row = 0;
        } else {
            atomic_fetch_add(&c->refused, 1);
            refused_in_row++;
        }
    }
    for (size_t i = 0; i < OPEN_EACH; i++)
        if (open[i] > 0 && settle(c->f, open[i], 0) != 0)
            return 1;
    return 0;
}

static void given_64_requests_at_once_when_money_ends_then_not_a_nanocredit_too_much(void **state)
{
    const int64_t deposit = 20000000;
    struct crowd *c = forked_memory(sizeof(*c));
    enum account_word short_of;
    pid_t pids[PROCESSES];
    int64_t left;

    c->f = *state;
    put(c->f, deposit, NONE, 2 * deposit, NONE);
    for (size_t i = 0; i < PROCESSES; i++)
        pids[i] = forked_start(spend, c);
    for (size_t i = 0; i < PROCESSES; i++)
        assert_int_equal(forked_wait(pids[i]), 0);
    left = deposit - c->spent;
    assert_in_range(left, 0, deposit / 100);
    assert_left(c->f, left, NONE, 2 * deposit - c->spent, NONE);
    assert_true(c->refused > 0);
    assert_int_equal(reserve(c->f, left, &short_of), 0); /* all of it, now that all is settled */
    assert_int_equal(reserve(c->f, 1, &short_of), XR_ECREDITS);
    munmap(c, sizeof(*c));
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_known_dates_when_numbered_then_by_the_calendar),
        cmocka_unit_test(given_every_day_of_two_centuries_when_numbered_then_as_the_c_library_says),
        T(given_keys_when_opened_then_each_has_its_own_for_good),
        T(given_writer_that_died_before_it_counted_when_followed_then_the_account_stays),
        T(given_region_when_attached_then_checked),
        T(given_new_account_when_used_then_nothing_limits_it),
        T(given_all_limits_when_reserved_and_settled_then_each_word_pays_the_cost),
        T(given_some_limits_when_used_then_the_others_stay_out_of_force),
        T(given_one_short_word_when_reserved_then_refused_by_name_and_nothing_taken),
        T(given_cost_above_the_reservation_when_settled_then_refused_until_paid),
        T(given_marked_account_when_used_then_wait_and_values_are_not_shown),
        T(given_unlimited_account_when_marked_then_only_mark_all_stops_it),
        T(given_account_that_is_none_when_marked_then_ignored),
        T(given_recount_when_marked_again_meanwhile_then_its_values_do_not_count),
        T(given_recount_disturbed_at_any_word_when_used_then_nothing_is_taken),
        T(given_border_of_a_period_when_crossed_then_each_side_has_its_word),
        T(given_moment_without_a_word_when_used_then_reserving_waits_and_settling_skips),
        T(given_two_periods_later_when_shown_then_nothing_is_known),
        T(given_a_million_random_settlements_when_summed_then_exact_to_the_unit),
        T(given_the_largest_numbers_when_settled_then_the_word_stays_a_value),
        T(given_64_requests_at_once_when_money_ends_then_not_a_nanocredit_too_much),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
