/* Why no request and no recount miss each other: a request first stores its row's state (it enters
 * a bracket), then looks at the words; a recount first puts its marks on the words, then looks at
 * the rows. All four are sequentially consistent, so in their one order either the request meets a
 * mark or the recount meets the bracket. Hence, once a recount has seen no bracket, whoever still
 * wants to change a word finds its mark, and what it puts in stands for everything that was ever
 * changed. It is also why a word's old value cannot come back under the hands of a request that has
 * read it: that takes a recount, which waits for the request. */
#include "usage/accounts.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>

#include "common/error.h"

#define LINE 64
/* Below it words are marks; above it values and their saturating sums. */
#define MARKS_END INT64_C(-4500000000000000000)
#define REQUEST_WORDS (1 + SPEND_PERIODS) /* what one request changes */

/* One line is all that a request looks at unless a spending limit is in force. */
struct account {
    _Alignas(LINE) uint64_t key_id; /* never changes once the index points here */
    _Atomic int64_t words[ACCOUNT_WORDS];
    /* Of each pair of spending words, the number of the earlier period. Changes only while both
     * words are marked and nobody is in a bracket. */
    _Alignas(LINE) _Atomic int64_t periods[SPEND_PERIODS];
};

struct accounts_region {
    uint64_t capacity;
    uint64_t index_mask; /* the index is a power of two, at least twice the capacity */
    _Atomic uint64_t count;
    _Alignas(LINE) _Atomic uint64_t next_mark;
    _Atomic uint64_t marks;
    struct account accounts[]; /* and behind them the index: number of the account + 1, 0 = empty */
};

_Static_assert(sizeof(struct account) == 2 * LINE, "two lines, none shared with a neighbour");

static size_t index_words(size_t capacity)
{
    size_t words = 2;

    while (words < 2 * capacity)
        words *= 2;
    return words;
}

static uint64_t region_layout(void)
{
    static const uint64_t LAYOUT[] = {
        1, /* the meaning of the words */
        (uint64_t)MARKS_END,
        ACCOUNT_WORDS,
        sizeof(struct accounts_region),
        offsetof(struct accounts_region, index_mask),
        offsetof(struct accounts_region, count),
        offsetof(struct accounts_region, next_mark),
        offsetof(struct accounts_region, marks),
        offsetof(struct accounts_region, accounts),
        sizeof(struct account),
        offsetof(struct account, words),
        offsetof(struct account, periods),
    };

    return shm_layout_hash(0, LAYOUT, sizeof(LAYOUT));
}

struct shm_region_spec accounts_region_spec(size_t capacity)
{
    return (struct shm_region_spec){
        .name = ACCOUNTS_REGION,
        .bytes = sizeof(struct accounts_region) + capacity * sizeof(struct account) +
                 index_words(capacity) * sizeof(uint32_t),
        .layout = region_layout(),
    };
}

void accounts_region_init(struct accounts_region *r, size_t capacity)
{
    r->capacity = capacity;
    r->index_mask = index_words(capacity) - 1;
}

struct accounts_region *accounts_region_get(const struct shm *shm)
{
    size_t bytes;
    struct accounts_region *r = shm_region(shm, ACCOUNTS_REGION, region_layout(), &bytes);

    if (r == NULL || r->capacity == 0 || r->capacity > bytes / sizeof(struct account) ||
        r->index_mask != index_words(r->capacity) - 1 ||
        accounts_region_spec(r->capacity).bytes > bytes || accounts_count(r) > r->capacity)
        return NULL;
    return r;
}

static struct account *account_at(struct accounts_region *r, uint32_t account)
{
    assert(account < r->capacity);
    return &r->accounts[account];
}

static const struct account *account_seen(const struct accounts_region *r, uint32_t account)
{
    assert(account < r->capacity);
    return &r->accounts[account];
}

/* ---- words ---- */

static bool is_mark(int64_t value)
{
    return value < MARKS_END;
}

static int64_t new_mark(struct accounts_region *r)
{
    uint64_t n = atomic_fetch_add_explicit(&r->next_mark, 1, memory_order_relaxed);

    return INT64_MIN + (int64_t)n;
}

static int64_t saturate(int64_t nano)
{
    if (nano > ACCOUNT_MAX_NANO)
        return ACCOUNT_MAX_NANO;
    return nano < -ACCOUNT_MAX_NANO ? -ACCOUNT_MAX_NANO : nano;
}

int64_t account_sum(int64_t nano, int64_t delta)
{
    int64_t result;

    if (__builtin_add_overflow(nano, delta, &result))
        return delta > 0 ? ACCOUNT_MAX_NANO : -ACCOUNT_MAX_NANO;
    return saturate(result);
}

static size_t spending_word(enum spend_period period, int64_t number)
{
    return 1 + 2 * (size_t)period + (size_t)(number & 1);
}

static bool is_made_for(const struct account *a, enum spend_period period, int64_t number)
{
    int64_t first = atomic_load_explicit(&a->periods[period], memory_order_relaxed);

    return number == first || number == first + 1;
}

/* Unless the word is marked or unlimited. */
static void add(_Atomic int64_t *word, int64_t delta)
{
    int64_t value = atomic_load(word);

    while (value != ACCOUNT_UNLIMITED && !is_mark(value) &&
           !atomic_compare_exchange_weak(word, &value, account_sum(value, delta)))
        ;
}

/* ---- requests ---- */

struct change {
    int64_t delta;
    bool is_reserve;
};

/* 1 = changed, 0 = there is nothing to change, XR_ECREDITS, -EAGAIN. period is SPEND_PERIODS for
 * the balance. */
static int change_word(struct account *a, size_t word, enum spend_period period, int64_t number,
                       const struct change *change)
{
    int64_t value = atomic_load(&a->words[word]); /* after the row's state: see above */

    do {
        if (value == ACCOUNT_UNLIMITED)
            return 0;
        if (is_mark(value))
            return -EAGAIN;
        /* After the word, so that the number is at least as new. */
        if (period != SPEND_PERIODS && !is_made_for(a, period, number))
            return change->is_reserve ? -EAGAIN : 0;
        if (change->is_reserve && value < -change->delta) /* of a negative value nothing */
            return XR_ECREDITS;
        if (change->delta == 0)
            return 0;
    } while (
        !atomic_compare_exchange_weak(&a->words[word], &value, account_sum(value, change->delta)));
    return 1;
}

static int change_words(struct account *a, int64_t at_ms, const struct change *change,
                        enum account_word *stopped_at)
{
    _Atomic int64_t *changed[REQUEST_WORDS];
    size_t count = 0;
    int rc = 0;

    for (enum account_word which = ACCOUNT_BALANCE; which <= ACCOUNT_MONTH; which++) {
        enum spend_period period = SPEND_PERIODS;
        int64_t number = 0;
        size_t word = 0;

        if (which != ACCOUNT_BALANCE) {
            period = (enum spend_period)(which - ACCOUNT_DAY);
            number = spend_period_number(period, at_ms);
            word = spending_word(period, number);
        }
        rc = change_word(a, word, period, number, change);
        *stopped_at = which;
        if (rc < 0)
            break;
        if (rc > 0)
            changed[count++] = &a->words[word];
    }
    if (rc >= 0)
        return 0;
    /* A word that has become a mark keeps it: the recount waits for our bracket and counts without
     * us. */
    while (count > 0)
        add(changed[--count], -change->delta);
    return rc;
}

bool account_is_limited(const struct accounts_region *r, uint32_t account)
{
    const struct account *a = account_seen(r, account);

    for (size_t i = 0; i < ACCOUNT_WORDS; i++)
        if (atomic_load_explicit(&a->words[i], memory_order_relaxed) != ACCOUNT_UNLIMITED)
            return true;
    return false;
}

int account_reserve(struct accounts_region *r, const struct reservation *reservation,
                    enum account_word *short_of)
{
    const struct change change = {.delta = -reservation->amount_nano, .is_reserve = true};

    assert(reservation->amount_nano >= 0);
    return change_words(account_at(r, reservation->account), reservation->at_ms, &change, short_of);
}

int account_settle(struct accounts_region *r, const struct reservation *reservation,
                   int64_t cost_nano)
{
    struct change change = {.is_reserve = false};
    enum account_word stopped_at;

    if (__builtin_sub_overflow(reservation->amount_nano, cost_nano, &change.delta))
        change.delta = cost_nano < 0 ? INT64_MAX : -INT64_MAX;
    return change_words(account_at(r, reservation->account), reservation->at_ms, &change,
                        &stopped_at);
}

/* ---- marks ---- */

static void put_marks(struct accounts_region *r, struct account *a, bool unlimited_too)
{
    int64_t mark = new_mark(r);

    for (size_t i = 0; i < ACCOUNT_WORDS; i++) {
        int64_t value = atomic_load(&a->words[i]);

        while ((value != ACCOUNT_UNLIMITED || unlimited_too) &&
               !atomic_compare_exchange_weak(&a->words[i], &value, mark))
            ;
    }
    /* After the marks: whoever sees the new count finds them. */
    atomic_fetch_add_explicit(&r->marks, 1, memory_order_release);
}

void account_mark(struct accounts_region *r, uint32_t account)
{
    if (account < accounts_count(r))
        put_marks(r, &r->accounts[account], false);
}

void account_mark_all(struct accounts_region *r, uint32_t account)
{
    put_marks(r, account_at(r, account), true);
}

uint64_t accounts_marks(const struct accounts_region *r)
{
    return atomic_load_explicit(&r->marks, memory_order_acquire);
}

bool account_is_marked(const struct accounts_region *r, uint32_t account)
{
    const struct account *a = account_seen(r, account);

    for (size_t i = 0; i < ACCOUNT_WORDS; i++)
        if (is_mark(atomic_load_explicit(&a->words[i], memory_order_relaxed)))
            return true;
    return false;
}

/* ---- which key has which ---- */

static _Atomic uint32_t *index_of(const struct accounts_region *r)
{
    return (_Atomic uint32_t *)(r->accounts + r->capacity);
}

/* The number in the index + 1, 0 = none; *slot is the index word it is in or belongs in. */
static uint32_t find_account(const struct accounts_region *r, uint64_t key_id, uint64_t *slot)
{
    const _Atomic uint32_t *index = index_of(r);
    uint64_t i = key_id * UINT64_C(0x9e3779b97f4a7c15) >> 32; /* ids may be a plain sequence */
    uint32_t number;

    for (i &= r->index_mask;; i = (i + 1) & r->index_mask) {
        number = atomic_load_explicit(&index[i], memory_order_acquire);
        if (number == 0 || number > r->capacity || r->accounts[number - 1].key_id == key_id)
            break;
    }
    *slot = i;
    return number > r->capacity ? 0 : number;
}

int accounts_open(struct accounts_region *r, uint64_t key_id, uint32_t *account)
{
    uint64_t count = atomic_load_explicit(&r->count, memory_order_relaxed);
    uint64_t slot;
    uint32_t number;

    /* A writer that died between the last two stores left an account that is in the index already.
     */
    if (count < r->capacity && find_account(r, r->accounts[count].key_id, &slot) == count + 1)
        atomic_store_explicit(&r->count, ++count, memory_order_release);
    number = find_account(r, key_id, &slot);
    if (number == 0) {
        if (count == r->capacity)
            return -ENOSPC;
        number = (uint32_t)(count + 1);
        r->accounts[count].key_id = key_id;
        for (size_t i = 0; i < ACCOUNT_WORDS; i++)
            atomic_store_explicit(&r->accounts[count].words[i], ACCOUNT_UNLIMITED,
                                  memory_order_relaxed);
        atomic_store_explicit(&index_of(r)[slot], number, memory_order_release);
        atomic_store_explicit(&r->count, count + 1, memory_order_release);
    }
    *account = number - 1;
    return 0;
}

int accounts_find(const struct accounts_region *r, uint64_t key_id, uint32_t *account)
{
    uint64_t slot;
    uint32_t number = find_account(r, key_id, &slot);

    if (number == 0)
        return -ENOENT;
    *account = number - 1;
    return 0;
}

size_t accounts_count(const struct accounts_region *r)
{
    return atomic_load_explicit(&r->count, memory_order_acquire);
}

uint64_t account_key_id(const struct accounts_region *r, uint32_t account)
{
    return account_seen(r, account)->key_id;
}

/* ---- counting anew ---- */

void account_recount_begin(struct accounts_region *r, uint32_t account, struct account_marks *out)
{
    struct account *a = account_at(r, account);
    int64_t mark = new_mark(r);

    for (size_t i = 0; i < ACCOUNT_WORDS; i++) {
        int64_t value = atomic_load(&a->words[i]);

        while (!is_mark(value) && !atomic_compare_exchange_weak(&a->words[i], &value, mark))
            ;
        out->marks[i] = is_mark(value) ? value : mark;
    }
}

static int64_t stored(int64_t nano)
{
    return nano == ACCOUNT_UNLIMITED ? nano : saturate(nano);
}

bool account_recount_end(struct accounts_region *r, uint32_t account,
                         const struct account_marks *marks, const struct account_values *values)
{
    struct account *a = account_at(r, account);
    int64_t words[ACCOUNT_WORDS] = {stored(values->balance_nano)};

    for (enum spend_period p = SPEND_DAY; p < SPEND_PERIODS; p++) {
        int64_t number = values->spending[p].period;
        int64_t left = values->spending[p].left_nano;
        int64_t next = values->spending[p].next_left_nano;

        words[spending_word(p, number)] = stored(left);
        words[spending_word(p, number + 1)] =
            left == ACCOUNT_UNLIMITED ? ACCOUNT_UNLIMITED : stored(next);
        atomic_store_explicit(&a->periods[p], number, memory_order_relaxed);
    }
    /* Backwards, against the order of all others: a request finds the balance marked until all is
     * in, so that it takes nothing which it would have to give back, and whoever marks again before
     * that does it before we are done. */
    for (size_t i = ACCOUNT_WORDS; i-- > 0;) {
        int64_t mark = marks->marks[i];

        if (!atomic_compare_exchange_strong(&a->words[i], &mark, words[i]))
            return false;
    }
    return true;
}

void account_add(struct accounts_region *r, uint32_t account, int64_t amount_nano)
{
    add(&account_at(r, account)->words[0], amount_nano);
}

/* ---- reports ---- */

static int64_t shown(int64_t value, bool *is_missing)
{
    if (!is_mark(value))
        return value;
    *is_missing = true;
    return 0;
}

static int64_t shown_spending(const struct account *a, enum spend_period period, int64_t number,
                              bool *is_missing)
{
    int64_t value =
        atomic_load_explicit(&a->words[spending_word(period, number)], memory_order_acquire);

    if (value == ACCOUNT_UNLIMITED || is_made_for(a, period, number))
        return shown(value, is_missing);
    *is_missing = true;
    return 0;
}

void account_get(const struct accounts_region *r, uint32_t account, int64_t now_at_ms,
                 struct account_values *out, bool *is_marked)
{
    const struct account *a = account_seen(r, account);
    bool is_next_missing = false;

    *is_marked = false;
    out->balance_nano = shown(atomic_load_explicit(&a->words[0], memory_order_acquire), is_marked);
    for (enum spend_period p = SPEND_DAY; p < SPEND_PERIODS; p++) {
        int64_t number = spend_period_number(p, now_at_ms);

        out->spending[p].period = number;
        out->spending[p].left_nano = shown_spending(a, p, number, is_marked);
        out->spending[p].next_left_nano = shown_spending(a, p, number + 1, &is_next_missing);
    }
}

bool account_is_stale(const struct accounts_region *r, uint32_t account, int64_t now_at_ms)
{
    const struct account *a = account_seen(r, account);

    for (enum spend_period p = SPEND_DAY; p < SPEND_PERIODS; p++) {
        size_t word = spending_word(p, 0);

        if (atomic_load_explicit(&a->words[word], memory_order_acquire) != ACCOUNT_UNLIMITED &&
            atomic_load_explicit(&a->periods[p], memory_order_relaxed) !=
                spend_period_number(p, now_at_ms))
            return true;
    }
    return false;
}
