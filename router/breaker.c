#include "router/breaker.h"

#include <stddef.h>

/* state: the low two bits are enum breaker_state, the others its moment in monotonic ms: since when
 * it is open, or when the probe of a half-open one began (0 = nobody probes). */
#define STATE_BITS 2
#define STATE_MASK ((UINT64_C(1) << STATE_BITS) - 1)

/* A half of the window: when it began in units of that half (24 bits, enough to tell neighbours
 * from strangers), tries and failures (20 bits each). */
#define COUNT_BITS 20
#define COUNT_MAX ((UINT64_C(1) << COUNT_BITS) - 1)
#define EPOCH_MASK ((UINT64_C(1) << (64 - 2 * COUNT_BITS)) - 1)

const char *const BREAKER_STATE_NAMES[] = {"closed", "open", "half_open"};

struct half {
    uint64_t epoch, tries, failures;
};

static uint64_t pack_state(enum breaker_state state, int64_t at_ms)
{
    return (uint64_t)at_ms << STATE_BITS | (uint64_t)state;
}

static enum breaker_state state_of(uint64_t word)
{
    return (enum breaker_state)(word & STATE_MASK);
}

static int64_t moment_of(uint64_t word)
{
    return (int64_t)(word >> STATE_BITS);
}

static uint64_t pack_half(struct half h)
{
    return h.epoch << 2 * COUNT_BITS | h.tries << COUNT_BITS | h.failures;
}

static struct half unpack_half(uint64_t word)
{
    return (struct half){.epoch = word >> 2 * COUNT_BITS,
                         .tries = word >> COUNT_BITS & COUNT_MAX,
                         .failures = word & COUNT_MAX};
}

static uint64_t load(const _Atomic uint64_t *word)
{
    return atomic_load_explicit(word, memory_order_acquire);
}

static bool swap(_Atomic uint64_t *word, uint64_t *from, uint64_t to)
{
    return atomic_compare_exchange_weak_explicit(word, from, to, memory_order_acq_rel,
                                                 memory_order_acquire);
}

bool breaker_allows(struct breaker *b, const struct config *config, int64_t now_ms)
{
    uint64_t word = load(&b->state);

    for (;;) {
        switch (state_of(word)) {
        case BREAKER_CLOSED:
            return true;
        case BREAKER_OPEN:
        case BREAKER_HALF_OPEN:
            if (moment_of(word) != 0 && now_ms < moment_of(word) + config->breaker_open_ms)
                return false; /* left alone; or a probe is under way, and may yet tell */
            if (swap(&b->state, &word, pack_state(BREAKER_HALF_OPEN, now_ms)))
                return true;
            break;
        }
    }
}

/* Adds a try to the half that now fills; returns what the whole window holds. */
static struct half count(struct breaker *b, const struct config *config, bool is_failure,
                         int64_t now_ms)
{
    uint64_t epoch = (uint64_t)(now_ms / (config->breaker_window_ms / 2)) & EPOCH_MASK;
    _Atomic uint64_t *word = &b->window[epoch & 1];
    uint64_t seen = load(word);
    struct half fills, before;

    do {
        fills = unpack_half(seen);
        if (fills.epoch != epoch)
            fills = (struct half){.epoch = epoch};
        if (fills.tries < COUNT_MAX)
            fills.tries++;
        if (is_failure && fills.failures < COUNT_MAX)
            fills.failures++;
    } while (!swap(word, &seen, pack_half(fills)));
    before = unpack_half(load(&b->window[~epoch & 1]));
    if (before.epoch == ((epoch - 1) & EPOCH_MASK)) {
        fills.tries += before.tries;
        fills.failures += before.failures;
    }
    return fills;
}

static bool is_too_bad(const struct config *config, const struct half *window, uint64_t streak)
{
    return streak >= config->breaker_failures ||
           (window->tries >= config->breaker_requests &&
            window->failures * 100 >= window->tries * config->breaker_error_percent);
}

static void forget_past(struct breaker *b)
{
    atomic_store_explicit(&b->streak, 0, memory_order_relaxed);
    atomic_store_explicit(&b->window[0], 0, memory_order_relaxed);
    atomic_store_explicit(&b->window[1], 0, memory_order_relaxed);
}

static bool move(struct breaker *b, enum breaker_state from, enum breaker_state to, int64_t now_ms)
{
    uint64_t word = load(&b->state);

    while (state_of(word) == from)
        if (swap(&b->state, &word, pack_state(to, now_ms))) {
            if (to == BREAKER_OPEN)
                atomic_fetch_add_explicit(&b->opened_total, 1, memory_order_relaxed);
            return true;
        }
    return false;
}

bool breaker_note(struct breaker *b, const struct config *config, bool is_failure, int64_t now_ms)
{
    enum breaker_state state = state_of(load(&b->state));
    struct half window;
    uint64_t streak = 0;

    if (state == BREAKER_HALF_OPEN) {
        if (!is_failure)
            forget_past(b);
        return move(b, BREAKER_HALF_OPEN, is_failure ? BREAKER_OPEN : BREAKER_CLOSED, now_ms);
    }
    window = count(b, config, is_failure, now_ms);
    if (is_failure)
        streak = atomic_fetch_add_explicit(&b->streak, 1, memory_order_relaxed) + 1;
    else if (load(&b->streak) != 0) /* no store to a shared line for each success */
        atomic_store_explicit(&b->streak, 0, memory_order_relaxed);
    /* A try that began before it opened changes nothing any more. */
    return is_failure && state == BREAKER_CLOSED && is_too_bad(config, &window, streak) &&
           move(b, BREAKER_CLOSED, BREAKER_OPEN, now_ms);
}

void breaker_forget(struct breaker *b)
{
    uint64_t word = load(&b->state);

    while (state_of(word) == BREAKER_HALF_OPEN && moment_of(word) != 0)
        if (swap(&b->state, &word, pack_state(BREAKER_HALF_OPEN, 0)))
            return;
}

enum breaker_state breaker_state_now(const struct breaker *b, const struct config *config,
                                     int64_t now_ms)
{
    uint64_t word = load(&b->state);

    if (state_of(word) == BREAKER_OPEN && now_ms >= moment_of(word) + config->breaker_open_ms)
        return BREAKER_HALF_OPEN;
    return state_of(word);
}

enum breaker_state breaker_state_seen(const struct breaker *b)
{
    return state_of(load(&b->state));
}

int64_t breaker_wait_ms(const struct breaker *b, const struct config *config, int64_t now_ms)
{
    uint64_t word = load(&b->state);
    int64_t wait_ms;

    if (state_of(word) == BREAKER_CLOSED || moment_of(word) == 0)
        return 0;
    wait_ms = moment_of(word) + config->breaker_open_ms - now_ms;
    return wait_ms > 0 ? wait_ms : 0;
}
