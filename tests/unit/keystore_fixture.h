/* keystore_fixture.h - what the tests around the keys share: a keystore on a ledger of its own,
 * with an empty key table and no accounts yet. */
#ifndef XROUTER_TESTS_KEYSTORE_FIXTURE_H
#define XROUTER_TESTS_KEYSTORE_FIXTURE_H

#include "common/config.h"
#include "tests/unit/forked.h"
#include "tests/unit/ledger_fixture.h"
#include "usage/keystore.h"

#define FIXTURE_SECRET 7

static inline struct config *fixture_config(const char *text, const char *dir)
{
    struct config *config;
    struct config_error e;

    if (config_parse(text, strlen(text), "test.json", dir, &config, &e) != 0)
        fail_msg("%s: %s", e.path, e.text);
    return config;
}

static inline struct keytable_region *fixture_table(size_t capacity, uint8_t secret)
{
    struct keytable_region *table = forked_memory(keytable_region_spec(capacity).bytes);
    uint8_t pepper[KEY_PEPPER_BYTES];

    memset(pepper, secret, sizeof(pepper));
    keytable_region_init(table, capacity, pepper);
    return table;
}

/* Makes the directory, and the ledger in it. */
static inline void fixture_open_keys(struct keystore *ks, char dir[64], const struct config *config,
                                     size_t capacity)
{
    ks->ledger = fixture_open(dir);
    ks->config = config;
    ks->table = fixture_table(capacity, FIXTURE_SECRET);
    ks->accounts = forked_memory(accounts_region_spec(capacity).bytes);
    accounts_region_init(ks->accounts, capacity);
}

#endif
