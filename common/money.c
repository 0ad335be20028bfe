#include "common/money.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>

#include "common/buf.h"

#define TOKENS_PER_PRICE 1000000 /* prices are for a million tokens */
#define PLACES_MAX 9

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool push_digit(uint64_t *value, unsigned digit)
{
    return !__builtin_mul_overflow(*value, UINT64_C(10), value) &&
           !__builtin_add_overflow(*value, (uint64_t)digit, value);
}

int money_parse(const char *text, int64_t *nano)
{
    const char *at = text;
    uint64_t value = 0;
    bool negative = *at == '-';
    bool fits = true;
    int places = 0;

    if (negative)
        at++;
    if (!is_digit(*at))
        return -EINVAL;
    for (; is_digit(*at); at++)
        fits = fits && push_digit(&value, (unsigned)(*at - '0'));
    if (*at == '.') {
        at++;
        for (; is_digit(*at) && places < PLACES_MAX; at++, places++)
            fits = fits && push_digit(&value, (unsigned)(*at - '0'));
        if (places == 0)
            return -EINVAL;
    }
    if (*at != '\0')
        return -EINVAL;
    for (; places < PLACES_MAX; places++)
        fits = fits && push_digit(&value, 0);
    if (!fits || value > (uint64_t)INT64_MAX + negative)
        return -ERANGE;
    *nano = negative ? (int64_t)(0 - value) : (int64_t)value;
    return 0;
}

void money_format(int64_t nano, char out[MONEY_TEXT_BYTES])
{
    uint64_t value = nano < 0 ? 0 - (uint64_t)nano : (uint64_t)nano;
    uint64_t fraction = value % (uint64_t)NANO_PER_CREDIT;
    char digits[PLACES_MAX + 1]; /* the point, and what is not zero behind it */
    size_t places = PLACES_MAX;
    struct buf text;

    buf_init_fixed(&text, out, MONEY_TEXT_BYTES);
    buf_str(&text, nano < 0 ? "-" : "");
    buf_u64(&text, value / (uint64_t)NANO_PER_CREDIT);
    if (fraction > 0) {
        for (; fraction % 10 == 0; places--)
            fraction /= 10;
        for (size_t i = places; i > 0; i--, fraction /= 10)
            digits[i] = (char)('0' + fraction % 10);
        digits[0] = '.';
        buf_append(&text, digits, places + 1);
    }
    (void)buf_text(&text); /* ends it: there is room */
}

int64_t money_cost_nano(const struct price *price, int64_t tokens_input, int64_t tokens_cached,
                        int64_t tokens_output)
{
    unsigned __int128 sum;

    assert(tokens_input >= 0 && tokens_cached >= 0 && tokens_output >= 0);
    assert(price->input_nano >= 0 && price->cached_input_nano >= 0 && price->output_nano >= 0 &&
           price->request_nano >= 0);
    if (tokens_cached > tokens_input)
        tokens_cached = tokens_input;
    /* Three products below 2^126 each: the sum fits. */
    sum = (unsigned __int128)(tokens_input - tokens_cached) * (uint64_t)price->input_nano +
          (unsigned __int128)tokens_cached * (uint64_t)price->cached_input_nano +
          (unsigned __int128)tokens_output * (uint64_t)price->output_nano;
    sum = (sum + TOKENS_PER_PRICE / 2) / TOKENS_PER_PRICE + (uint64_t)price->request_nano;
    return sum > INT64_MAX ? INT64_MAX : (int64_t)sum;
}
