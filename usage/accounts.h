/* accounts.h - what each key may still spend: words in shared memory that a request reserves from
 * at admission and gives the rest back to at settlement, with no lock and no system call.
 *
 * A key has one account for the life of the instance. Its words: the prepaid balance, and what is
 * left of the spending limits of the UTC day, of the week (from Monday) and of the month. A
 * spending limit has two words, by the period's parity: the next period's stands ready before it
 * begins, and what runs across the border settles where it was reserved.
 *
 * A word holds nanocredits, or ACCOUNT_UNLIMITED (that limit is not in force), or a mark: its value
 * is being counted anew ("recount") by the usage-writer, and nobody may touch it. Reservations
 * themselves exist only in in-flight rows: a row is in one of two brackets (reserving, settling)
 * while the words change, so a process that dies there leaves a mark instead of a wrong sum.
 *
 * Who counts anew: the usage-writer (usage/recount.h). Who marks: the usage-writer when it starts
 * or a limit changes, the reaper when it frees a dead worker's row. */
#ifndef XROUTER_USAGE_ACCOUNTS_H
#define XROUTER_USAGE_ACCOUNTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/shm.h"
#include "usage/spend_period.h"

#define ACCOUNTS_REGION "accounts"
#define ACCOUNT_UNLIMITED INT64_MAX
/* Values stay inside +-ACCOUNT_MAX_NANO (4 * 10^9 credits): sums saturate there. */
#define ACCOUNT_MAX_NANO INT64_C(4000000000000000000)
/* nano + delta, kept inside these bounds. */
int64_t account_sum(int64_t nano, int64_t delta);

struct accounts_region; /* in shared memory; opaque */

/* init expects zeroed memory. capacity is how many keys there may be. */
struct shm_region_spec accounts_region_spec(size_t capacity);
void accounts_region_init(struct accounts_region *r, size_t capacity);
struct accounts_region *accounts_region_get(const struct shm *shm); /* NULL: absent or not ours */

/* What a request has reserved; embedded in its in-flight row. Zero amount: nothing. */
struct reservation {
    uint32_t account;
    uint32_t unused;
    int64_t at_ms; /* Unix time of admission: it names the periods */
    int64_t amount_nano;
};

/* Which limit was too short. */
enum account_word { ACCOUNT_BALANCE, ACCOUNT_DAY, ACCOUNT_WEEK, ACCOUNT_MONTH };

/* Whether any limit is in force, or may be (marked). If not, what a request costs at most need not
 * be known: reserve 0. */
bool account_is_limited(const struct accounts_region *r, uint32_t account);

/* Takes amount_nano (not negative) from every word in force, all or nothing. Inside the caller's
 * bracket. 0; XR_ECREDITS (*short_of: the word that holds less, or is below zero); -EAGAIN: a
 * recount is due, or at_ms lies in a period that has no word (any more); nothing is reserved, try
 * again some milliseconds later with a new at_ms. */
int account_reserve(struct accounts_region *r, const struct reservation *reservation,
                    enum account_word *short_of);
/* Gives amount_nano back and takes cost_nano. Inside the caller's bracket. A cost above the amount
 * is taken in full: the word may go below zero. A period that has no word any more is left out. 0,
 * or -EAGAIN: a recount is due, nothing has changed that will count; leave the bracket and try
 * again. */
int account_settle(struct accounts_region *r, const struct reservation *reservation,
                   int64_t cost_nano);

/* ---- for the reaper and the usage-writer ---- */

/* Marks every word in force (each call with a new mark, also over an older one) and wakes the
 * recount. What is unlimited stays so: safe while the row that the reaper looks at is in a bracket,
 * because a recount that brings a limit into force waits for brackets. An account that there is not
 * is ignored: the reaper reads it in a dead worker's row. */
void account_mark(struct accounts_region *r, uint32_t account);

/* ---- for the usage-writer alone ---- */

/* The key's account; a new one has no limit. 0 or -ENOSPC. */
int accounts_open(struct accounts_region *r, uint64_t key_id, uint32_t *account);
int accounts_find(const struct accounts_region *r, uint64_t key_id,
                  uint32_t *account); /* -ENOENT */
size_t accounts_count(const struct accounts_region *r);
uint64_t account_key_id(const struct accounts_region *r, uint32_t account);
/* As account_mark(), the unlimited words too: when a key is loaded that has a limit, and when a
 * limit comes, goes or changes. */
void account_mark_all(struct accounts_region *r, uint32_t account);
/* Rises with every account_mark() and account_mark_all(): something may be marked that was not. */
uint64_t accounts_marks(const struct accounts_region *r);
bool account_is_marked(const struct accounts_region *r, uint32_t account);

/* What the words shall hold. Of a spending limit both words: of the current period and the next. */
struct account_values {
    int64_t balance_nano; /* or ACCOUNT_UNLIMITED */
    struct {
        int64_t period;         /* the current one's number */
        int64_t left_nano;      /* or ACCOUNT_UNLIMITED, then the next too */
        int64_t next_left_nano; /* of period + 1 */
    } spending[SPEND_PERIODS];
};
#define ACCOUNT_WORDS (1 + 2 * SPEND_PERIODS)
struct account_marks {
    int64_t marks[ACCOUNT_WORDS];
};
/* Marks all words, unlimited ones too, where no mark stands yet, and remembers the marks. From
 * here on no request changes them; one that is in a bracket may still be falling back. */
void account_recount_begin(struct accounts_region *r, uint32_t account, struct account_marks *out);
/* Puts the values in if the marks still stand. False: somebody marked again meanwhile; begin anew.
 * Between the two calls, and after the first, the caller has seen no row of the account in a
 * bracket. */
bool account_recount_end(struct accounts_region *r, uint32_t account,
                         const struct account_marks *marks, const struct account_values *values);
/* Adds to the balance (a payment). Marked or unlimited words stay as they are: the recount will
 * find the database changed. */
void account_add(struct accounts_region *r, uint32_t account, int64_t amount_nano);
/* What the words hold: for reports, by the periods of now. What is marked or not made yet is 0; if
 * that is more than a next period's word, *is_marked. */
void account_get(const struct accounts_region *r, uint32_t account, int64_t now_at_ms,
                 struct account_values *out, bool *is_marked);
/* Whether a spending limit's words were made for other periods than now's and the next: a new one
 * has begun (or the clock was set). */
bool account_is_stale(const struct accounts_region *r, uint32_t account, int64_t now_at_ms);

#endif
