/* chat_wishes.h - what a chat request says about its route, in OpenRouter's shapes: `models` to
 * fall back on, and `provider`. For the router alone: never sent to a provider.
 *
 *   "models": ["a", "b"]               after `model`, or in its place
 *   "provider": {
 *     "order": ["x", "y"],             these providers first, in this order
 *     "only": ["x"], "ignore": ["y"],
 *     "allow_fallbacks": true,
 *     "require_parameters": false,     only providers that honour all the request's parameters
 *     "sort": "price",                 or throughput, latency
 *     "max_price": {"prompt": 0.5, "completion": "1.5", "request": 0}}
 *
 * Prices are decimal credits, per million tokens and per request, as in the configuration (not per
 * token in dollars, as OpenRouter's answers are). */
#ifndef XROUTER_PROVIDERS_CHAT_WISHES_H
#define XROUTER_PROVIDERS_CHAT_WISHES_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

#define CHAT_MODELS_MAX 3 /* in `models` */
#define CHAT_PROVIDERS_MAX 32

enum chat_sort { CHAT_SORT_NONE, CHAT_SORT_PRICE, CHAT_SORT_THROUGHPUT, CHAT_SORT_LATENCY };

struct chat_wishes {
    const cJSON *models, *order, *only,
        *ignore; /* arrays of strings inside the root; NULL = none */
    bool no_fallbacks, require_parameters;
    enum chat_sort sort;
    int64_t max_prompt_nano, max_completion_nano, max_request_nano; /* -1 = no limit */
};

/* From checked fields (chat_check_fields()); text is the request's, which has the prices' digits.
 * Returns 0 or XR_EINVALID with e->param ("provider.max_price.prompt"). */
int chat_wishes_read(const cJSON *root, const char *text, size_t len, struct chat_wishes *out,
                     struct error *e);

#endif
