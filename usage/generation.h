/* generation.h - one request as its key's owner may look it up: OpenRouter's GET /generation.
 * Usage-writer only, but for the name. */
#ifndef XROUTER_USAGE_GENERATION_H
#define XROUTER_USAGE_GENERATION_H

#include <stdint.h>

#include "common/buf.h"
#include "usage/event.h"
#include "usage/ledger.h"

#define GENERATION_NAME_BYTES 48

/* The request's id out of "chatcmpl-<32 hex>", "cmpl-...", "req_..." or the 32 digits alone. 0 or
 * -EINVAL. */
int generation_name_parse(const char *name, struct usage_id *out);

/* Appends the JSON object; name is shown as its "id". 0, -ENOENT (there is none, it is not
 * committed yet, or it is another key's), -errno as database_errno(). */
int generation_encode(struct ledger *ledger, const struct usage_id *id, uint64_t key_id,
                      const char *name, struct buf *out);

#endif
