#include "usage/calibration.h"

#include <assert.h>
#include <stdatomic.h>

/* A model's word: the ratio in 2^-22 millionths, and below it the tokens behind it. A request of
 * one token moves a full memory's ratio by 1/65536 of the difference; so far behind the point that
 * is still something while the difference is more than 1/64 of a millionth. */
#define TOKENS_BITS 17
#define TOKENS_MASK ((UINT64_C(1) << TOKENS_BITS) - 1)
#define FRACTION_BITS 22
#define RATIO_BITS (64 - TOKENS_BITS)

_Static_assert(CALIBRATION_MEMORY_TOKENS <= TOKENS_MASK, "the tokens fit into their bits");
_Static_assert((uint64_t)CALIBRATION_MAX < UINT64_C(1) << (RATIO_BITS - FRACTION_BITS),
               "the ratio fits into its bits");
_Static_assert(((uint64_t)CALIBRATION_MAX << FRACTION_BITS) <=
                   INT64_MAX / CALIBRATION_REQUEST_TOKENS,
               "a weighted difference fits into an int64_t");

struct calibration_region {
    uint64_t count;
    _Atomic uint64_t words[]; /* 0 = nothing is known */
};

static uint64_t region_layout(void)
{
    static const uint64_t LAYOUT[] = {
        TOKENS_BITS,
        FRACTION_BITS,
        CALIBRATION_ONE,
        CALIBRATION_MEMORY_TOKENS,
        sizeof(struct calibration_region),
        offsetof(struct calibration_region, words),
    };

    return shm_layout_hash(0, LAYOUT, sizeof(LAYOUT));
}

struct shm_region_spec calibration_region_spec(size_t models)
{
    return (struct shm_region_spec){
        .name = CALIBRATION_REGION,
        .bytes = sizeof(struct calibration_region) + models * sizeof(uint64_t),
        .layout = region_layout(),
    };
}

void calibration_region_init(struct calibration_region *r, size_t models)
{
    r->count = models;
}

struct calibration_region *calibration_region_get(const struct shm *shm)
{
    size_t bytes;
    struct calibration_region *r = shm_region(shm, CALIBRATION_REGION, region_layout(), &bytes);

    if (r == NULL || r->count > (bytes - sizeof(*r)) / sizeof(r->words[0]))
        return NULL;
    return r;
}

size_t calibration_count(const struct calibration_region *r)
{
    return r->count;
}

static uint64_t load(const struct calibration_region *r, size_t model)
{
    assert(model < r->count);
    return atomic_load_explicit(&r->words[model], memory_order_relaxed);
}

static uint32_t tokens_of(uint64_t word)
{
    return (uint32_t)(word & TOKENS_MASK);
}

static uint64_t make_word(uint64_t ratio, uint64_t tokens)
{
    return ratio << TOKENS_BITS | tokens;
}

struct calibration calibration_get(const struct calibration_region *r, size_t model)
{
    static const uint64_t HALF = UINT64_C(1) << (FRACTION_BITS - 1);
    uint64_t word = load(r, model);

    if (tokens_of(word) == 0)
        return (struct calibration){.ratio = CALIBRATION_ONE};
    return (struct calibration){
        .ratio = (uint32_t)(((word >> TOKENS_BITS) + HALF) >> FRACTION_BITS),
        .tokens = tokens_of(word),
    };
}

/* In 2^-22 millionths. */
static int64_t sample_of(int64_t counted, int64_t reported)
{
    static const int64_t MIN = (int64_t)CALIBRATION_MIN << FRACTION_BITS;
    static const int64_t MAX = (int64_t)CALIBRATION_MAX << FRACTION_BITS;
    unsigned __int128 sample = (unsigned __int128)(uint64_t)reported * CALIBRATION_ONE;

    sample = (sample << FRACTION_BITS) / (uint64_t)counted;
    if (sample > (uint64_t)MAX)
        return MAX;
    return sample < (uint64_t)MIN ? MIN : (int64_t)sample;
}

/* The first one's weight is all there is: the ratio becomes the sample. */
static uint64_t learned(uint64_t word, int64_t sample, int64_t weight)
{
    int64_t ratio = (int64_t)(word >> TOKENS_BITS);
    int64_t tokens = (int64_t)tokens_of(word) + weight;

    if (tokens > (int64_t)CALIBRATION_MEMORY_TOKENS)
        tokens = CALIBRATION_MEMORY_TOKENS;
    ratio += (sample - ratio) * weight / tokens;
    return make_word((uint64_t)ratio, (uint64_t)tokens);
}

void calibration_learn(struct calibration_region *r, size_t model, int64_t counted,
                       int64_t reported)
{
    uint64_t word = load(r, model);
    int64_t sample, weight;

    if (counted <= 0 || reported <= 0)
        return;
    sample = sample_of(counted, reported);
    weight = counted < (int64_t)CALIBRATION_REQUEST_TOKENS ? counted : CALIBRATION_REQUEST_TOKENS;
    while (!atomic_compare_exchange_weak_explicit(&r->words[model], &word,
                                                  learned(word, sample, weight),
                                                  memory_order_relaxed, memory_order_relaxed))
        ;
}

void calibration_restore(struct calibration_region *r, size_t model, struct calibration known)
{
    uint64_t nothing = 0;

    assert(model < r->count);
    if (known.ratio < CALIBRATION_MIN || known.ratio > CALIBRATION_MAX || known.tokens == 0 ||
        known.tokens > CALIBRATION_MEMORY_TOKENS)
        return;
    (void)atomic_compare_exchange_strong_explicit(
        &r->words[model], &nothing, make_word((uint64_t)known.ratio << FRACTION_BITS, known.tokens),
        memory_order_relaxed, memory_order_relaxed); /* if not, something is known by now */
}

bool calibration_wants(const struct calibration_region *r, size_t model, uint32_t random)
{
    /* 2^32 divided by the golden ratio: every bit of a factor reaches the product's upper ones. */
    uint32_t spread = random * UINT32_C(2654435769);

    return tokens_of(load(r, model)) < CALIBRATION_MEMORY_TOKENS ||
           spread <= UINT32_MAX / CALIBRATION_SAMPLE;
}

int64_t calibration_apply(uint32_t ratio, int64_t tokens)
{
    int64_t whole, rest, sum;

    assert(tokens >= 0);
    rest = (tokens % CALIBRATION_ONE * ratio + CALIBRATION_ONE - 1) / CALIBRATION_ONE;
    if (__builtin_mul_overflow(tokens / CALIBRATION_ONE, ratio, &whole) ||
        __builtin_add_overflow(whole, rest, &sum))
        return INT64_MAX;
    return sum;
}

/* ---- shown ---- */

static bool read_ratio(const void *arg, size_t model, uint64_t *value)
{
    const struct calibration_region *r = arg;
    struct calibration known;

    if (r == NULL || model >= r->count)
        return false;
    known = calibration_get(r, model);
    *value = known.ratio;
    return known.tokens > 0;
}

static bool read_tokens(const void *arg, size_t model, uint64_t *value)
{
    const struct calibration_region *r = arg;

    if (r == NULL || model >= r->count)
        return false;
    *value = calibration_get(r, model).tokens;
    return *value > 0;
}

struct model_gauges calibration_gauges(const struct calibration_region *r)
{
    static const struct model_gauge GAUGES[] = {
        {"token_ratio", 6, "Tokens the provider reports for one of o200k_base, as learned",
         read_ratio},
        {"token_ratio_tokens", 0,
         "Counted tokens that the token ratio was learned from, and that "
         "weigh in it: 65536 at most",
         read_tokens},
    };

    return (struct model_gauges){GAUGES, sizeof(GAUGES) / sizeof(GAUGES[0]), r};
}
