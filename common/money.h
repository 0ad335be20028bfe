/* money.h - amounts as int64 nanocredits: 1 credit = 10^9 nanocredits = one unit of
 * billing.currency. No floating point comes near an amount. */
#ifndef XROUTER_COMMON_MONEY_H
#define XROUTER_COMMON_MONEY_H

#include <stdint.h>

#define NANO_PER_CREDIT INT64_C(1000000000)
#define MONEY_TEXT_BYTES 24 /* "-9223372036.854775807" and its NUL fit */

/* Decimal text with up to 9 places ("12", "0.000000001", "-3.5"): 0, -EINVAL (not a number, too
 * many places), -ERANGE. */
int money_parse(const char *text, int64_t *nano);
/* The shortest decimal text. */
void money_format(int64_t nano, char out[MONEY_TEXT_BYTES]);

/* Prices in force for one model: nanocredits per 1,000,000 tokens, and per request. */
struct price {
    int64_t from_at_ms; /* valid from */
    int64_t input_nano;
    int64_t cached_input_nano;
    int64_t output_nano;
    int64_t request_nano;
};

/* What one attempt costs: (input - cached) * input + cached * cached_input + output * output, over
 * 10^6, rounded half up once in 128 bits, plus the request price. cached is inside input. Saturates
 * at INT64_MAX. Negative counts are a caller's bug. */
int64_t money_cost_nano(const struct price *price, int64_t tokens_input, int64_t tokens_cached,
                        int64_t tokens_output);

#endif
