#include "gateway/rate_headers.h"

#include "common/buf.h"
#include "common/clock.h"
#include "gateway/limiting.h"

#define HOUR_MS 3600000
#define MINUTE_MS 60000

void duration_format(int64_t ms, char out[DURATION_BYTES])
{
    struct buf text;

    buf_init_fixed(&text, out, DURATION_BYTES);
    if (ms >= HOUR_MS) {
        buf_i64(&text, ms / HOUR_MS);
        buf_byte(&text, 'h');
    }
    if (ms >= MINUTE_MS) {
        buf_i64(&text, ms % HOUR_MS / MINUTE_MS);
        buf_byte(&text, 'm');
    }
    if (ms > 0 && ms < 1000) {
        buf_i64(&text, ms);
        buf_str(&text, "ms");
    } else {
        int64_t rest = ms % MINUTE_MS % 1000;

        buf_i64(&text, ms % MINUTE_MS / 1000);
        if (rest > 0) {
            char digits[] = {'.', (char)('0' + rest / 100), (char)('0' + rest / 10 % 10),
                             (char)('0' + rest % 10)};
            size_t len = sizeof(digits);

            while (digits[len - 1] == '0')
                len--;
            buf_append(&text, digits, len);
        }
        buf_byte(&text, 's');
    }
    (void)buf_text(&text); /* ends it: there is room */
}

static enum MHD_Result add_number(struct MHD_Response *response, const char *name, uint32_t value)
{
    char memory[16];
    struct buf text;

    buf_init_fixed(&text, memory, sizeof(memory));
    buf_u64(&text, value);
    return MHD_add_response_header(response, name, buf_text(&text));
}

/* Of the two the one that is nearer to its end; neither is fine. */
static enum MHD_Result add_kind(struct MHD_Response *response, const struct limits_region *r,
                                const struct limit_scope *scope, const enum limit_kind kinds[2],
                                const char *const names[3])
{
    const struct limit_moment now = {.now_ms = clock_monotonic_ms(),
                                     .now_at_ms = clock_now_at_ms()};
    uint32_t limit = 0, left = 0;
    char reset[DURATION_BYTES];
    int64_t reset_ms = 0;

    for (size_t i = 0; i < 2; i++) {
        int64_t ms = 0;
        uint32_t n = limits_left(r, scope, kinds[i], &now, &ms);

        if (scope->values.of[kinds[i]] == 0 || (limit != 0 && n >= left))
            continue;
        limit = scope->values.of[kinds[i]];
        left = n;
        reset_ms = ms;
    }
    if (limit == 0)
        return MHD_YES;
    duration_format(reset_ms, reset);
    return add_number(response, names[0], limit) & add_number(response, names[1], left) &
           MHD_add_response_header(response, names[2], reset);
}

enum MHD_Result rate_headers_add(struct MHD_Response *response, const struct limits_region *r,
                                 const struct key *key)
{
    static const enum limit_kind REQUESTS[] = {LIMIT_RPM, LIMIT_RPD};
    static const enum limit_kind TOKENS[] = {LIMIT_TPM, LIMIT_TPD};
    static const char *const REQUEST_NAMES[] = {"x-ratelimit-limit-requests",
                                                "x-ratelimit-remaining-requests",
                                                "x-ratelimit-reset-requests"};
    static const char *const TOKEN_NAMES[] = {
        "x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"};
    struct limit_scope scope;

    if (key->id == 0 || (key->rpm | key->rpd | key->tpm | key->tpd) == 0)
        return MHD_YES;
    scope = limiting_key_scope(r, key);
    return add_kind(response, r, &scope, REQUESTS, REQUEST_NAMES) &
           add_kind(response, r, &scope, TOKENS, TOKEN_NAMES);
}
