/* key_loading.h - the key table follows the database and the config, some keys a turn.
 *
 * Usage-writer only. After a new config each key is put anew, because its tier may have changed.
 * In the place of the database another one may stand, or have come while no writer ran: then first
 * the keys that it does not have are revoked, so that nobody is served whose usage it would refuse.
 */
#ifndef XROUTER_USAGE_KEY_LOADING_H
#define XROUTER_USAGE_KEY_LOADING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "usage/keystore.h"

struct key_loading {                 /* embedded in the writer */
    const struct keystore *keystore; /* borrowed */
    bool is_due;
    bool is_other;    /* the database is another one: the balances are, too */
    bool is_sweeping; /* keys that it does not have are being revoked */
    size_t swept;     /* entries of the table */
    uint64_t revoked; /* of these */
    uint64_t after;   /* the last id put */
    int64_t at_ms;    /* 0 = at once; nothing before this, after a failure */
};

/* All at once, at a start. 0 or keystore_load()'s -errno. */
int key_loading_run(const struct keystore *keystore);
/* From now on key_loading_turn() has work. is_other: another database has been opened. */
void key_loading_begin(struct key_loading *l, bool is_other);
/* Some keys. A failure is logged and tried again later. */
void key_loading_turn(struct key_loading *l, int64_t now_ms);
int64_t key_loading_next_ms(const struct key_loading *l); /* -1 = nothing is left to do */

#endif
