/* What a request pays for its credits: reserving at admission and settling at the end, through the
 * row's states, on an account with a balance and all spending limits in force. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "gateway/inflight.h"

#define PAIRS 1000000
#define ROUNDS 5
#define LIMIT_NS 1000
#define NOW_AT_MS INT64_C(1795460000000)
#define AMOUNT_NANO INT64_C(1000000)
#define COST_NANO INT64_C(250000)
#define PLENTY_NANO INT64_C(1000000000000000)

static int64_t cpu_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void *region(struct shm_region_spec spec)
{
    size_t pages = (spec.bytes + 4095) / 4096 * 4096;
    void *p = aligned_alloc(4096, pages);

    if (p == NULL)
        abort();
    for (size_t i = 0; i < pages; i++)
        ((char *)p)[i] = 0;
    return p;
}

static uint32_t open_account(struct accounts_region *accounts)
{
    struct account_values values = {.balance_nano = PLENTY_NANO};
    struct account_marks marks;
    uint32_t account;

    for (enum spend_period p = SPEND_DAY; p < SPEND_PERIODS; p++) {
        values.spending[p].period = spend_period_number(p, NOW_AT_MS);
        values.spending[p].left_nano = values.spending[p].next_left_nano = PLENTY_NANO;
    }
    if (accounts_open(accounts, 1, &account) < 0)
        abort();
    account_recount_begin(accounts, account, &marks);
    if (!account_recount_end(accounts, account, &marks, &values))
        abort();
    return account;
}

static void run(struct inflight_row *row, struct accounts_region *accounts, uint32_t account)
{
    for (int i = 0; i < PAIRS; i++) {
        enum account_word short_of;

        row->reservation = (struct reservation){
            .account = account, .at_ms = NOW_AT_MS, .amount_nano = AMOUNT_NANO};
        row->event.cost_nano = COST_NANO;
        if (inflight_admit(row, accounts, &short_of) != 0)
            abort();
        inflight_finish(row);
        if (inflight_settle(row, accounts) != 0)
            abort();
    }
}

/* That the loop has done what it is paid for. */
static void check(const struct accounts_region *accounts, uint32_t account)
{
    int64_t left = PLENTY_NANO - (int64_t)ROUNDS * PAIRS * COST_NANO;
    struct account_values values;
    bool is_marked;

    account_get(accounts, account, NOW_AT_MS, &values, &is_marked);
    if (is_marked || values.balance_nano != left)
        abort();
    for (enum spend_period p = SPEND_DAY; p < SPEND_PERIODS; p++)
        if (values.spending[p].left_nano != left)
            abort();
}

int main(void)
{
    struct accounts_region *accounts = region(accounts_region_spec(16));
    struct inflight_region *rows = region(inflight_region_spec(1, 4));
    struct inflight_row *row;
    uint32_t account;
    int64_t best_ns = INT64_MAX;

    accounts_region_init(accounts, 16);
    inflight_region_init(rows, 1, 4, 1);
    account = open_account(accounts);
    row = inflight_take(rows, 0);
    if (row == NULL)
        abort();
    for (int i = 0; i < ROUNDS; i++) {
        int64_t began_ns = cpu_ns();
        int64_t took_ns;

        run(row, accounts, account);
        took_ns = cpu_ns() - began_ns;
        if (took_ns < best_ns)
            best_ns = took_ns;
    }
    check(accounts, account);
    printf("reserve + settle: %lld ns CPU each pair (limit %d)\n", (long long)(best_ns / PAIRS),
           LIMIT_NS);
    free(accounts);
    free(rows);
    return 0;
}
