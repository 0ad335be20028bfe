#include "usage/limits.h"

#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "common/error.h"

#define LINE 64
#define TICK_MS 10 /* a minute's start: 32 bits of these last more than a year */
#define MINUTE_TICKS 6000
#define DAY_MS INT64_C(86400000)
#define TYPICAL_FIRST 256
#define TYPICAL_SHIFT 4
#define REAP_TRIES 100000

/* The row that a worker is changing, so that nobody need guess what it did before it died. */
struct intent {
    _Alignas(LINE) _Atomic uint32_t row; /* + 1, 0 = none */
};

struct row {
    _Atomic uint64_t windows[LIMIT_WINDOWS]; /* start << 32 | used */
    _Atomic uint32_t running;
    _Atomic uint32_t typical_output; /* of a model */
    _Atomic uint16_t running_of[];   /* by worker slot: its own of them */
};

struct limits_region {
    uint64_t keys, models, slots;
    uint64_t row_bytes;
    _Alignas(LINE) struct intent intents[]; /* by worker slot; the rows are behind them */
};

static size_t row_bytes(size_t slots)
{
    return (sizeof(struct row) + slots * sizeof(uint16_t) + LINE - 1) / LINE * LINE;
}

static uint64_t region_layout(void)
{
    static const uint64_t LAYOUT[] = {
        1, /* the meaning of the words */
        sizeof(struct limits_region),
        sizeof(struct intent),
        sizeof(struct row),
        offsetof(struct row, running),
        offsetof(struct row, running_of),
        LIMIT_WINDOWS,
        TICK_MS,
    };

    return shm_layout_hash(0, LAYOUT, sizeof(LAYOUT));
}

struct shm_region_spec limits_region_spec(size_t keys, size_t models, size_t slots)
{
    return (struct shm_region_spec){.name = LIMITS_REGION,
                                    .bytes = sizeof(struct limits_region) +
                                             slots * sizeof(struct intent) +
                                             (1 + models + keys) * row_bytes(slots),
                                    .layout = region_layout()};
}

void limits_region_init(struct limits_region *r, size_t keys, size_t models, size_t slots)
{
    r->keys = keys;
    r->models = models;
    r->slots = slots;
    r->row_bytes = row_bytes(slots);
}

struct limits_region *limits_region_get(const struct shm *shm)
{
    size_t bytes;
    struct limits_region *r = shm_region(shm, LIMITS_REGION, region_layout(), &bytes);

    if (r == NULL || r->slots > UINT16_MAX || r->keys > bytes / LINE || r->models > bytes / LINE ||
        r->row_bytes != row_bytes(r->slots) ||
        limits_region_spec(r->keys, r->models, r->slots).bytes > bytes)
        return NULL;
    return r;
}

uint32_t limits_row_of_gateway(void)
{
    return 0;
}

uint32_t limits_row_of_model(const struct limits_region *r, size_t model)
{
    return model < r->models ? 1 + (uint32_t)model : 0;
}

uint32_t limits_row_of_key(const struct limits_region *r, uint32_t account)
{
    return account < r->keys ? 1 + (uint32_t)r->models + account : 0;
}

static struct row *row_at(const struct limits_region *r, uint32_t index)
{
    char *rows = (char *)(uintptr_t)&r->intents[r->slots];

    return (struct row *)(void *)(rows + index * r->row_bytes);
}

/* ---- windows ---- */

static bool is_day(enum limit_kind kind)
{
    return kind == LIMIT_RPD || kind == LIMIT_TPD;
}

static bool is_tokens(enum limit_kind kind)
{
    return kind == LIMIT_TPM || kind == LIMIT_TPD;
}

static uint32_t tick_of(const struct limit_moment *now)
{
    return (uint32_t)(now->now_ms / TICK_MS);
}

/* The window that counts now: its start and what was used in it. */
struct window {
    uint32_t start;
    uint32_t used;
};

static struct window window_of(uint64_t word, enum limit_kind kind, const struct limit_moment *now)
{
    struct window w = {.start = (uint32_t)(word >> 32), .used = (uint32_t)word};
    uint32_t today = (uint32_t)(now->now_at_ms / DAY_MS), tick = tick_of(now);

    if (is_day(kind) && w.start < today)
        return (struct window){today, 0};
    /* A tick more: it began somewhere in its first one. */
    if (!is_day(kind) && (w.used == 0 || tick - w.start > MINUTE_TICKS))
        return (struct window){tick, 0};
    return w;
}

static uint64_t word_of(struct window w)
{
    return (uint64_t)w.start << 32 | w.used;
}

/* Until the window ends; at least 1. */
static int64_t ends_in_ms(struct window w, enum limit_kind kind, const struct limit_moment *now)
{
    int64_t left_ms;

    if (is_day(kind))
        left_ms = ((int64_t)w.start + 1) * DAY_MS - now->now_at_ms;
    else
        left_ms = ((int64_t)MINUTE_TICKS + 1 - (int64_t)(tick_of(now) - w.start)) * TICK_MS -
                  now->now_ms % TICK_MS;
    return left_ms > 1 ? left_ms : 1;
}

/* Takes so many. 0, or how long it has to wait. */
static int64_t window_take(_Atomic uint64_t *word, enum limit_kind kind, uint32_t limit,
                           uint32_t amount, const struct limit_moment *now, uint32_t *start)
{
    uint64_t seen = atomic_load_explicit(word, memory_order_relaxed);
    struct window w;

    do {
        w = window_of(seen, kind, now);
        if (amount > limit || w.used > limit - amount)
            return ends_in_ms(w, kind, now);
        w.used += amount;
    } while (!atomic_compare_exchange_weak(word, &seen, word_of(w)));
    *start = w.start;
    return 0;
}

/* Puts right what was taken, if that window is still the word's. */
static void window_add(_Atomic uint64_t *word, uint32_t start, int64_t delta)
{
    uint64_t seen = atomic_load_explicit(word, memory_order_relaxed);
    int64_t used;

    do {
        if ((uint32_t)(seen >> 32) != start)
            return;
        used = (int64_t)(uint32_t)seen + delta;
        used = used < 0 ? 0 : used > UINT32_MAX ? UINT32_MAX : used;
    } while (!atomic_compare_exchange_weak(
        word, &seen, word_of((struct window){.start = start, .used = (uint32_t)used})));
}

/* ---- requests at once ---- */

static bool running_enter(struct limits_region *r, size_t slot, uint32_t index, uint32_t limit)
{
    struct row *row = row_at(r, index);
    uint32_t seen = atomic_load(&row->running);
    bool is_in = false;

    atomic_store(&r->intents[slot].row, index + 1);
    while (seen < limit && !is_in)
        is_in = atomic_compare_exchange_weak(&row->running, &seen, seen + 1);
    if (is_in)
        atomic_fetch_add(&row->running_of[slot], 1);
    atomic_store(&r->intents[slot].row, 0);
    return is_in;
}

static void running_leave(struct limits_region *r, size_t slot, uint32_t index)
{
    struct row *row = row_at(r, index);

    atomic_store(&r->intents[slot].row, index + 1);
    atomic_fetch_sub(&row->running, 1);
    atomic_fetch_sub(&row->running_of[slot], 1);
    atomic_store(&r->intents[slot].row, 0);
}

uint32_t limits_running(const struct limits_region *r, uint32_t row)
{
    return atomic_load(&row_at(r, row)->running);
}

/* ---- claims ---- */

static uint32_t sum(uint32_t a, uint32_t b)
{
    return a > UINT32_MAX - b ? UINT32_MAX : a + b;
}

/* What is taken of a token limit: where prompt and answer together would never fit, all of it. */
static uint32_t amount_of(enum limit_kind kind, uint32_t limit, uint32_t prompt, uint32_t tokens)
{
    if (!is_tokens(kind))
        return 1;
    return prompt <= limit && tokens > limit ? limit : tokens;
}

/* 0, or refused for so long (-1: for ever). What was taken is in the claim either way. */
static int64_t claim_scope(struct limits_region *r, size_t slot, const struct limit_scope *scope,
                           uint32_t prompt, uint32_t tokens, const struct limit_moment *now,
                           struct limit_claim *claim, struct limit_refusal *refusal)
{
    struct row *row = row_at(r, scope->row);
    size_t at = claim->count++;

    claim->scopes[at].row = scope->row;
    for (enum limit_kind kind = 0; kind < LIMIT_WINDOWS; kind++) {
        uint32_t limit = scope->values.of[kind];
        uint32_t amount = amount_of(kind, limit, prompt, tokens);
        int64_t wait_ms;

        if (limit == 0)
            continue;
        refusal->kind = kind;
        refusal->limit = limit;
        if (amount > limit)
            return -1;
        wait_ms = window_take(&row->windows[kind], kind, limit, amount, now,
                              &claim->scopes[at].starts[kind]);
        if (wait_ms != 0)
            return wait_ms;
        claim->scopes[at].amounts[kind] = amount;
        claim->scopes[at].taken |= UINT32_C(1) << kind;
    }
    if (scope->values.of[LIMIT_PARALLEL] == 0)
        return 0;
    refusal->kind = LIMIT_PARALLEL;
    refusal->limit = scope->values.of[LIMIT_PARALLEL];
    if (!running_enter(r, slot, scope->row, refusal->limit))
        return 1;
    claim->scopes[at].taken |= UINT32_C(1) << LIMIT_PARALLEL;
    return 0;
}

int limits_claim(struct limits_region *r, size_t slot, const struct limit_scope *scopes,
                 size_t count, uint32_t prompt_tokens, uint32_t output_tokens,
                 const struct limit_moment *now, struct limit_claim *claim,
                 struct limit_refusal *refusal)
{
    uint32_t tokens = sum(prompt_tokens, output_tokens);

    *claim = (struct limit_claim){0};
    for (size_t i = 0; i < count && i < LIMIT_SCOPES_MAX; i++) {
        int64_t wait_ms =
            claim_scope(r, slot, &scopes[i], prompt_tokens, tokens, now, claim, refusal);

        if (wait_ms == 0)
            continue;
        refusal->scope = i;
        refusal->wait_ms = refusal->kind == LIMIT_PARALLEL ? 0 : wait_ms;
        limits_give_back(r, slot, claim);
        return XR_ERATELIMIT;
    }
    return 0;
}

/* tokens: what it needed; -1 = it has not even been a request. */
static void end_claim(struct limits_region *r, size_t slot, struct limit_claim *claim,
                      int64_t tokens)
{
    for (size_t i = 0; i < claim->count; i++) {
        struct row *row = row_at(r, claim->scopes[i].row);
        uint32_t taken = claim->scopes[i].taken;

        for (enum limit_kind kind = 0; kind < LIMIT_WINDOWS; kind++) {
            int64_t amount = claim->scopes[i].amounts[kind];
            int64_t needed = tokens < 0 ? 0 : is_tokens(kind) ? tokens : amount;

            if ((taken >> kind & 1) != 0 && needed != amount)
                window_add(&row->windows[kind], claim->scopes[i].starts[kind], needed - amount);
        }
        if ((taken >> LIMIT_PARALLEL & 1) != 0)
            running_leave(r, slot, claim->scopes[i].row);
    }
    *claim = (struct limit_claim){0};
}

void limits_settle(struct limits_region *r, size_t slot, struct limit_claim *claim, int64_t tokens)
{
    end_claim(r, slot, claim, tokens > 0 ? tokens : 0);
}

void limits_give_back(struct limits_region *r, size_t slot, struct limit_claim *claim)
{
    end_claim(r, slot, claim, -1);
}

uint32_t limits_left(const struct limits_region *r, const struct limit_scope *scope,
                     enum limit_kind kind, const struct limit_moment *now, int64_t *reset_ms)
{
    struct window w = window_of(atomic_load(&row_at(r, scope->row)->windows[kind]), kind, now);
    uint32_t limit = scope->values.of[kind];

    *reset_ms = w.used == 0 ? 0 : ends_in_ms(w, kind, now);
    return w.used < limit ? limit - w.used : 0;
}

/* ---- typical answers ---- */

uint32_t limits_typical_output(const struct limits_region *r, size_t model)
{
    uint32_t typical = atomic_load_explicit(
        &row_at(r, limits_row_of_model(r, model))->typical_output, memory_order_relaxed);

    return typical == 0 ? TYPICAL_FIRST : typical;
}

void limits_note_output(struct limits_region *r, size_t model, int64_t tokens)
{
    _Atomic uint32_t *word = &row_at(r, limits_row_of_model(r, model))->typical_output;
    int64_t typical = limits_typical_output(r, model);

    if (tokens < 0 || tokens > UINT32_MAX)
        return;
    /* Rounded away from what it was, so that it gets there. */
    typical +=
        (tokens - typical + (tokens > typical ? (1 << TYPICAL_SHIFT) - 1 : 0)) >> TYPICAL_SHIFT;
    /* Of two at once one is lost: it is an average. */
    atomic_store_explicit(word, (uint32_t)(typical > 0 ? typical : 1), memory_order_relaxed);
}

/* ---- the master ---- */

static bool is_changed_by_others(const struct limits_region *r, size_t dead, uint32_t index)
{
    for (size_t i = 0; i < r->slots; i++)
        if (i != dead && atomic_load(&r->intents[i].row) == index + 1)
            return true;
    return false;
}

/* The dead worker was between a row's sum and its own part of it: the parts tell what the sum is,
 * at a moment at which nobody else is between them. */
static void put_right(struct limits_region *r, size_t dead, uint32_t index)
{
    struct row *row = row_at(r, index);

    for (int i = 0; i < REAP_TRIES; i++) {
        uint32_t seen = atomic_load(&row->running), parts = 0;
        bool is_quiet = !is_changed_by_others(r, dead, index);

        /* Whoever begins from here on changes the sum first, and is found out by that. */
        for (size_t slot = 0; slot < r->slots; slot++)
            parts += atomic_load(&row->running_of[slot]);
        if (is_quiet && atomic_compare_exchange_strong(&row->running, &seen, parts))
            return;
        (void)sched_yield();
    }
}

void limits_reap(struct limits_region *r, size_t slot)
{
    uint64_t rows = 1 + r->models + r->keys;
    uint32_t intent;

    if (slot >= r->slots)
        return;
    intent = atomic_load(&r->intents[slot].row);
    if (intent > 0 && intent <= rows)
        put_right(r, slot, intent - 1);
    atomic_store(&r->intents[slot].row, 0);
    for (uint32_t i = 0; i < rows; i++) {
        uint32_t held = atomic_exchange(&row_at(r, i)->running_of[slot], 0);

        if (held > 0)
            atomic_fetch_sub(&row_at(r, i)->running, held);
    }
}
