#include "usage/keystore.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "common/secret.h"
#include "usage/credits.h"
#include "usage/key_rows.h"

#define HASH_TEXT_BYTES (2 * DIGEST_BYTES + 1)
#define CHECK_TEXT "xrouter key check"
#define ID_RANDOM_BITS 22
#define ID_ATTEMPTS 4

/* ---- the key table ---- */

/* A revoked key without one needs none. */
static int open_account(const struct keystore *ks, const struct key_record *r, uint32_t *account)
{
    *account = 0;
    if (ks->accounts == NULL)
        return 0;
    if (r->revoked_at_ms != 0) {
        (void)accounts_find(ks->accounts, r->id, account);
        return 0;
    }
    return accounts_open(ks->accounts, r->id, account) < 0 ? -EUSERS : 0;
}

/* Before the key can be found with its new limits. */
static void mark(const struct keystore *ks, const struct key_record *r)
{
    uint32_t account;

    if (ks->accounts != NULL && accounts_find(ks->accounts, r->id, &account) == 0)
        account_mark_all(ks->accounts, account);
}

static int publish(const struct keystore *ks, const uint8_t digest[DIGEST_BYTES],
                   const struct key_record *r)
{
    struct key key;
    int rc;

    if (!key_record_resolve(r, ks->config, &key) && !key.revoked)
        log_event(LOG_WARN, "key_tier_unknown", "",
                  "key_%016llx is of tier \"%s\", which the config does not have: only its own "
                  "limits count",
                  (unsigned long long)r->id, r->tier);
    rc = open_account(ks, r, &key.account);
    if (rc < 0)
        return rc;
    return keytable_put(ks->table, digest, &key) < 0 ? -EUSERS : 0;
}

int keystore_check_secret(const struct keystore *ks, char why[KEY_WHY_BYTES])
{
    uint8_t digest[DIGEST_BYTES];
    char expected[HASH_TEXT_BYTES];
    sqlite3_stmt *stmt = NULL;
    const char *stored = NULL;
    int rc = keytable_digest(ks->table, CHECK_TEXT, strlen(CHECK_TEXT), digest);

    snprintf(why, KEY_WHY_BYTES, "the key secret cannot be checked against the database");
    if (rc < 0)
        return rc;
    hex_encode(digest, sizeof(digest), expected);
    rc = ledger_prepare(ks->ledger,
                        "INSERT INTO meta VALUES ('key_check', ?1) ON CONFLICT (name) DO NOTHING",
                        &stmt);
    if (rc == 0) {
        sqlite3_bind_text(stmt, 1, expected, -1, SQLITE_STATIC);
        rc = database_step(stmt);
        sqlite3_finalize(stmt);
    }
    if (rc == 0)
        rc = ledger_prepare(ks->ledger, "SELECT value FROM meta WHERE name = 'key_check'", &stmt);
    if (rc < 0)
        return rc;
    rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW)
        stored = (const char *)sqlite3_column_text(stmt, 0);
    rc = database_errno(rc);
    if (rc == 0 && (stored == NULL || strlen(stored) != HASH_TEXT_BYTES - 1 ||
                    !secret_equal(stored, expected, HASH_TEXT_BYTES - 1))) {
        snprintf(why, KEY_WHY_BYTES,
                 "key.secret is not the one this database's keys were made with: restore both from "
                 "the same backup");
        rc = -EKEYREJECTED;
    }
    sqlite3_finalize(stmt);
    return rc;
}

static int load_row(void *arg, const struct key_record *r, const uint8_t digest[DIGEST_BYTES])
{
    return publish(arg, digest, r);
}

static int start_row(void *arg, const struct key_record *r, const uint8_t digest[DIGEST_BYTES])
{
    const struct keystore *ks = arg;
    uint32_t account;
    int rc = open_account(ks, r, &account);

    if (rc < 0)
        return rc;
    /* A limit that went may still stand in the words. */
    if (ks->accounts != NULL && accounts_find(ks->accounts, r->id, &account) == 0 &&
        (key_record_is_limited(r) || account_is_limited(ks->accounts, account)))
        account_mark_all(ks->accounts, account);
    return publish(ks, digest, r);
}

int keystore_load(const struct keystore *ks, uint64_t *after, size_t max, bool is_start)
{
    struct keystore copy = *ks;

    return key_row_each(ks->ledger, after, max, is_start ? start_row : load_row, &copy);
}

/* 1 = it was, 0 = it need not be, -errno. */
static int revoke_unless_found(const struct keystore *ks, struct key_digests *digests,
                               size_t number)
{
    uint8_t digest[DIGEST_BYTES];
    struct key key;
    int rc;

    keytable_get(ks->table, number, digest, &key);
    if (key.revoked)
        return 0;
    rc = key_digests_find(digests, digest);
    if (rc != 0)
        return rc < 0 ? rc : 0;
    key.revoked = true;
    rc = keytable_put(ks->table, digest, &key);
    return rc < 0 ? rc : 1;
}

int keystore_sweep(const struct keystore *ks, size_t *at, size_t max, uint64_t *revoked)
{
    struct key_digests digests;
    int count = 0;
    int rc = key_digests_open(ks->ledger, &digests);

    while (rc >= 0 && count < (int)max && *at < keytable_count(ks->table)) {
        rc = revoke_unless_found(ks, &digests, *at);
        if (rc < 0)
            break;
        *revoked += (uint64_t)rc;
        ++*at;
        count++;
    }
    key_digests_close(&digests);
    return rc < 0 ? rc : count;
}

/* ---- making one ---- */

/* Ids rise with time, so that a list by id is a list by age; the key itself is the secret. */
static int make_id(int64_t now_at_ms, uint64_t *id)
{
    uint32_t noise;
    int rc = secret_random(&noise, sizeof(noise));

    *id = (uint64_t)now_at_ms << ID_RANDOM_BITS | (noise & ((1U << ID_RANDOM_BITS) - 1));
    return rc;
}

static int insert_with_new_id(const struct keystore *ks, struct key_record *r,
                              const uint8_t digest[DIGEST_BYTES])
{
    int rc = -EAGAIN;

    for (int i = 0; i < ID_ATTEMPTS && rc == -EAGAIN; i++) {
        rc = make_id(r->created_at_ms, &r->id);
        if (rc == 0)
            rc = key_row_insert(ks->ledger, r, digest);
    }
    return rc; /* -EAGAIN: four equal ids out of four million: the random numbers are none */
}

/* Takes the entry before the row is durable, so that a full table needs no undoing; until then the
 * key has long expired. */
static int reserve_entry(const struct keystore *ks, const uint8_t digest[DIGEST_BYTES],
                         const struct key_record *r)
{
    struct key key = {.id = r->id, .expires_at_ms = 1};

    return keytable_put(ks->table, digest, &key) < 0 ? -EUSERS : 0;
}

static void give_entry_up(const struct keystore *ks, const uint8_t digest[DIGEST_BYTES],
                          const struct key_record *r)
{
    struct key key = {.id = r->id, .revoked = true};

    (void)keytable_put(ks->table, digest, &key); /* replacing needs no room */
}

static int open_balance(const struct keystore *ks, const struct key_record *r)
{
    struct credit_entry opening = {
        .key_id = r->id,
        .kind = CREDIT_ADD,
        .amount_nano = r->balance_nano,
        .balance_nano = r->balance_nano,
        .created_at_ms = r->created_at_ms,
    };

    return r->balance_nano != ACCOUNT_UNLIMITED ? credit_entry_insert(ks->ledger, &opening) : 0;
}

static int create(const struct keystore *ks, struct key_record *r,
                  const uint8_t digest[DIGEST_BYTES])
{
    sqlite3 *db = ledger_db(ks->ledger);
    uint32_t account;
    int rc = db != NULL ? ledger_look(ks->ledger) : -EIO; /* and again after the commit */

    if (rc == 0)
        rc = database_exec(db, "BEGIN IMMEDIATE");
    if (rc < 0)
        return rc;
    rc = insert_with_new_id(ks, r, digest);
    if (rc == 0)
        rc = open_balance(ks, r);
    if (rc == 0)
        rc = open_account(ks, r, &account);
    if (rc == 0)
        rc = reserve_entry(ks, digest, r);
    if (rc == 0) {
        rc = database_exec(db, "COMMIT");
        if (rc == 0)
            rc = ledger_look(ks->ledger);
        if (rc < 0)
            give_entry_up(ks, digest, r);
    }
    if (rc < 0) {
        database_rollback(db);
        return rc;
    }
    if (key_record_is_limited(r))
        mark(ks, r);
    return publish(ks, digest, r);
}

int keystore_create(const struct keystore *ks, int64_t now_at_ms, struct key_record *record,
                    char text[KEY_TEXT_BYTES])
{
    uint8_t digest[DIGEST_BYTES];
    int rc = key_text_make(text);

    if (rc == 0)
        rc = keytable_digest(ks->table, text, KEY_TEXT_LEN, digest);
    record->created_at_ms = now_at_ms;
    if (rc == 0)
        rc = create(ks, record, digest);
    if (rc < 0)
        explicit_bzero(text, KEY_TEXT_BYTES);
    return rc;
}

/* ---- changing one ---- */

static int find_active(const struct keystore *ks, const char *name_or_id, struct key_record *out,
                       uint8_t digest[DIGEST_BYTES])
{
    int rc = key_row_find(ks->ledger, name_or_id, out, digest);

    return rc == 0 && out->revoked_at_ms != 0 ? -EKEYREVOKED : rc;
}

int keystore_update(const struct keystore *ks, const struct key_record *record)
{
    struct key_record before;
    uint8_t digest[DIGEST_BYTES];
    char id[KEY_ID_TEXT_BYTES];
    int rc;

    key_id_format(record->id, id);
    rc = find_active(ks, id, &before, digest);
    if (rc == 0)
        rc = key_row_update(ks->ledger, record); /* its own transaction */
    if (rc < 0)
        return rc;
    if (memcmp(before.spending_nano, record->spending_nano, sizeof(before.spending_nano)) != 0)
        mark(ks, record);
    return publish(ks, digest, record);
}

/* The old text must be dead in the table before the new one is durable: a writer that dies between
 * the two leaves the rest to its successor, who puts only what the database has. */
static int replace_digest(const struct keystore *ks, const struct key_record *r,
                          const uint8_t old[DIGEST_BYTES], const uint8_t new[DIGEST_BYTES])
{
    int rc = reserve_entry(ks, new, r);

    if (rc < 0)
        return rc;
    give_entry_up(ks, old, r);
    rc = key_row_set_digest(ks->ledger, r->id, new); /* its own transaction */
    if (rc == 0)
        return publish(ks, new, r);
    give_entry_up(ks, new, r);
    (void)publish(ks, old, r); /* its entry and account are there */
    return rc;
}

int keystore_rotate(const struct keystore *ks, const char *name_or_id, struct key_record *out,
                    char text[KEY_TEXT_BYTES])
{
    uint8_t old[DIGEST_BYTES], new[DIGEST_BYTES];
    int rc = find_active(ks, name_or_id, out, old);

    if (rc == 0)
        rc = key_text_make(text);
    if (rc == 0)
        rc = keytable_digest(ks->table, text, KEY_TEXT_LEN, new);
    if (rc == 0)
        rc = replace_digest(ks, out, old, new);
    if (rc < 0)
        explicit_bzero(text, KEY_TEXT_BYTES);
    return rc;
}

int keystore_revoke(const struct keystore *ks, const char *name_or_id, int64_t now_at_ms,
                    struct key_record *out)
{
    uint8_t digest[DIGEST_BYTES];
    int rc = key_row_find(ks->ledger, name_or_id, out, digest);
    int put;

    if (rc < 0)
        return rc;
    if (out->revoked_at_ms != 0) /* maybe by a commit that seemed to fail */
        return publish(ks, digest, out);
    /* The table first: a writer that dies between the two must not leave a key working whose
     * revocation is durable. */
    out->revoked_at_ms = now_at_ms;
    put = publish(ks, digest, out);
    if (put < 0)
        return put;
    rc = key_row_set_revoked(ks->ledger, out->id, now_at_ms); /* its own transaction */
    if (rc < 0) {
        out->revoked_at_ms = 0;
        put = publish(ks, digest, out);
        if (put < 0)
            return put;
    }
    return rc;
}

/* ---- reading ---- */

int keystore_find(const struct keystore *ks, const char *name_or_id, struct key_record *out)
{
    uint8_t digest[DIGEST_BYTES];

    return key_row_find(ks->ledger, name_or_id, out, digest);
}

struct list {
    struct buf *out;
    int64_t now_at_ms;
    bool begun;
};

static int list_row(void *arg, const struct key_record *r, const uint8_t digest[DIGEST_BYTES])
{
    struct list *list = arg;

    if (list->begun)
        buf_byte(list->out, ',');
    list->begun = true;
    key_record_encode(r, NULL, list->now_at_ms, list->out);
    return list->out->err;
}

int keystore_list(const struct keystore *ks, uint64_t *after, size_t max, int64_t now_at_ms,
                  struct buf *out)
{
    struct list list = {.out = out, .now_at_ms = now_at_ms};

    return key_row_each(ks->ledger, after, max, list_row, &list);
}
