/* key_summary.h - what the owner of a key is told about it: limits, what is spent, what is left.
 * The names are those of OpenRouter's GET /key, with ours beside them. Usage-writer only. */
#ifndef XROUTER_USAGE_KEY_SUMMARY_H
#define XROUTER_USAGE_KEY_SUMMARY_H

#include <stdint.h>

#include "common/buf.h"
#include "usage/keystore.h"
#include "usage/sums.h"

/* Appends the JSON object; total is all the key has ever used. "limit", "limit_remaining" and
 * "limit_reset" are of the limit that is reached first: the prepaid balance (which never resets;
 * its limit is what was spent and what is left) or a spending limit. 0 or -errno. */
int key_summary_encode(const struct keystore *ks, const struct key_record *key,
                       const struct sums *total, int64_t now_at_ms, struct buf *out);

#endif
