/* Processes killed at any instruction while they reserve, settle and count anew: nothing is locked,
 * every event is owed once, and the words are what was paid in less what the events cost.
 * XROUTER_KILLS=1000 for the long form. */
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>

#include <cmocka.h>

#include "common/error.h"
#include "gateway/inflight.h"
#include "tests/unit/forked.h"

#define SLOTS 2
#define ROWS 8
#define OPEN_MAX 4 /* requests that a worker has open at once */
#define ACCOUNTS 3
#define KEY_ID 700        /* of the first account */
#define IDS_MAX (1 << 20) /* a slot */
#define RING_BYTES ((size_t)256 * USAGE_EVENT_MAX)
#define AMOUNT_MAX 5000
#define LIMIT_NANO INT64_C(1000000000000)
#define PAYMENT_NANO INT64_C(4000000)
#define KILLS 100
#define HAMMER_MS 700
#define NO_PTRACE 77

/* The last moment of a day, week and month, and the first of the next ones. */
static const int64_t moments[2] = {INT64_C(1780271999999), INT64_C(1780272000000)};

/* What the database would hold. */
struct books {
    int64_t balance[ACCOUNTS];
    int64_t spent[ACCOUNTS][SPEND_PERIODS][2];
    uint32_t costs[SLOTS][IDS_MAX];   /* of a committed event: cost + 1 */
    uint32_t counted[SLOTS][IDS_MAX]; /* in which recount the event was found in a ring */
    uint32_t recounts;
    bool is_unlimited[ACCOUNTS]; /* its spending limits are not in force now */
    bool is_overspent;
};

enum verdict { NOT_TOLD, ADMITTED, REFUSED };
enum marker { MARKER_TAKE, MARKER_ADMIT, MARKER_FINISH, MARKER_SETTLE, MARKER_FREE, MARKERS };

struct world { /* shared by all processes */
    struct accounts_region *accounts;
    struct inflight_region *rows;
    struct outbox_region *rings;
    struct books books;
    uint32_t account[ACCOUNTS];
    uint8_t verdicts[SLOTS][IDS_MAX]; /* enum verdict: what the worker knew when it ended */
    _Atomic uint64_t refused;
    _Atomic uint64_t waits;    /* for recounts */
    _Atomic uint64_t recounts; /* that came to an end */
    _Atomic bool is_calm;      /* only what is marked is counted anew */
    _Atomic bool is_over;      /* the workers end what they have begun, and themselves */
    _Atomic bool is_end;
    _Atomic unsigned round, rounds_ended;
    pid_t writer;
};

/* As assert_true(), also in children. */
static void must(bool holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "pid %d: %s\n", (int)getpid(), what);
    abort();
}

static int setup(void **state)
{
    struct world *w = forked_memory(sizeof(*w));

    w->accounts = forked_memory(accounts_region_spec(ACCOUNTS).bytes);
    accounts_region_init(w->accounts, ACCOUNTS);
    w->rows = forked_memory(inflight_region_spec(SLOTS, ROWS).bytes);
    inflight_region_init(w->rows, SLOTS, ROWS, 9);
    w->rings = forked_memory(outbox_region_spec(SLOTS, RING_BYTES).bytes);
    outbox_region_init(w->rings, SLOTS, RING_BYTES);
    for (size_t i = 0; i < ACCOUNTS; i++) {
        assert_int_equal(accounts_open(w->accounts, KEY_ID + i, &w->account[i]), 0);
        account_mark_all(w->accounts, w->account[i]);
        w->books.balance[i] = LIMIT_NANO;
    }
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;

    munmap(w->accounts, accounts_region_spec(ACCOUNTS).bytes);
    munmap(w->rows, inflight_region_spec(SLOTS, ROWS).bytes);
    munmap(w->rings, outbox_region_spec(SLOTS, RING_BYTES).bytes);
    munmap(w, sizeof(*w));
    return 0;
}

/* ---- the usage-writer's part ---- */

static size_t slot_of(const struct usage_id *id)
{
    return (size_t)id->bytes[10] << 8 | id->bytes[11];
}

static uint32_t sequence_of(const struct usage_id *id)
{
    return (uint32_t)id->bytes[12] << 24 | (uint32_t)id->bytes[13] << 16 |
           (uint32_t)id->bytes[14] << 8 | id->bytes[15];
}

static uint32_t *committed(struct books *b, const struct usage_id *id)
{
    must(slot_of(id) < SLOTS && sequence_of(id) < IDS_MAX, "an id that nobody gave");
    return &b->costs[slot_of(id)][sequence_of(id)];
}

/* 0 or 1: which of the two periods the moment lies in. */
static size_t which_period(enum spend_period p, int64_t at_ms)
{
    int64_t n = spend_period_number(p, at_ms) - spend_period_number(p, moments[0]);

    must(n == 0 || n == 1, "a moment that nobody used");
    return (size_t)n;
}

typedef void (*event_fn)(struct world *w, const struct usage_event *event, void *arg);

/* Every event of a ring from its tail on; returns the position behind the last one. */
static uint64_t each_event(struct world *w, size_t slot, event_fn visit, void *arg)
{
    const struct outbox *ob = outbox_slot(w->rings, slot);
    static uint8_t records[16 * USAGE_EVENT_MAX];
    uint64_t position = outbox_tail(ob);

    for (;;) {
        ssize_t n = outbox_read(ob, position, records, sizeof(records), &position);
        size_t used;

        must(n >= 0, "a ring without framing");
        if (n == 0)
            return position;
        for (size_t at = 0; at < (size_t)n; at += used) {
            struct usage_event event;

            must(usage_event_decode(records + at, (size_t)n - at, &event, &used) == 0,
                 "a record that cannot be read");
            visit(w, &event, arg);
        }
    }
}

static void commit_event(struct world *w, const struct usage_event *event, void *arg)
{
    struct books *b = &w->books;
    uint32_t *cost = committed(b, &event->id);
    size_t account = event->key_id - KEY_ID;

    must(account < ACCOUNTS, "a key that nobody has");
    if (*cost != 0) {
        must(*cost == event->cost_nano + 1, "an event came again with another cost");
        return;
    }
    *cost = (uint32_t)event->cost_nano + 1;
    b->balance[account] -= event->cost_nano;
    for (enum spend_period p = SPEND_DAY; p < SPEND_PERIODS; p++)
        b->spent[account][p][which_period(p, event->created_at_ms)] += event->cost_nano;
    if (b->balance[account] < 0)
        b->is_overspent = true;
}

static void drain(struct world *w)
{
    for (size_t slot = 0; slot < SLOTS; slot++) {
        uint64_t position = each_event(w, slot, commit_event, NULL);

        outbox_set_committed(outbox_slot(w->rings, slot), position);
    }
}

/* One account's recount: usage/recount.c without a database. */
struct count {
    struct world *w;
    uint64_t key_id;
    bool has_bracket;
    size_t row_count;
    struct open_request rows[SLOTS * ROWS];
    struct account_values values;
};

static void charge(struct count *c, int64_t at_ms, int64_t nano)
{
    c->values.balance_nano -= nano;
    for (enum spend_period p = SPEND_DAY; p < SPEND_PERIODS; p++) {
        if (c->values.spending[p].left_nano == ACCOUNT_UNLIMITED)
            continue;
        if (which_period(p, at_ms) == 0)
            c->values.spending[p].left_nano -= nano;
        else
            c->values.spending[p].next_left_nano -= nano;
    }
}

static void count_row(void *arg, const struct open_request *row)
{
    struct count *c = arg;

    if (row->key_id != c->key_id)
        return;
    if (row->state == OPEN_IN_BRACKET)
        c->has_bracket = true;
    else
        c->rows[c->row_count++] = *row;
}

static void count_event(struct world *w, const struct usage_event *event, void *arg)
{
    struct books *b = &w->books;
    struct count *c = arg;
    uint32_t *counted = &b->counted[slot_of(&event->id)][sequence_of(&event->id)];

    if (event->key_id != c->key_id || *committed(b, &event->id) != 0 || *counted == b->recounts)
        return;
    *counted = b->recounts;
    for (size_t i = 0; i < c->row_count; i++)
        if (memcmp(&c->rows[i].id, &event->id, sizeof(event->id)) == 0)
            return;
    charge(c, event->created_at_ms, event->cost_nano);
}

static void expected_values(struct world *w, size_t account, struct account_values *out)
{
    out->balance_nano = w->books.balance[account];
    for (enum spend_period p = SPEND_DAY; p < SPEND_PERIODS; p++) {
        out->spending[p].period = spend_period_number(p, moments[0]);
        out->spending[p].left_nano = LIMIT_NANO - w->books.spent[account][p][0];
        out->spending[p].next_left_nano = LIMIT_NANO - w->books.spent[account][p][1];
        if (w->books.is_unlimited[account])
            out->spending[p].left_nano = out->spending[p].next_left_nano = ACCOUNT_UNLIMITED;
    }
}

static bool recount(struct world *w, size_t account)
{
    struct count c = {.w = w, .key_id = KEY_ID + account};
    const struct open_requests requests = {inflight_each_open, w->rows};
    struct account_marks marks;

    account_recount_begin(w->accounts, w->account[account], &marks);
    w->books.recounts++;
    expected_values(w, account, &c.values);
    requests.each(requests.arg, count_row, &c);
    if (c.has_bracket)
        return false;
    for (size_t i = 0; i < c.row_count; i++) {
        charge(&c, c.rows[i].reservation.at_ms, c.rows[i].reservation.amount_nano);
        if (c.rows[i].state == OPEN_FINAL && *committed(&w->books, &c.rows[i].id) != 0)
            charge(&c, c.rows[i].reservation.at_ms, -c.rows[i].cost_nano);
    }
    for (size_t slot = 0; slot < SLOTS; slot++)
        each_event(w, slot, count_event, &c);
    if (!account_recount_end(w->accounts, w->account[account], &marks, &c.values))
        return false;
    atomic_fetch_add(&w->recounts, 1);
    return true;
}

/* ---- a worker's part ---- */

struct worker {
    struct world *w;
    size_t slot;
    struct outbox *ob;
    struct inflight_row *open[OPEN_MAX];
    unsigned seed;
    enum marker marker; /* where it stops for the debugger, */
    unsigned passes;    /* counted down as it comes by; 0 = never */
};

static void stop_for_debugger(void)
{
#ifdef __x86_64__
    __asm__ volatile("int3"); /* the next step is our own code, not raise()'s */
#else
    raise(SIGTRAP);
#endif
}

static void pass(struct worker *k, enum marker marker)
{
    if (k->passes > 0 && marker == k->marker && --k->passes == 0)
        stop_for_debugger();
}

static void wait_for_recount(struct world *w)
{
    atomic_fetch_add(&w->waits, 1);
    sched_yield();
}

static void begin_request(struct worker *k, struct inflight_row **out)
{
    struct world *w = k->w;
    unsigned account = (unsigned)rand_r(&k->seed) % ACCOUNTS;
    enum account_word short_of;
    struct inflight_row *row;
    uint8_t *verdict;
    int rc;

    pass(k, MARKER_TAKE);
    if (!outbox_reserve(k->ob))
        return;
    row = inflight_take(w->rows, k->slot);
    if (row == NULL)
        abort();
    row->event.created_at_ms = moments[rand_r(&k->seed) % 2];
    usage_id_next(inflight_ids(w->rows, k->slot), (uint16_t)k->slot, moments[1], &row->event.id);
    row->event.key_id = KEY_ID + account;
    row->event.price.output_nano = 1000000; /* a nanocredit a token */
    row->reservation = (struct reservation){.account = w->account[account],
                                            .at_ms = row->event.created_at_ms,
                                            .amount_nano = rand_r(&k->seed) % AMOUNT_MAX};
    verdict = &w->verdicts[k->slot][sequence_of(&row->event.id)];
    pass(k, MARKER_ADMIT);
    while ((rc = inflight_admit(row, w->accounts, &short_of)) == -EAGAIN)
        wait_for_recount(w);
    if (rc != 0) {
        *verdict = REFUSED;
        atomic_fetch_add(&w->refused, 1);
        inflight_free(w->rows, k->slot, row);
        outbox_release(k->ob);
        return;
    }
    *verdict = ADMITTED;
    if (row->reservation.amount_nano > 0 && rand_r(&k->seed) % 4 > 0) {
        row->event.tokens_output = rand_r(&k->seed) % row->reservation.amount_nano;
        atomic_store(&row->has_answer, 1);
    }
    *out = row;
}

static void end_request(struct worker *k, struct inflight_row *row)
{
    struct world *w = k->w;

    if (row->reservation.amount_nano > 0)
        row->event.tokens_output = rand_r(&k->seed) % (row->reservation.amount_nano + 1);
    row->event.cost_nano = row->event.tokens_output;
    pass(k, MARKER_FINISH);
    inflight_finish(row);
    outbox_append(k->ob, &row->event);
    pass(k, MARKER_SETTLE);
    while (inflight_settle(row, w->accounts) != 0)
        wait_for_recount(w);
    pass(k, MARKER_FREE);
    inflight_free(w->rows, k->slot, row);
}

static void open_worker(struct worker *k)
{
    k->ob = outbox_slot(k->w->rings, k->slot);
    inflight_slot_open(k->w->rows, k->slot);
    outbox_reset_reservations(k->ob);
    outbox_set_owner(k->ob, (uint32_t)getpid());
}

static int serve(void *arg)
{
    struct worker *k = arg;

    open_worker(k);
    for (unsigned i = 0; !k->w->is_over; i = (i + 1) % OPEN_MAX) {
        struct inflight_row *row = k->open[i];

        k->open[i] = NULL;
        if (row != NULL)
            end_request(k, row);
        if (inflight_ids(k->w->rows, k->slot)->sequence < IDS_MAX - 1)
            begin_request(k, &k->open[i]);
    }
    for (unsigned i = 0; i < OPEN_MAX; i++)
        if (k->open[i] != NULL)
            end_request(k, k->open[i]);
    return 0;
}

static int serve_traced(void *arg)
{
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) == -1)
        return NO_PTRACE;
    return serve(arg);
}

/* ---- what must hold ---- */

static void assert_words_are_exact(struct world *w)
{
    for (size_t i = 0; i < ACCOUNTS; i++) {
        struct account_values expected, got;
        bool is_marked;

        expected_values(w, i, &expected);
        account_get(w->accounts, w->account[i], moments[0], &got, &is_marked);
        assert_false(is_marked);
        assert_int_equal(got.balance_nano, expected.balance_nano);
        for (enum spend_period p = SPEND_DAY; p < SPEND_PERIODS; p++) {
            assert_int_equal(got.spending[p].left_nano, expected.spending[p].left_nano);
            assert_int_equal(got.spending[p].next_left_nano, expected.spending[p].next_left_nano);
        }
    }
}

static void assert_rows_are_free(struct world *w, size_t slot)
{
    for (size_t i = 0; i < ROWS; i++)
        assert_int_equal(inflight_row_at(w->rows, slot, i)->state, INFLIGHT_FREE);
}

static void recount_what_is_marked(struct world *w)
{
    for (size_t i = 0; i < ACCOUNTS; i++)
        if (account_is_marked(w->accounts, w->account[i]))
            assert_true(recount(w, i));
}

static void assert_accounts_can_be_used(struct world *w)
{
    struct inflight_row *row = inflight_take(w->rows, 1);

    assert_non_null(row);
    for (size_t i = 0; i < ACCOUNTS; i++) {
        enum account_word short_of;

        row->reservation = (struct reservation){w->account[i], 0, moments[i % 2], 12345};
        assert_int_equal(inflight_admit(row, w->accounts, &short_of), 0);
        inflight_finish(row);
        assert_int_equal(inflight_settle(row, w->accounts), 0);
    }
    inflight_free(w->rows, 1, row);
}

/* Who knew to be admitted has an event, who was refused has none, from that id on. */
static void assert_events_are_owed_once(struct world *w, size_t slot, uint32_t from)
{
    for (uint32_t n = from; n <= inflight_ids(w->rows, slot)->sequence; n++) {
        bool has_event = w->books.costs[slot][n] != 0;

        if (w->verdicts[slot][n] != NOT_TOLD)
            assert_int_equal(has_event, w->verdicts[slot][n] == ADMITTED);
    }
}

/* ---- tests ---- */

static size_t kill_count(void)
{
    const char *text = getenv("XROUTER_KILLS");
    long n = text == NULL ? 0 : strtol(text, NULL, 10);

    return n > 0 ? (size_t)n : KILLS;
}

/* Lets the child run to its marker, some instructions further, and no more. False: it may not be
 * traced here. */
static bool kill_after_steps(pid_t pid, unsigned steps)
{
    int status;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == NO_PTRACE)
        return false;
    for (; steps > 0 && WIFSTOPPED(status); steps--) {
        assert_int_equal(WSTOPSIG(status), SIGTRAP);
        assert_int_equal(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
    }
    assert_true(WIFSTOPPED(status));
    kill(pid, SIGKILL);
    assert_int_equal(forked_wait(pid), -1);
    return true;
}

/* Mostly few, at times as many as a whole request has. */
static unsigned random_steps(unsigned *seed, size_t round)
{
    unsigned most = round % 10 == 0 ? 3000 : 1 + (unsigned)rand_r(seed) % 400;

    return (unsigned)rand_r(seed) % most;
}

static void note_states(struct world *w, size_t *seen)
{
    for (size_t i = 0; i < ROWS; i++)
        seen[inflight_row_at(w->rows, 0, i)->state]++;
}

static void given_worker_killed_at_any_instruction_when_reaped_then_sums_are_exact(void **state)
{
    struct world *w = *state;
    size_t seen[INFLIGHT_SETTLED + 1] = {0}, marked = 0;

    recount_what_is_marked(w);
    for (size_t i = 0; i < kill_count(); i++) {
        unsigned seed = (unsigned)i * 7919 + 1;
        struct worker k = {.w = w, .slot = 0, .seed = seed};
        uint32_t first = inflight_ids(w->rows, 0)->sequence + 1;

        k.marker = (enum marker)((unsigned)rand_r(&seed) % MARKERS);
        k.passes = 1 + (unsigned)rand_r(&seed) % (2 * OPEN_MAX);
        if (!kill_after_steps(forked_start(serve_traced, &k), random_steps(&seed, i)))
            skip();
        note_states(w, seen);
        inflight_reap(w->rows, 0, outbox_slot(w->rings, 0), w->accounts, NULL, moments[1]);
        assert_rows_are_free(w, 0);
        for (size_t a = 0; a < ACCOUNTS; a++)
            marked += account_is_marked(w->accounts, w->account[a]);
        /* Before or after its events are committed: the same. */
        if (i % 2 == 0)
            drain(w);
        recount_what_is_marked(w);
        drain(w);
        assert_words_are_exact(w);
        assert_events_are_owed_once(w, 0, first);
        assert_accounts_can_be_used(w);
    }
    assert_true(seen[INFLIGHT_RESERVING] > 0 && seen[INFLIGHT_SETTLING] > 0);
    assert_true(seen[INFLIGHT_RUNNING] > 0 && seen[INFLIGHT_FINAL] > 0 && marked > 0);
}

/* A payment, a spending limit that comes or goes, or just counting anew. */
static void disturb(struct world *w, size_t account, unsigned dice)
{
    struct books *b = &w->books;

    if (b->balance[account] < PAYMENT_NANO / 4 && dice % 8 == 0) {
        b->balance[account] += PAYMENT_NANO;
        account_add(w->accounts, w->account[account], PAYMENT_NANO);
    } else if (dice % 8 < 4) {
        b->is_unlimited[account] = !b->is_unlimited[account];
        account_mark_all(w->accounts, w->account[account]);
    } else {
        recount(w, account);
    }
}

static bool count_marked(struct world *w)
{
    bool are_all_counted = true;

    for (size_t i = 0; i < ACCOUNTS; i++)
        if (account_is_marked(w->accounts, w->account[i]) && !recount(w, i))
            are_all_counted = false;
    return are_all_counted;
}

static int write_usage(void *arg)
{
    struct world *w = arg;
    unsigned seed = 5;

    while (!w->is_end) {
        unsigned round = w->round;
        bool is_last_turn = w->is_calm && w->round != w->rounds_ended; /* before it drains */

        drain(w);
        must(!w->books.is_overspent, "more was spent than there was");
        if (!w->is_calm)
            disturb(w, (size_t)rand_r(&seed) % ACCOUNTS, (unsigned)rand_r(&seed) / 16);
        if (count_marked(w) && is_last_turn)
            w->rounds_ended = round;
    }
    return 0;
}

/* Lets two workers run for a moment, kills one or none, and lets the rest end. */
static void play_round(struct world *w, struct worker *workers)
{
    pid_t pids[SLOTS];
    size_t killed = (size_t)(rand() / 16) % (SLOTS + 1);

    w->is_over = false;
    w->is_calm = false;
    for (size_t slot = 0; slot < SLOTS; slot++) {
        workers[slot].seed = (unsigned)rand();
        pids[slot] = forked_start(serve, &workers[slot]);
    }
    usleep((unsigned)rand() % 3000);
    if (killed < SLOTS) {
        kill(pids[killed], SIGKILL);
        assert_int_equal(forked_wait(pids[killed]), -1);
    }
    /* Whatever goes wrong from here on stays wrong: nothing is counted anew without a mark. */
    w->is_calm = true;
    if (killed < SLOTS)
        inflight_reap(w->rows, killed, outbox_slot(w->rings, killed), w->accounts, NULL,
                      moments[1]);
    w->is_over = true;
    for (size_t slot = 0; slot < SLOTS; slot++)
        if (slot != killed)
            assert_int_equal(forked_wait(pids[slot]), 0);
    w->round++;
    while (w->rounds_ended != w->round) {
        assert_int_equal(waitpid(w->writer, NULL, WNOHANG), 0);
        sched_yield();
    }
}

static void given_workers_killed_while_accounts_are_recounted_then_sums_are_exact(void **state)
{
    struct world *w = *state;
    struct worker workers[SLOTS] = {{.w = w, .slot = 0}, {.w = w, .slot = 1}};
    int64_t until = clock_monotonic_ms() + HAMMER_MS;
    uint32_t first[SLOTS] = {1, 1};

    for (size_t i = 0; i < ACCOUNTS; i++)
        w->books.balance[i] = PAYMENT_NANO / 10;
    w->is_calm = true;
    w->writer = forked_start(write_usage, w);
    srand(11);
    while (clock_monotonic_ms() < until) {
        play_round(w, workers);
        for (size_t slot = 0; slot < SLOTS; slot++) {
            assert_rows_are_free(w, slot);
            assert_events_are_owed_once(w, slot, first[slot]);
            first[slot] = inflight_ids(w->rows, slot)->sequence;
        }
        assert_words_are_exact(w);
    }
    w->is_end = true;
    assert_int_equal(forked_wait(w->writer), 0);
    assert_true(w->round >= 5 && w->recounts > 100 && w->waits > 0);
}

/* ---- the usage-writer itself ---- */

static int64_t left_of_key(size_t i)
{
    return 1000 + (int64_t)i;
}

static void put_values(struct accounts_region *r, uint32_t account, size_t i)
{
    struct account_values values = {.balance_nano = left_of_key(i)};
    struct account_marks marks;

    for (enum spend_period p = SPEND_DAY; p < SPEND_PERIODS; p++) {
        values.spending[p].period = spend_period_number(p, moments[0]);
        values.spending[p].left_nano = values.spending[p].next_left_nano = left_of_key(i);
    }
    account_recount_begin(r, account, &marks);
    must(account_recount_end(r, account, &marks, &values), "marks that nobody put");
}

static void load_key(struct accounts_region *r, size_t i)
{
    uint32_t account, again;

    must(accounts_open(r, KEY_ID + i, &account) == 0, "no account is left");
    must(accounts_find(r, KEY_ID + i, &again) == 0 && again == account, "not found again");
    account_mark_all(r, account);
    put_values(r, account, i);
}

static int load_traced(void *arg)
{
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) == -1)
        return NO_PTRACE;
    stop_for_debugger();
    for (size_t i = 0;; i = (i + 1) % ACCOUNTS)
        load_key(arg, i);
}

static void
given_writer_killed_at_any_instruction_when_followed_then_accounts_are_whole(void **state)
{
    size_t bytes = accounts_region_spec(ACCOUNTS).bytes;
    struct accounts_region *r = forked_memory(bytes);
    unsigned seed = 17;

    for (size_t round = 0; round < kill_count() / 4; round++) {
        memset(r, 0, bytes);
        accounts_region_init(r, ACCOUNTS);
        if (!kill_after_steps(forked_start(load_traced, r), (unsigned)rand_r(&seed) % 1200))
            skip();
        for (size_t i = ACCOUNTS; i-- > 0;) /* in another order */
            load_key(r, i);
        assert_int_equal(accounts_count(r), ACCOUNTS);
        for (size_t i = 0; i < ACCOUNTS; i++) {
            struct account_values values;
            uint32_t account;
            bool is_marked;

            assert_int_equal(accounts_find(r, KEY_ID + i, &account), 0);
            assert_int_equal(account_key_id(r, account), KEY_ID + i);
            account_get(r, account, moments[1], &values, &is_marked);
            assert_false(is_marked);
            assert_int_equal(values.balance_nano, left_of_key(i));
            assert_int_equal(values.spending[SPEND_MONTH].left_nano, left_of_key(i));
        }
    }
    munmap(r, bytes);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(given_worker_killed_at_any_instruction_when_reaped_then_sums_are_exact),
        T(given_workers_killed_while_accounts_are_recounted_then_sums_are_exact),
        cmocka_unit_test(
            given_writer_killed_at_any_instruction_when_followed_then_accounts_are_whole),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
