/* key_rows.h - the table api_keys, row by row: what keystore.h is built on.
 *
 * Usage-writer only. Failures are database_errno()'s; -EIO also means that there is no connection.
 */
#ifndef XROUTER_USAGE_KEY_ROWS_H
#define XROUTER_USAGE_KEY_ROWS_H

#include <stddef.h>
#include <stdint.h>

#include "common/secret.h"
#include "usage/key_record.h"
#include "usage/ledger.h"

/* By id, or by the name of a key that is not revoked; digest is what the key's text hashes to. 0,
 * -ENOENT, or -EBADMSG (the row makes no sense). */
int key_row_find(struct ledger *ledger, const char *name_or_id, struct key_record *out,
                 uint8_t digest[DIGEST_BYTES]);
/* Runs visit on up to max rows with ids above *after, in order, and moves *after. Returns how many,
 * or the first error, visit's included. */
typedef int (*key_row_fn)(void *arg, const struct key_record *r,
                          const uint8_t digest[DIGEST_BYTES]);
int key_row_each(struct ledger *ledger, uint64_t *after, size_t max, key_row_fn visit, void *arg);

/* Adds the record under its id. 0, -EEXIST (an active key has its name), -EAGAIN (the id is taken).
 */
int key_row_insert(struct ledger *ledger, const struct key_record *r,
                   const uint8_t digest[DIGEST_BYTES]);
/* Stores what key_record_apply() may have changed. 0, or -EEXIST as above. */
int key_row_update(struct ledger *ledger, const struct key_record *r);
/* Stores the digest alone, or the time of the revocation alone. */
int key_row_set_digest(struct ledger *ledger, uint64_t id, const uint8_t digest[DIGEST_BYTES]);
int key_row_set_revoked(struct ledger *ledger, uint64_t id, int64_t revoked_at_ms);
/* Whether there are rows with digests; to be closed before the turn ends, also when open failed. */
struct key_digests {
    sqlite3_stmt *stmt;
};
int key_digests_open(struct ledger *ledger, struct key_digests *digests);
void key_digests_close(struct key_digests *digests);
int key_digests_find(struct key_digests *digests,
                     const uint8_t digest[DIGEST_BYTES]); /* 1, 0 (there is none) or -errno */
/* Names of keys, "" for one that has none or is not there; to be closed before the turn ends, also
 * when open failed. */
struct key_names {
    sqlite3_stmt *stmt;
};
int key_names_open(struct ledger *ledger, struct key_names *names);
void key_names_close(struct key_names *names); /* a zeroed one is fine */
int key_names_get(struct key_names *names, const char *id_text, char out[KEY_NAME_BYTES]);

#endif
