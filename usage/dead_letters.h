/* dead_letters.h - records the ledger refused, one JSON object a line in
 * state_dir/dead-letters.jsonl:
 * {"at","reason","id","record"}, the record's bytes as base64. Nothing reads the file but people.
 */
#ifndef XROUTER_USAGE_DEAD_LETTERS_H
#define XROUTER_USAGE_DEAD_LETTERS_H

#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "usage/event.h"

/* Appends a line to out; id may be NULL. Returns out->err. */
int dead_letter_put(struct buf *out, int64_t at_ms, const char *reason, const struct usage_id *id,
                    const uint8_t *record, size_t len);
/* Appends the lines to the file (made with mode 0600) and syncs it. 0 or -errno. */
int dead_letters_write(const char *path, const struct buf *lines);

#endif
