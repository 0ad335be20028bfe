/* keystore.h - the API keys: rows of api_keys and, with them, the entries of the key table and the
 * accounts.
 *
 * Usage-writer only. A change is durable and in the key table before the call returns; of a key
 * whose balance or spending limits came, went or changed, the account is marked to be counted anew
 * (usage/recount.h). A database failure comes back as database_errno()'s -errno, with nothing
 * changed. */
#ifndef XROUTER_USAGE_KEYSTORE_H
#define XROUTER_USAGE_KEYSTORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/config.h"
#include "usage/accounts.h"
#include "usage/key_record.h"
#include "usage/keytable.h"
#include "usage/ledger.h"

struct keystore { /* all borrowed */
    struct ledger *ledger;
    struct keytable_region *table;
    struct accounts_region *accounts; /* NULL: no key is limited */
    const struct config *config;
};

/* Compares the key table's secret with the one the database was first used with; remembers it at
 * first use. 0, -EKEYREJECTED with a sentence in why, or -errno. */
int keystore_check_secret(const struct keystore *ks, char why[KEY_WHY_BYTES]);

/* Puts up to max keys with ids above *after into the key table, and moves *after. At a start
 * (is_start) every account with a limit is marked: a writer that died may have left a payment out.
 * Returns how many there were (fewer than max: that was the last), -EUSERS (the table is full) or
 * -errno. */
int keystore_load(const struct keystore *ks, uint64_t *after, size_t max, bool is_start);

/* Revokes in the key table what the database does not have: of up to max entries from number *at
 * on, those whose text is no row's, and moves *at. Returns how many entries there were (fewer than
 * max: that was the last) or -errno; *revoked grows by those it revoked. */
int keystore_sweep(const struct keystore *ks, size_t *at, size_t max, uint64_t *revoked);

/* Makes a key as *record says (key_record_decode()'s); fills its id and created_at. An opening
 * balance becomes the first row of its credit_ledger. text is the
 * only copy of the key's text there will ever be: wipe it. -EEXIST: an active key has that name.
 * -EUSERS: the key table is full. */
int keystore_create(const struct keystore *ks, int64_t now_at_ms, struct key_record *record,
                    char text[KEY_TEXT_BYTES]);
/* By id, or by the name of a key that is not revoked. 0 or -ENOENT. */
int keystore_find(const struct keystore *ks, const char *name_or_id, struct key_record *out);
/* The same, and revokes it; a key that was revoked before stays as it is. */
int keystore_revoke(const struct keystore *ks, const char *name_or_id, int64_t now_at_ms,
                    struct key_record *out);
/* Stores what key_record_apply() has changed in the record of a key that was found. -ENOENT,
 * -EKEYREVOKED, -EEXIST (an active key has that name). */
int keystore_update(const struct keystore *ks, const struct key_record *record);
/* Gives the key a new text, shown this once: wipe it. The old one stops working at once. -ENOENT,
 * -EKEYREVOKED, -EUSERS (the old text keeps its place in the key table until a restart). */
int keystore_rotate(const struct keystore *ks, const char *name_or_id, struct key_record *out,
                    char text[KEY_TEXT_BYTES]);
/* Appends up to max keys with ids above *after (0 at first) as JSON objects with commas between,
 * and moves *after. Ids, and so the list, are in order of creation. Returns how many or -errno. */
int keystore_list(const struct keystore *ks, uint64_t *after, size_t max, int64_t now_at_ms,
                  struct buf *out);

#endif
