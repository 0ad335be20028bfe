#include "gateway/inflight.h"

#include <assert.h>
#include <string.h>

#include "common/error.h"

#define LINE 64

/* The free rows are a stack, so that the rows in use are the ones in the cache. It is the worker's
 * alone: after a death it is worth nothing and inflight_slot_open() makes it anew. */
struct slot {
    _Alignas(LINE) struct usage_id_state ids;
    uint64_t free_count;
    uint32_t free_rows[]; /* and behind them, aligned, the rows */
};

struct inflight_region {
    _Alignas(LINE) uint64_t slots;
    uint64_t rows;   /* per slot */
    uint64_t stride; /* from one slot to the next */
};

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

static size_t rows_offset(size_t rows)
{
    return round_up(offsetof(struct slot, free_rows) + rows * sizeof(uint32_t), LINE);
}

static size_t slot_stride(size_t rows)
{
    return round_up(rows_offset(rows) + rows * sizeof(struct inflight_row), LINE);
}

static uint64_t region_layout(void)
{
    static const uint64_t LAYOUT[] = {
        2, /* the meaning of the states */
        USAGE_RECORD_VERSION,
        sizeof(struct inflight_region),
        sizeof(struct slot),
        offsetof(struct slot, free_count),
        offsetof(struct slot, free_rows),
        sizeof(struct usage_id_state),
        offsetof(struct usage_id_state, sequence),
        offsetof(struct usage_id_state, node),
        sizeof(struct inflight_row),
        offsetof(struct inflight_row, kill),
        offsetof(struct inflight_row, started_ms),
        offsetof(struct inflight_row, has_answer),
        offsetof(struct inflight_row, is_queued),
        offsetof(struct inflight_row, uses),
        offsetof(struct inflight_row, index),
        offsetof(struct inflight_row, reservation),
        sizeof(struct reservation),
        offsetof(struct reservation, at_ms),
        offsetof(struct reservation, amount_nano),
        offsetof(struct inflight_row, event),
        sizeof(struct usage_event),
        offsetof(struct usage_event, key_id),
        offsetof(struct usage_event, created_at_ms),
        offsetof(struct usage_event, provider),
        offsetof(struct usage_event, model),
        offsetof(struct usage_event, tokens_input),
        offsetof(struct usage_event, tokens_cached),
        offsetof(struct usage_event, tokens_output),
        offsetof(struct usage_event, cost_nano),
        offsetof(struct usage_event, price),
        offsetof(struct usage_event, error),
        offsetof(struct usage_event, http_status),
        offsetof(struct usage_event, outcome),
        offsetof(struct usage_event, source),
        offsetof(struct usage_event, streamed),
        offsetof(struct usage_event, attempt_count),
        offsetof(struct usage_event, duration_ms),
        offsetof(struct usage_event, first_byte_ms),
        offsetof(struct usage_event, attempts),
        offsetof(struct usage_event, idempotency_key),
        offsetof(struct usage_event, request_digest),
        sizeof(struct usage_attempt),
        offsetof(struct usage_attempt, model),
        offsetof(struct usage_attempt, started_at_ms),
        offsetof(struct usage_attempt, duration_ms),
        offsetof(struct usage_attempt, error),
        offsetof(struct usage_attempt, http_status),
        offsetof(struct usage_attempt, tokens_input),
        offsetof(struct usage_attempt, tokens_cached),
        offsetof(struct usage_attempt, tokens_output),
        sizeof(struct price),
        offsetof(struct price, input_nano),
        offsetof(struct price, cached_input_nano),
        offsetof(struct price, output_nano),
        offsetof(struct price, request_nano),
    };

    return shm_layout_hash(0, LAYOUT, sizeof(LAYOUT));
}

static struct slot *slot_at(const struct inflight_region *r, size_t slot)
{
    assert(slot < r->slots);
    return (struct slot *)((char *)r + sizeof(*r) + slot * r->stride);
}

struct shm_region_spec inflight_region_spec(size_t slots, size_t rows)
{
    return (struct shm_region_spec){
        .name = INFLIGHT_REGION,
        .bytes = sizeof(struct inflight_region) + slots * slot_stride(rows),
        .layout = region_layout(),
    };
}

void inflight_region_init(struct inflight_region *r, size_t slots, size_t rows, uint32_t node)
{
    r->slots = slots;
    r->rows = rows;
    r->stride = slot_stride(rows);
    for (size_t i = 0; i < slots; i++) {
        slot_at(r, i)->ids.node = node;
        inflight_slot_open(r, i);
    }
}

struct inflight_region *inflight_region_get(const struct shm *shm)
{
    size_t bytes;
    struct inflight_region *r = shm_region(shm, INFLIGHT_REGION, region_layout(), &bytes);

    /* A region found after a crash may hold anything. */
    if (r == NULL || r->rows > bytes / sizeof(struct inflight_row) ||
        r->stride != slot_stride(r->rows) || r->slots > (bytes - sizeof(*r)) / r->stride)
        return NULL;
    return r;
}

size_t inflight_slot_count(const struct inflight_region *r)
{
    return r->slots;
}

size_t inflight_row_count(const struct inflight_region *r)
{
    return r->rows;
}

struct inflight_row *inflight_row_at(struct inflight_region *r, size_t slot, size_t row)
{
    char *rows = (char *)slot_at(r, slot) + rows_offset(r->rows);

    assert(row < r->rows);
    return (struct inflight_row *)rows + row;
}

struct usage_id_state *inflight_ids(struct inflight_region *r, size_t slot)
{
    return &slot_at(r, slot)->ids;
}

void inflight_slot_open(struct inflight_region *r, size_t slot)
{
    struct slot *s = slot_at(r, slot);

    s->free_count = 0;
    for (size_t i = r->rows; i-- > 0;) { /* so that row 0 is on top */
        struct inflight_row *row = inflight_row_at(r, slot, i);

        row->index = (uint32_t)i;
        if (atomic_load_explicit(&row->state, memory_order_acquire) == INFLIGHT_FREE)
            s->free_rows[s->free_count++] = (uint32_t)i;
    }
}

struct inflight_row *inflight_take(struct inflight_region *r, size_t slot)
{
    struct slot *s = slot_at(r, slot);
    struct inflight_row *row;
    uint32_t uses;

    if (s->free_count == 0)
        return NULL;
    row = inflight_row_at(r, slot, s->free_rows[--s->free_count]);
    uses = atomic_load_explicit(&row->uses, memory_order_relaxed);
    atomic_store_explicit(&row->uses, uses + 1, memory_order_release); /* after FREE */
    /* Whoever still reads the last use and finds something of this one finds the new number too. */
    atomic_thread_fence(memory_order_release);
    memset(&row->event, 0, sizeof(row->event));
    row->reservation = (struct reservation){0};
    row->started_ms = 0;
    atomic_store_explicit(&row->has_answer, 0, memory_order_relaxed);
    atomic_store_explicit(&row->kill, 0, memory_order_relaxed);
    atomic_store_explicit(&row->is_queued, 0, memory_order_relaxed);
    return row;
}

/* Sequentially consistent: before the account's words are looked at, as usage/accounts.c needs it.
 */
static void enter_bracket(struct inflight_row *row, enum inflight_state state)
{
    atomic_store_explicit(&row->state, state, memory_order_seq_cst);
}

int inflight_admit(struct inflight_row *row, struct accounts_region *accounts,
                   enum account_word *short_of)
{
    int rc;

    enter_bracket(row, INFLIGHT_RESERVING);
    rc = account_reserve(accounts, &row->reservation, short_of);
    atomic_store_explicit(&row->state, rc == 0 ? INFLIGHT_RUNNING : INFLIGHT_FREE,
                          memory_order_release);
    return rc;
}

void inflight_finish(struct inflight_row *row)
{
    atomic_store_explicit(&row->state, INFLIGHT_FINAL, memory_order_release);
}

int inflight_settle(struct inflight_row *row, struct accounts_region *accounts)
{
    int rc;

    assert(atomic_load_explicit(&row->state, memory_order_relaxed) == INFLIGHT_FINAL);
    /* Release: never before the ring's head that has the event. */
    atomic_store_explicit(&row->is_queued, 1, memory_order_release);
    enter_bracket(row, INFLIGHT_SETTLING);
    rc = account_settle(accounts, &row->reservation, row->event.cost_nano);
    atomic_store_explicit(&row->state, rc == 0 ? INFLIGHT_SETTLED : INFLIGHT_FINAL,
                          memory_order_release);
    return rc;
}

static bool is_open(uint32_t state)
{
    return state != INFLIGHT_FREE && state != INFLIGHT_SETTLED;
}

void inflight_free(struct inflight_region *r, size_t slot, struct inflight_row *row)
{
    struct slot *s = slot_at(r, slot);

    assert(s->free_count < r->rows);
    assert(!is_open(atomic_load_explicit(&row->state, memory_order_relaxed)));
    atomic_store_explicit(&row->state, INFLIGHT_FREE, memory_order_release);
    s->free_rows[s->free_count++] = row->index;
}

static int64_t at_least_zero(int64_t n)
{
    return n < 0 ? 0 : n;
}

static uint32_t elapsed_ms(int64_t from_at_ms, int64_t now_at_ms)
{
    int64_t ms = now_at_ms > from_at_ms ? now_at_ms - from_at_ms : 0;

    return ms > UINT32_MAX ? UINT32_MAX : (uint32_t)ms;
}

/* The attempt that the worker died in was still running: what was received came from it. */
static void close_last_attempt(struct usage_event *e, int64_t now_at_ms)
{
    struct usage_attempt *a;

    if (e->attempt_count == 0)
        return;
    a = &e->attempts[e->attempt_count - 1];
    if (a->duration_ms != 0 || a->error != 0)
        return;
    a->duration_ms = elapsed_ms(a->started_at_ms, now_at_ms);
    a->error = XR_EINTERNAL;
    a->tokens_input = e->tokens_input;
    a->tokens_cached = e->tokens_cached;
    a->tokens_output = e->tokens_output;
}

/* What a request owes whose worker died while it ran. The numbers may be half of one update and
 * half of the next: each was whole once. */
static void abort_event(struct usage_event *e, bool has_answer, int64_t now_at_ms)
{
    if (e->attempt_count > USAGE_ATTEMPTS_MAX)
        e->attempt_count = USAGE_ATTEMPTS_MAX;
    e->outcome = USAGE_ABORTED;
    if (e->error == 0)
        e->error = XR_EINTERNAL;
    e->duration_ms = elapsed_ms(e->created_at_ms, now_at_ms);
    if (has_answer) {
        e->source = USAGE_BY_PARTIAL;
        e->tokens_input = at_least_zero(e->tokens_input);
        e->tokens_output = at_least_zero(e->tokens_output);
        e->tokens_cached = at_least_zero(e->tokens_cached);
        if (e->tokens_cached > e->tokens_input)
            e->tokens_cached = e->tokens_input;
        e->cost_nano =
            money_cost_nano(&e->price, e->tokens_input, e->tokens_cached, e->tokens_output);
    } else {
        e->source = USAGE_BY_NOBODY;
        e->tokens_input = 0;
        e->tokens_cached = 0;
        e->tokens_output = 0;
        e->cost_nano = 0;
    }
    close_last_attempt(e, now_at_ms);
}

/* Brings what the row owes into the ring. False: there is no room for it. */
static bool queue_event(struct inflight_row *row, struct outbox *ob, int64_t now_at_ms)
{
    if (!outbox_has_room(ob))
        return false;
    if (atomic_load_explicit(&row->state, memory_order_relaxed) == INFLIGHT_RUNNING) {
        abort_event(&row->event, atomic_load_explicit(&row->has_answer, memory_order_relaxed) != 0,
                    now_at_ms);
        /* A second reaper, should this one die here, must append the same bytes. */
        inflight_finish(row);
    }
    outbox_append(ob, &row->event);
    return true;
}

static bool owes_event(const struct inflight_row *row)
{
    switch (atomic_load_explicit(&row->state, memory_order_relaxed)) {
    case INFLIGHT_FREE:
    case INFLIGHT_RESERVING:
    case INFLIGHT_SETTLING:
    case INFLIGHT_SETTLED:
        return false;
    case INFLIGHT_FINAL:
        return atomic_load_explicit(&row->is_queued, memory_order_relaxed) == 0;
    default: /* RUNNING; of what is no state at all the numbers count too, rather than nothing */
        return true;
    }
}

/* The words of the account are not touched: what the dead worker has done to them nobody knows.
 * They are marked while the row is in a bracket, so that a recount that has seen the row as it was
 * fails, and one that begins now waits until the row is gone. */
static void release_account(struct inflight_row *row, struct accounts_region *accounts)
{
    uint32_t state = atomic_load_explicit(&row->state, memory_order_relaxed);

    if (accounts == NULL || !is_open(state))
        return;
    if (state != INFLIGHT_RESERVING)
        enter_bracket(row, INFLIGHT_SETTLING);
    account_mark(accounts, row->reservation.account);
}

size_t inflight_reap(struct inflight_region *r, size_t slot, struct outbox *ob,
                     struct accounts_region *accounts, struct counters_region *counters,
                     int64_t now_at_ms)
{
    size_t appended = 0;

    for (size_t i = 0; i < r->rows; i++) {
        struct inflight_row *row = inflight_row_at(r, slot, i);

        if (atomic_load_explicit(&row->state, memory_order_acquire) == INFLIGHT_FREE)
            continue;
        if (owes_event(row)) {
            if (!queue_event(row, ob, now_at_ms))
                continue;
            appended++;
        }
        release_account(row, accounts);
        atomic_store_explicit(&row->state, INFLIGHT_FREE, memory_order_release);
    }
    if (counters != NULL)
        counters_zero_gauges(counters, slot);
    outbox_reset_reservations(ob);
    outbox_set_owner(ob, 0); /* last: now the writer drains the ring by itself */
    return appended;
}

/* One look at a row; false: it began another use meanwhile. *state says whether there is anything
 * to visit. */
static bool read_row(struct inflight_row *row, uint32_t *state, struct open_request *out)
{
    uint32_t uses = atomic_load_explicit(&row->uses, memory_order_acquire);

    /* Sequentially consistent: after the caller's marks, as usage/accounts.c needs it. */
    *state = atomic_load_explicit(&row->state, memory_order_seq_cst);
    if (!is_open(*state))
        return true;
    out->key_id = row->event.key_id;
    out->id = row->event.id;
    out->reservation = row->reservation;
    out->cost_nano = row->event.cost_nano;
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(&row->uses, memory_order_relaxed) == uses;
}

void inflight_each_open(void *arg, open_request_fn visit, void *visit_arg)
{
    struct inflight_region *r = arg;

    for (size_t i = 0; i < r->slots * r->rows; i++) {
        struct inflight_row *row = inflight_row_at(r, i / r->rows, i % r->rows);
        struct open_request request;
        uint32_t state;

        while (!read_row(row, &state, &request))
            ;
        if (!is_open(state))
            continue;
        request.state = OPEN_IN_BRACKET;
        if (state == INFLIGHT_RUNNING || state == INFLIGHT_FINAL)
            request.state = state == INFLIGHT_RUNNING ? OPEN_RUNNING : OPEN_FINAL;
        visit(visit_arg, &request);
    }
}
