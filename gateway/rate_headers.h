/* rate_headers.h - x-ratelimit-{limit,remaining,reset}-{requests,tokens}, as OpenAI sends them.
 *
 * Of a key that has a limit by the minute and one by the day, the one of which less is left is
 * told. Times are durations as Go writes them: "1s", "6m0s", "12ms". */
#ifndef XROUTER_GATEWAY_RATE_HEADERS_H
#define XROUTER_GATEWAY_RATE_HEADERS_H

#include <microhttpd.h>

#include "usage/keytable.h"
#include "usage/limits.h"

#define DURATION_BYTES 32

void duration_format(int64_t ms, char out[DURATION_BYTES]); /* not negative */
/* As the key's limits stand now; nothing for a key without. */
enum MHD_Result rate_headers_add(struct MHD_Response *response, const struct limits_region *r,
                                 const struct key *key);

#endif
