/* credits.h - changes of prepaid balances: payments, corrections, and their history (the table
 * credit_ledger). What requests cost is usage/ledger.h's.
 *
 * Usage-writer only. Failures of the database are database_errno()'s, with nothing changed. */
#ifndef XROUTER_USAGE_CREDITS_H
#define XROUTER_USAGE_CREDITS_H

#include <stdint.h>

#include "common/buf.h"
#include "usage/keystore.h"
#include "usage/recount.h"

#define CREDIT_OPERATION_BYTES 65 /* 1 to 64 printable ASCII characters */
#define CREDIT_NOTE_CHARS 256
#define CREDIT_NOTE_BYTES (4 * CREDIT_NOTE_CHARS + 1)

enum credit_kind { CREDIT_ADD, CREDIT_USAGE };

struct credit_entry {
    int64_t id;
    uint64_t key_id;
    enum credit_kind kind;
    int64_t amount_nano;
    int64_t balance_nano; /* after it */
    int64_t requests;     /* CREDIT_USAGE: how many it sums up */
    int64_t created_at_ms;
    char operation_id[CREDIT_OPERATION_BYTES]; /* "" = none */
    char note[CREDIT_NOTE_BYTES];              /* "" = none */
};

/* Adds the row, inside the caller's transaction or as one of its own, and fills its id. 0 or
 * -errno.
 */
int credit_entry_insert(struct ledger *ledger, struct credit_entry *e);
/* Appends the JSON object. */
void credit_entry_encode(const struct credit_entry *e, struct buf *out);

/* Pays e->amount_nano (negative: a correction) into the key's balance, under e->operation_id and
 * with e->note; a key that was not prepaid becomes so. Durable and spendable on return. Fills the
 * rest of e. An operation id that was used for the same key and amount changes nothing: e is the
 * row of that time. 0; -ENOENT (no such key); -EEXIST (the operation id was used for something
 * else); -ERANGE (the balance would pass ACCOUNT_MAX_NANO either way); -errno. */
int credits_add(const struct keystore *ks, const char *name_or_id, int64_t now_at_ms,
                struct credit_entry *e);

/* Appends the members "key", "name", "balance", "available" (what the workers see: the balance less
 * what is reserved or on its way; null while it is counted anew), "reserved" and "spending" (an
 * array of {"period","limit","spent","left","resets_at"}) of an object. requests may be NULL: then
 * nothing is reserved. 0, -ENOENT, -errno. */
int credits_show(const struct keystore *ks, const struct open_requests *requests,
                 const char *name_or_id, int64_t now_at_ms, struct buf *out);

/* Appends up to max of the key's rows with ids below *before, newest first, as JSON objects with
 * commas between, and moves *before. Returns how many or -errno. */
int credits_list(struct ledger *ledger, uint64_t key_id, int64_t *before, size_t max,
                 struct buf *out);

#endif
