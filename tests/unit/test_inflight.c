#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/error.h"
#include "gateway/inflight.h"
#include "tests/unit/forked.h"

#define SLOTS 2
#define ROWS 8
#define SLOT 1
#define NODE 0x0a0b0c0d
#define CREATED_AT_MS INT64_C(1795460000000)
#define NOW_AT_MS (CREATED_AT_MS + 1500)
#define RING_BYTES ((size_t)40 * USAGE_EVENT_MAX)
#define STRESS_MS 1500
#define KEYS 2
#define KEY_ID 9 /* of the first key */
#define AMOUNT 500
#define BALANCE 10000

struct fixture {
    struct inflight_region *r;
    struct outbox_region *rings;
    struct outbox *ob;
    struct counters_region *counters;
    struct accounts_region *accounts;
    uint32_t account;                     /* of the first key; it has a balance */
    uint8_t records[8 * USAGE_EVENT_MAX]; /* read from the ring, not looked at yet */
    size_t record_bytes, record_at;
    uint64_t read_to; /* in the ring */
};

static void put_balance(struct fixture *f, int64_t balance)
{
    struct account_values values = {.balance_nano = balance};
    struct account_marks marks;

    for (enum spend_period p = SPEND_DAY; p < SPEND_PERIODS; p++)
        values.spending[p].left_nano = ACCOUNT_UNLIMITED;
    account_recount_begin(f->accounts, f->account, &marks);
    assert_true(account_recount_end(f->accounts, f->account, &marks, &values));
}

static int64_t balance_of(const struct fixture *f, bool *is_marked)
{
    struct account_values values;

    account_get(f->accounts, f->account, CREATED_AT_MS, &values, is_marked);
    return values.balance_nano;
}

static void assert_balance(const struct fixture *f, int64_t balance)
{
    bool is_marked;

    assert_int_equal(balance_of(f, &is_marked), balance);
    assert_false(is_marked);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    uint32_t other;

    f->r = forked_memory(inflight_region_spec(SLOTS, ROWS).bytes);
    inflight_region_init(f->r, SLOTS, ROWS, NODE);
    f->rings = forked_memory(outbox_region_spec(SLOTS, RING_BYTES).bytes);
    outbox_region_init(f->rings, SLOTS, RING_BYTES);
    f->ob = outbox_slot(f->rings, SLOT);
    f->counters = forked_memory(counters_region_spec(SLOTS, 2, 2).bytes);
    counters_region_init(f->counters, SLOTS, 2, 2);
    f->accounts = forked_memory(accounts_region_spec(KEYS).bytes);
    accounts_region_init(f->accounts, KEYS);
    assert_int_equal(accounts_open(f->accounts, KEY_ID, &f->account), 0);
    assert_int_equal(accounts_open(f->accounts, KEY_ID + 1, &other), 0);
    put_balance(f, BALANCE);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    munmap(f->r, inflight_region_spec(SLOTS, ROWS).bytes);
    munmap(f->rings, outbox_region_spec(SLOTS, RING_BYTES).bytes);
    munmap(f->counters, counters_region_spec(SLOTS, 2, 2).bytes);
    munmap(f->accounts, accounts_region_spec(KEYS).bytes);
    free(f);
    return 0;
}

/* As a worker does it: room, row, id. */
static struct inflight_row *take(struct fixture *f)
{
    struct inflight_row *row;

    assert_true(outbox_reserve(f->ob));
    row = inflight_take(f->r, SLOT);
    assert_non_null(row);
    usage_id_next(inflight_ids(f->r, SLOT), SLOT, CREATED_AT_MS, &row->event.id);
    row->event.key_id = KEY_ID;
    row->event.created_at_ms = CREATED_AT_MS;
    row->event.price = (struct price){.input_nano = 2000000,
                                      .cached_input_nano = 1000000,
                                      .output_nano = 3000000,
                                      .request_nano = 7};
    row->event.tokens_input = 100;
    row->reservation =
        (struct reservation){.account = f->account, .at_ms = CREATED_AT_MS, .amount_nano = AMOUNT};
    return row;
}

/* RUNNING. */
static struct inflight_row *admit(struct fixture *f)
{
    struct inflight_row *row = take(f);
    enum account_word short_of;

    assert_int_equal(inflight_admit(row, f->accounts, &short_of), 0);
    assert_int_equal(row->state, INFLIGHT_RUNNING);
    return row;
}

/* FINAL, its event in the ring. */
static void finish(struct fixture *f, struct inflight_row *row, int64_t cost_nano)
{
    row->event.cost_nano = cost_nano;
    inflight_finish(row);
    outbox_append(f->ob, &row->event);
}

static size_t reap(struct fixture *f)
{
    return inflight_reap(f->r, SLOT, f->ob, f->accounts, f->counters, NOW_AT_MS);
}

/* The ring's next event; false at its head. */
static bool next_event(struct fixture *f, struct usage_event *out)
{
    size_t used;

    memset(out, 0, sizeof(*out));
    if (f->record_at == f->record_bytes) {
        ssize_t n = outbox_read(f->ob, f->read_to, f->records, sizeof(f->records), &f->read_to);

        assert_true(n >= 0);
        f->record_bytes = (size_t)n;
        f->record_at = 0;
    }
    if (f->record_bytes == 0)
        return false;
    assert_int_equal(
        usage_event_decode(f->records + f->record_at, f->record_bytes - f->record_at, out, &used),
        0);
    f->record_at += used;
    return true;
}

static void given_new_slot_when_all_rows_are_taken_then_each_once_and_no_more(void **state)
{
    struct fixture *f = *state;
    struct inflight_row *rows[ROWS];

    for (size_t i = 0; i < ROWS; i++) {
        rows[i] = inflight_take(f->r, SLOT);
        assert_ptr_equal(rows[i], inflight_row_at(f->r, SLOT, i));
    }
    assert_null(inflight_take(f->r, SLOT));
    inflight_free(f->r, SLOT, rows[3]);
    assert_ptr_equal(inflight_take(f->r, SLOT), rows[3]);
    assert_non_null(inflight_take(f->r, 0)); /* the neighbour has its own */
}

static void given_used_row_when_taken_again_then_clean(void **state)
{
    struct fixture *f = *state;
    struct inflight_row *row = admit(f);
    static const struct usage_event none;

    row->has_answer = 1;
    row->kill = 1;
    finish(f, row, 0);
    assert_int_equal(inflight_settle(row, f->accounts), 0);
    inflight_free(f->r, SLOT, row);
    row = inflight_take(f->r, SLOT);
    assert_memory_equal(&row->event, &none, sizeof(none));
    assert_int_equal(row->reservation.amount_nano, 0);
    assert_int_equal(row->is_queued, 0);
    assert_int_equal(row->has_answer, 0);
    assert_int_equal(row->kill, 0);
    assert_int_equal(row->state, INFLIGHT_FREE); /* not the reaper's business yet */
}

static void given_row_that_was_only_taken_when_reaped_then_nothing_is_owed(void **state)
{
    struct fixture *f = *state;

    assert_true(outbox_reserve(f->ob));
    inflight_take(f->r, SLOT);
    assert_int_equal(reap(f), 0);
    assert_int_equal(outbox_head(f->ob), 0);
    inflight_slot_open(f->r, SLOT);
    for (size_t i = 0; i < ROWS; i++)
        assert_non_null(inflight_take(f->r, SLOT));
}

static void given_running_row_without_answer_when_reaped_then_nothing_is_billed(void **state)
{
    struct fixture *f = *state;
    struct inflight_row *row = admit(f);
    struct usage_id id = row->event.id;
    struct usage_event got;

    row->event.cost_nano = 55;
    row->event.attempt_count = 1;
    row->event.attempts[0].started_at_ms = CREATED_AT_MS + 500;
    assert_int_equal(reap(f), 1);
    assert_true(next_event(f, &got));
    assert_memory_equal(&got.id, &id, sizeof(id));
    assert_int_equal(got.key_id, 9);
    assert_int_equal(got.outcome, USAGE_ABORTED);
    assert_int_equal(got.source, USAGE_BY_NOBODY);
    assert_int_equal(got.tokens_input, 0);
    assert_int_equal(got.tokens_output, 0);
    assert_int_equal(got.cost_nano, 0);
    assert_int_equal(got.error, XR_EINTERNAL);
    assert_int_equal(got.duration_ms, 1500);
    assert_int_equal(got.attempts[0].duration_ms, 1000);
    assert_int_equal(got.attempts[0].error, XR_EINTERNAL);
    assert_int_equal(row->state, INFLIGHT_FREE);
    assert_false(next_event(f, &got));
}

static void given_running_row_with_answer_when_reaped_then_what_was_received_is_billed(void **state)
{
    struct fixture *f = *state;
    struct inflight_row *row = admit(f);
    struct usage_event got;

    row->event.tokens_cached = 40;
    row->event.tokens_output = 11;
    row->event.attempt_count = 2;
    row->event.attempts[0].error = XR_EUPSTREAM;
    row->event.attempts[0].duration_ms = 3;
    row->has_answer = 1;
    assert_int_equal(reap(f), 1);
    assert_true(next_event(f, &got));
    assert_int_equal(got.outcome, USAGE_ABORTED);
    assert_int_equal(got.source, USAGE_BY_PARTIAL);
    assert_int_equal(got.tokens_input, 100);
    assert_int_equal(got.tokens_cached, 40);
    assert_int_equal(got.tokens_output, 11);
    /* (60 * 2 + 40 * 1 + 11 * 3) + 7 */
    assert_int_equal(got.cost_nano, 200);
    assert_int_equal(got.attempts[0].tokens_output, 0);
    assert_int_equal(got.attempts[0].duration_ms, 3);
    assert_int_equal(got.attempts[1].tokens_output, 11);
    assert_int_equal(got.attempts[1].error, XR_EINTERNAL);
}

static void given_numbers_of_a_dead_worker_when_impossible_then_never_a_negative_cost(void **state)
{
    struct fixture *f = *state;
    struct inflight_row *row = admit(f);
    struct usage_event got;

    row->event.tokens_input = -5;
    row->event.tokens_cached = 12;
    row->event.tokens_output = -1;
    row->event.attempt_count = 255;
    row->has_answer = 1;
    assert_int_equal(reap(f), 1);
    assert_true(next_event(f, &got));
    assert_int_equal(got.tokens_input, 0);
    assert_int_equal(got.tokens_cached, 0);
    assert_int_equal(got.tokens_output, 0);
    assert_int_equal(got.cost_nano, 7);
    assert_int_equal(got.attempt_count, USAGE_ATTEMPTS_MAX);
}

static void given_final_row_when_reaped_then_its_numbers_are_billed(void **state)
{
    struct fixture *f = *state;
    struct inflight_row *row = admit(f);
    struct usage_event expected, got;

    row->event.tokens_output = 20;
    row->event.cost_nano = 267;
    row->event.source = USAGE_BY_PROVIDER;
    row->event.outcome = USAGE_OK;
    row->event.http_status = 200;
    row->event.duration_ms = 42;
    inflight_finish(row);
    expected = row->event;
    assert_int_equal(reap(f), 1);
    assert_true(next_event(f, &got));
    assert_memory_equal(&got, &expected, sizeof(got));
}

static void given_reaped_slot_when_opened_then_all_is_as_new(void **state)
{
    struct fixture *f = *state;
    struct counters *c = counters_slot(f->counters, SLOT);

    outbox_set_owner(f->ob, 4711);
    admit(f);
    inflight_finish(admit(f));
    counter_inc(&c->requests_total);
    counter_inc(&c->requests_in_flight);
    assert_int_equal(reap(f), 2);
    assert_int_equal(c->requests_in_flight, 0);
    assert_int_equal(c->requests_total, 1);
    assert_int_equal(outbox_owner(f->ob), 0);
    assert_int_equal(reap(f), 0); /* nothing is owed twice */
    inflight_slot_open(f->r, SLOT);
    outbox_set_committed(f->ob, outbox_head(f->ob));
    put_balance(f, BALANCE);
    for (size_t i = 0; i < ROWS; i++)
        admit(f);
}

static int reap_into_frozen_ring(void *arg)
{
    struct fixture *f = arg;

    signal(SIGSEGV, SIG_DFL);
    mprotect(f->rings, outbox_region_spec(SLOTS, RING_BYTES).bytes, PROT_READ);
    return (int)reap(f);
}

static void given_reaper_that_died_appending_when_run_again_then_its_numbers_stand(void **state)
{
    struct fixture *f = *state;
    struct inflight_row *row = admit(f);
    struct usage_event got;

    row->has_answer = 1;
    row->event.tokens_output = 5;
    assert_int_equal(forked_wait(forked_start(reap_into_frozen_ring, f)), -1);
    assert_int_equal(row->state, INFLIGHT_FINAL);
    assert_int_equal(inflight_reap(f->r, SLOT, f->ob, f->accounts, f->counters, NOW_AT_MS + 99), 1);
    assert_true(next_event(f, &got));
    assert_int_equal(got.outcome, USAGE_ABORTED);
    assert_int_equal(got.tokens_output, 5);
    assert_int_equal(got.duration_ms, 1500); /* by the first one's clock */
}

static void given_reaper_that_died_after_appending_when_run_again_then_the_same_bytes(void **state)
{
    struct fixture *f = *state;
    struct inflight_row *row = admit(f);
    struct usage_event first, second;

    row->has_answer = 1;
    row->event.tokens_output = 5;
    assert_int_equal(reap(f), 1);
    /* As the first reaper left it, had it died just before it freed the row. */
    assert_int_equal(row->event.outcome, USAGE_ABORTED);
    inflight_finish(row);
    assert_int_equal(inflight_reap(f->r, SLOT, f->ob, NULL, NULL, NOW_AT_MS + 99), 1);
    assert_true(next_event(f, &first));
    assert_true(next_event(f, &second));
    assert_memory_equal(&first, &second, sizeof(first));
}

static void given_ring_without_room_when_reaped_then_the_row_waits_for_the_next_time(void **state)
{
    struct fixture *f = *state;
    struct usage_event largest = {.attempt_count = USAGE_ATTEMPTS_MAX}, got;
    struct inflight_row *row = admit(f);
    struct usage_id id = row->event.id;

    for (size_t i = 0; i < USAGE_ATTEMPTS_MAX; i++) {
        memset(largest.attempts[i].provider, 'p', USAGE_NAME_BYTES - 1);
        memset(largest.attempts[i].model, 'm', USAGE_NAME_BYTES - 1);
    }
    while (outbox_has_room(f->ob))
        outbox_append(f->ob, &largest);
    assert_int_equal(reap(f), 0);
    inflight_slot_open(f->r, SLOT);
    for (size_t i = 1; i < ROWS; i++)
        assert_ptr_not_equal(inflight_take(f->r, SLOT), row);
    assert_null(inflight_take(f->r, SLOT));
    f->read_to = outbox_head(f->ob);
    outbox_set_spooled(f->ob, f->read_to);
    assert_int_equal(reap(f), 1);
    assert_true(next_event(f, &got));
    assert_memory_equal(&got.id, &id, sizeof(id));
}

/* ---- the account ---- */

static void given_request_when_admitted_and_settled_then_its_account_pays_the_cost(void **state)
{
    struct fixture *f = *state;
    struct inflight_row *row = admit(f);

    assert_balance(f, BALANCE - AMOUNT);
    finish(f, row, 120);
    assert_balance(f, BALANCE - AMOUNT);
    assert_int_equal(inflight_settle(row, f->accounts), 0);
    assert_int_equal(row->state, INFLIGHT_SETTLED);
    assert_balance(f, BALANCE - 120);
    assert_int_equal(reap(f), 0); /* the last bytes were still on their way */
    assert_int_equal(row->state, INFLIGHT_FREE);
    assert_balance(f, BALANCE - 120);
}

static void given_too_little_credit_when_admitted_then_the_row_is_as_before(void **state)
{
    struct fixture *f = *state;
    struct inflight_row *row = take(f);
    enum account_word short_of = ACCOUNT_MONTH;

    row->reservation.amount_nano = BALANCE + 1;
    assert_int_equal(inflight_admit(row, f->accounts, &short_of), XR_ECREDITS);
    assert_int_equal(short_of, ACCOUNT_BALANCE);
    assert_int_equal(row->state, INFLIGHT_FREE);
    row->reservation.amount_nano = BALANCE;
    assert_int_equal(inflight_admit(row, f->accounts, &short_of), 0);
    assert_balance(f, 0);
}

static void given_marked_account_when_used_then_both_ends_of_a_request_wait(void **state)
{
    struct fixture *f = *state;
    struct inflight_row *ending = admit(f), *beginning = take(f);
    enum account_word short_of;

    account_mark(f->accounts, f->account);
    assert_int_equal(inflight_admit(beginning, f->accounts, &short_of), -EAGAIN);
    assert_int_equal(beginning->state, INFLIGHT_FREE);
    finish(f, ending, 120);
    assert_int_equal(inflight_settle(ending, f->accounts), -EAGAIN);
    assert_int_equal(ending->state, INFLIGHT_FINAL);
    put_balance(f, BALANCE - AMOUNT); /* the one row's reservation */
    assert_int_equal(inflight_settle(ending, f->accounts), 0);
    assert_balance(f, BALANCE - 120);
    assert_int_equal(inflight_admit(beginning, f->accounts, &short_of), 0);
}

static void
given_row_that_waits_for_a_recount_when_reaped_then_its_event_is_not_doubled(void **state)
{
    struct fixture *f = *state;
    struct inflight_row *row = admit(f);
    struct usage_event got;

    account_mark(f->accounts, f->account);
    finish(f, row, 120);
    assert_int_equal(inflight_settle(row, f->accounts), -EAGAIN);
    assert_int_equal(reap(f), 0);
    assert_int_equal(row->state, INFLIGHT_FREE);
    assert_true(next_event(f, &got));
    assert_false(next_event(f, &got));
}

static void
given_row_of_any_state_when_reaped_then_its_account_is_marked_unless_settled(void **state)
{
    struct fixture *f = *state;
    static const struct {
        enum inflight_state state;
        size_t events;
        bool is_marked;
    } cases[] = {
        {INFLIGHT_FREE, 0, false}, {INFLIGHT_RESERVING, 0, true}, {INFLIGHT_RUNNING, 1, true},
        {INFLIGHT_FINAL, 1, true}, {INFLIGHT_SETTLING, 0, true},  {INFLIGHT_SETTLED, 0, false},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct inflight_row *row = admit(f);
        bool is_marked;

        row->state = cases[i].state;
        assert_int_equal(reap(f), cases[i].events);
        assert_int_equal(row->state, INFLIGHT_FREE);
        balance_of(f, &is_marked);
        assert_int_equal(is_marked, cases[i].is_marked);
        assert_int_equal(reap(f), 0);
        put_balance(f, BALANCE);
        inflight_slot_open(f->r, SLOT);
    }
}

static void given_no_accounts_when_reaped_then_events_are_owed_all_the_same(void **state)
{
    struct fixture *f = *state;
    uint64_t marks = accounts_marks(f->accounts);

    admit(f);
    inflight_finish(admit(f));
    assert_int_equal(inflight_reap(f->r, SLOT, f->ob, NULL, NULL, NOW_AT_MS), 2);
    assert_int_equal(accounts_marks(f->accounts), marks);
}

static void count_states(void *arg, const struct open_request *request)
{
    size_t *counts = arg;

    counts[request->state]++;
}

static int reap_with_frozen_accounts(void *arg)
{
    struct fixture *f = arg;

    signal(SIGSEGV, SIG_DFL);
    mprotect(f->accounts, accounts_region_spec(KEYS).bytes, PROT_READ);
    return (int)reap(f);
}

static void
given_reaper_that_died_marking_when_run_again_then_the_row_was_in_a_bracket(void **state)
{
    struct fixture *f = *state;
    size_t counts[OPEN_FINAL + 1] = {0};
    struct inflight_row *row = admit(f);
    bool is_marked;

    assert_int_equal(forked_wait(forked_start(reap_with_frozen_accounts, f)), -1);
    assert_int_equal(row->state, INFLIGHT_SETTLING);
    inflight_each_open(f->r, count_states, counts);
    assert_int_equal(counts[OPEN_IN_BRACKET], 1);
    assert_int_equal(counts[OPEN_RUNNING] + counts[OPEN_FINAL], 0);
    assert_int_equal(reap(f), 0); /* its event is in the ring */
    balance_of(f, &is_marked);
    assert_true(is_marked);
}

/* ---- the recount's look at the rows ---- */

static void
given_rows_of_all_states_when_visited_then_the_open_ones_with_what_they_owe(void **state)
{
    struct fixture *f = *state;
    size_t counts[OPEN_FINAL + 1] = {0};
    static const enum inflight_state states[] = {INFLIGHT_FREE,     INFLIGHT_RESERVING,
                                                 INFLIGHT_RUNNING,  INFLIGHT_FINAL,
                                                 INFLIGHT_SETTLING, INFLIGHT_SETTLED};

    for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++)
        admit(f)->state = states[i];
    inflight_each_open(f->r, count_states, counts);
    assert_int_equal(counts[OPEN_IN_BRACKET], 2);
    assert_int_equal(counts[OPEN_RUNNING], 1);
    assert_int_equal(counts[OPEN_FINAL], 1);
}

static void note_request(void *arg, const struct open_request *request)
{
    *(struct open_request *)arg = *request;
}

static void given_final_row_when_visited_then_id_key_reservation_and_cost(void **state)
{
    struct fixture *f = *state;
    struct open_request got = {0};
    struct inflight_row *row = admit(f);

    finish(f, row, 120);
    inflight_each_open(f->r, note_request, &got);
    assert_int_equal(got.state, OPEN_FINAL);
    assert_int_equal(got.key_id, KEY_ID);
    assert_memory_equal(&got.id, &row->event.id, sizeof(got.id));
    assert_int_equal(got.reservation.account, f->account);
    assert_int_equal(got.reservation.at_ms, CREATED_AT_MS);
    assert_int_equal(got.reservation.amount_nano, AMOUNT);
    assert_int_equal(got.cost_nano, 120);
}

/* Two keys take turns in one row; the second one has no limit and other numbers. */
static int churn(void *arg)
{
    struct fixture *f = arg;
    enum account_word short_of;

    for (uint64_t i = 0;; i++) {
        struct inflight_row *row = inflight_take(f->r, SLOT);
        uint64_t which = i % KEYS;

        usage_id_next(inflight_ids(f->r, SLOT), SLOT, CREATED_AT_MS, &row->event.id);
        row->event.key_id = KEY_ID + which;
        row->reservation = (struct reservation){f->account + (uint32_t)which, 0,
                                                CREATED_AT_MS + (int64_t)which, 1 + (int64_t)which};
        if (inflight_admit(row, f->accounts, &short_of) != 0)
            return 1;
        row->event.cost_nano = 1 + (int64_t)which;
        inflight_finish(row);
        if (inflight_settle(row, f->accounts) != 0)
            return 2;
        inflight_free(f->r, SLOT, row);
    }
}

struct churned {
    struct fixture *f;
    size_t visits, torn;
};

static void check_request(void *arg, const struct open_request *request)
{
    struct churned *c = arg;
    uint64_t which = request->key_id - KEY_ID;

    c->visits++;
    if (which >= KEYS || request->reservation.account != c->f->account + which ||
        request->reservation.at_ms != CREATED_AT_MS + (int64_t)which ||
        request->reservation.amount_nano != 1 + (int64_t)which ||
        (request->state == OPEN_FINAL && request->cost_nano != 1 + (int64_t)which))
        c->torn++;
}

static void given_rows_in_use_when_visited_then_never_half_of_one_request_and_another(void **state)
{
    struct churned c = {.f = *state};
    int64_t until = clock_monotonic_ms() + 200;
    pid_t pid;

    put_balance(c.f, INT64_MAX / 4);
    pid = forked_start(churn, c.f);
    while (clock_monotonic_ms() < until)
        inflight_each_open(c.f->r, check_request, &c);
    kill(pid, SIGKILL);
    assert_int_equal(forked_wait(pid), -1);
    assert_true(c.visits > 1000);
    assert_int_equal(c.torn, 0);
}

/* ---- restarts ---- */

static void given_ids_of_a_slot_when_worker_is_respawned_then_they_go_on(void **state)
{
    struct fixture *f = *state;
    struct usage_id before, after;

    usage_id_next(inflight_ids(f->r, SLOT), SLOT, CREATED_AT_MS, &before);
    reap(f);
    inflight_slot_open(f->r, SLOT);
    usage_id_next(inflight_ids(f->r, SLOT), SLOT, CREATED_AT_MS - 1000, &after);
    assert_true(memcmp(before.bytes, after.bytes, USAGE_ID_BYTES) < 0);
}

/* ---- a worker killed at random: every request that was answered is in the ring ---- */

#define ID_SLOTS 4096

struct stress {
    struct fixture f;
    _Atomic bool is_over;
    _Atomic uint64_t admitted; /* sequence numbers, in order */
    _Atomic uint64_t answered;
};

static uint64_t sequence_of(const struct usage_id *id)
{
    return (uint64_t)id->bytes[12] << 24 | (uint64_t)id->bytes[13] << 16 |
           (uint64_t)id->bytes[14] << 8 | id->bytes[15];
}

/* Keeps a few requests open, finishes the oldest. key_id says which, the cost says how far. */
static int serve(void *arg)
{
    struct stress *s = arg;
    struct fixture *f = &s->f;
    struct inflight_row *open[4] = {NULL};
    enum account_word short_of;

    inflight_slot_open(f->r, SLOT);
    outbox_reset_reservations(f->ob);
    outbox_set_owner(f->ob, (uint32_t)getpid());
    for (unsigned i = 0; !s->is_over; i = (i + 1) % 4) {
        struct inflight_row *row = open[i];

        if (row != NULL) {
            row->event.tokens_output = 20;
            row->event.cost_nano = 1234;
            row->event.outcome = USAGE_OK;
            row->event.source = USAGE_BY_PROVIDER;
            inflight_finish(row);
            atomic_store(&s->answered, sequence_of(&row->event.id)); /* the last bytes leave */
            outbox_append(f->ob, &row->event);
            if (inflight_settle(row, f->accounts) != 0)
                return 2;
            inflight_free(f->r, SLOT, row);
            open[i] = NULL;
        }
        if (!outbox_reserve(f->ob))
            continue;
        row = inflight_take(f->r, SLOT);
        if (row == NULL)
            return 1;
        usage_id_next(inflight_ids(f->r, SLOT), SLOT, CREATED_AT_MS, &row->event.id);
        row->reservation = (struct reservation){f->account, 0, CREATED_AT_MS, AMOUNT};
        if (inflight_admit(row, f->accounts, &short_of) != 0)
            return 3;
        atomic_store(&s->admitted, sequence_of(&row->event.id));
        open[i] = row;
    }
    return 0;
}

/* Notes every event in the ring: seen[] counts by sequence number since `from`. */
static void drain(struct stress *s, uint8_t *seen, uint8_t *outcomes)
{
    struct usage_event got;

    while (next_event(&s->f, &got)) {
        uint64_t number = sequence_of(&got.id);

        assert_true(seen[number % ID_SLOTS] < 2);
        if (seen[number % ID_SLOTS] == 1) /* appended again: the same in both */
            assert_int_equal(outcomes[number % ID_SLOTS], got.outcome);
        seen[number % ID_SLOTS]++;
        outcomes[number % ID_SLOTS] = got.outcome;
        assert_int_equal(got.cost_nano, got.outcome == USAGE_OK ? 1234 : 0);
    }
    outbox_set_committed(s->f.ob, s->f.read_to);
}

static void given_worker_killed_at_random_when_reaped_then_each_request_has_its_event(void **state)
{
    struct fixture *f = *state;
    struct stress *s = forked_memory(sizeof(*s));
    int64_t until = clock_monotonic_ms() + STRESS_MS;
    unsigned deaths = 0;

    s->f = *f;
    put_balance(f, INT64_MAX / 4);
    srand(3);
    for (; clock_monotonic_ms() < until; deaths++) {
        uint8_t seen[ID_SLOTS] = {0}, outcomes[ID_SLOTS];
        uint64_t first = inflight_ids(f->r, SLOT)->sequence + 1;
        pid_t pid = forked_start(serve, s);
        uint64_t answered, admitted;

        /* The ring is drained only after the death: it bounds how many there are. */
        forked_kill_soon(pid, 1500);
        inflight_reap(f->r, SLOT, f->ob, f->accounts, NULL, NOW_AT_MS);
        put_balance(f, INT64_MAX / 4);
        answered = atomic_load(&s->answered);
        admitted = atomic_load(&s->admitted);
        drain(s, seen, outcomes);
        assert_true(admitted < first + ID_SLOTS);
        for (uint64_t n = first; n <= admitted; n++)
            assert_in_range(seen[n % ID_SLOTS], 1, 2);
        if (answered >= first)
            assert_int_equal(outcomes[answered % ID_SLOTS], USAGE_OK);
        for (size_t i = 0; i < ROWS; i++)
            assert_int_equal(inflight_row_at(f->r, SLOT, i)->state, INFLIGHT_FREE);
    }
    assert_true(deaths > 50);
}

static void given_rows_in_shared_memory_when_attached_then_found(void **state)
{
    const struct shm_region_spec spec = inflight_region_spec(SLOTS, ROWS);
    const uint8_t start_id[SHM_START_ID_BYTES] = "start";
    char name[SHM_NAME_BYTES];
    struct shm *shm;

    snprintf(name, sizeof(name), "/xrouter-test-inflight-%d", (int)getpid());
    assert_int_equal(shm_create(name, 0600, &spec, 1, start_id, &shm), 0);
    assert_null(inflight_region_get(shm)); /* not filled in yet */
    inflight_region_init(shm_region(shm, INFLIGHT_REGION, spec.layout, NULL), SLOTS, ROWS, NODE);
    assert_non_null(inflight_region_get(shm));
    assert_int_equal(inflight_slot_count(inflight_region_get(shm)), SLOTS);
    assert_int_equal(inflight_row_count(inflight_region_get(shm)), ROWS);
    shm_close(shm);
    shm_unlink_name(name);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(given_new_slot_when_all_rows_are_taken_then_each_once_and_no_more),
        T(given_used_row_when_taken_again_then_clean),
        T(given_row_that_was_only_taken_when_reaped_then_nothing_is_owed),
        T(given_running_row_without_answer_when_reaped_then_nothing_is_billed),
        T(given_running_row_with_answer_when_reaped_then_what_was_received_is_billed),
        T(given_numbers_of_a_dead_worker_when_impossible_then_never_a_negative_cost),
        T(given_final_row_when_reaped_then_its_numbers_are_billed),
        T(given_reaped_slot_when_opened_then_all_is_as_new),
        T(given_reaper_that_died_appending_when_run_again_then_its_numbers_stand),
        T(given_reaper_that_died_after_appending_when_run_again_then_the_same_bytes),
        T(given_ring_without_room_when_reaped_then_the_row_waits_for_the_next_time),
        T(given_request_when_admitted_and_settled_then_its_account_pays_the_cost),
        T(given_too_little_credit_when_admitted_then_the_row_is_as_before),
        T(given_marked_account_when_used_then_both_ends_of_a_request_wait),
        T(given_row_that_waits_for_a_recount_when_reaped_then_its_event_is_not_doubled),
        T(given_row_of_any_state_when_reaped_then_its_account_is_marked_unless_settled),
        T(given_no_accounts_when_reaped_then_events_are_owed_all_the_same),
        T(given_reaper_that_died_marking_when_run_again_then_the_row_was_in_a_bracket),
        T(given_rows_of_all_states_when_visited_then_the_open_ones_with_what_they_owe),
        T(given_final_row_when_visited_then_id_key_reservation_and_cost),
        T(given_rows_in_use_when_visited_then_never_half_of_one_request_and_another),
        T(given_ids_of_a_slot_when_worker_is_respawned_then_they_go_on),
        T(given_worker_killed_at_random_when_reaped_then_each_request_has_its_event),
        T(given_rows_in_shared_memory_when_attached_then_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
