#include "usage/keystore.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "common/secret.h"

#define HASH_TEXT_BYTES (2 * DIGEST_BYTES + 1)
#define CHECK_TEXT "xrouter key check"
#define ID_RANDOM_BITS 22
#define ID_ATTEMPTS 4

#define COLUMNS                                                                                \
    "id, key_hash, name, created_at, expires_at, last_used_at, revoked_at, tier, models, rpm," \
    " rpd, tpm, tpd, parallel"
enum column {
    COL_ID,
    COL_HASH,
    COL_NAME,
    COL_CREATED,
    COL_EXPIRES,
    COL_LAST_USED,
    COL_REVOKED,
    COL_TIER,
    COL_MODELS,
    COL_LIMITS
};

static int prepare(const struct keystore *ks, const char *sql, sqlite3_stmt **out)
{
    sqlite3 *db = ledger_db(ks->ledger);

    *out = NULL;
    return db != NULL ? database_prepare(db, sql, out) : -EIO;
}

/* ---- rows ---- */

static int copy_text(sqlite3_stmt *stmt, int column, char *out, size_t size)
{
    const char *text = (const char *)sqlite3_column_text(stmt, column);
    size_t len = text != NULL ? strlen(text) : 0;

    if (len >= size)
        return -EBADMSG;
    if (len > 0)
        memcpy(out, text, len);
    out[len] = '\0';
    return 0;
}

static int read_row(sqlite3_stmt *stmt, struct key_record *out, uint8_t digest[DIGEST_BYTES])
{
    const char *id = (const char *)sqlite3_column_text(stmt, COL_ID);
    const char *hash = (const char *)sqlite3_column_text(stmt, COL_HASH);
    const char *models = (const char *)sqlite3_column_text(stmt, COL_MODELS);

    memset(out, 0, sizeof(*out));
    if (id == NULL || hash == NULL || models == NULL)
        return -ENOMEM; /* columns that are NOT NULL */
    if (key_id_parse(id, &out->id) < 0 || strlen(hash) != HASH_TEXT_BYTES - 1 ||
        hex_decode(hash, HASH_TEXT_BYTES - 1, digest) < 0 || key_models_decode(models, out) < 0 ||
        copy_text(stmt, COL_NAME, out->name, sizeof(out->name)) < 0 ||
        copy_text(stmt, COL_TIER, out->tier, sizeof(out->tier)) < 0)
        return -EBADMSG;
    out->created_at_ms = sqlite3_column_int64(stmt, COL_CREATED);
    out->expires_at_ms = sqlite3_column_int64(stmt, COL_EXPIRES);
    out->last_used_at_ms = sqlite3_column_int64(stmt, COL_LAST_USED);
    out->revoked_at_ms = sqlite3_column_int64(stmt, COL_REVOKED);
    for (int i = 0; i < KEY_LIMIT_COUNT; i++) {
        bool is_set = sqlite3_column_type(stmt, COL_LIMITS + i) != SQLITE_NULL;
        int64_t value = sqlite3_column_int64(stmt, COL_LIMITS + i);

        if (value < 0 || value > UINT32_MAX)
            return -EBADMSG;
        out->limits[i] = is_set ? value : KEY_LIMIT_UNSET;
    }
    return 0;
}

static int find(const struct keystore *ks, const char *name_or_id, struct key_record *out,
                uint8_t digest[DIGEST_BYTES])
{
    sqlite3_stmt *stmt;
    char id_text[KEY_ID_TEXT_BYTES];
    uint64_t id;
    bool by_id = key_id_parse(name_or_id, &id) == 0;
    int rc =
        prepare(ks,
                by_id ? "SELECT " COLUMNS " FROM api_keys WHERE id = ?1"
                      : "SELECT " COLUMNS " FROM api_keys WHERE name = ?1 AND revoked_at IS NULL",
                &stmt);

    if (rc < 0)
        return rc;
    if (by_id)
        key_id_format(id, id_text);
    sqlite3_bind_text(stmt, 1, by_id ? id_text : name_or_id, -1, SQLITE_STATIC);
    rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW)
        rc = read_row(stmt, out, digest);
    else
        rc = rc == SQLITE_DONE ? -ENOENT : database_errno(rc);
    sqlite3_finalize(stmt);
    return rc;
}

/* ---- the key table ---- */

static int publish(const struct keystore *ks, const uint8_t digest[DIGEST_BYTES],
                   const struct key_record *r)
{
    struct key key;

    if (!key_record_resolve(r, ks->config, &key) && !key.revoked)
        log_event(LOG_WARN, "key_tier_unknown", "",
                  "key_%016llx is of tier \"%s\", which the config does not have: only its own "
                  "limits count",
                  (unsigned long long)r->id, r->tier);
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
    rc = prepare(ks, "INSERT INTO meta VALUES ('key_check', ?1) ON CONFLICT (name) DO NOTHING",
                 &stmt);
    if (rc == 0) {
        sqlite3_bind_text(stmt, 1, expected, -1, SQLITE_STATIC);
        rc = database_step(stmt);
        sqlite3_finalize(stmt);
    }
    if (rc == 0)
        rc = prepare(ks, "SELECT value FROM meta WHERE name = 'key_check'", &stmt);
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

/* Runs visit on up to max rows with ids above *after; returns how many or the first error. */
static int each_row(const struct keystore *ks, uint64_t *after, size_t max,
                    int (*visit)(void *arg, const struct key_record *r,
                                 const uint8_t digest[DIGEST_BYTES]),
                    void *arg)
{
    sqlite3_stmt *stmt;
    char after_text[KEY_ID_TEXT_BYTES];
    int count = 0;
    int rc =
        prepare(ks, "SELECT " COLUMNS " FROM api_keys WHERE id > ?1 ORDER BY id LIMIT ?2", &stmt);

    if (rc < 0)
        return rc;
    key_id_format(*after, after_text);
    sqlite3_bind_text(stmt, 1, after_text, -1, SQLITE_STATIC);
    sqlite3_bind_int64(stmt, 2, (int64_t)max);
    for (;;) {
        struct key_record record;
        uint8_t digest[DIGEST_BYTES];

        rc = sqlite3_step(stmt);
        if (rc != SQLITE_ROW) {
            rc = database_errno(rc);
            break;
        }
        rc = read_row(stmt, &record, digest);
        if (rc == 0)
            rc = visit(arg, &record, digest);
        if (rc < 0)
            break;
        *after = record.id;
        count++;
    }
    sqlite3_finalize(stmt);
    return rc < 0 ? rc : count;
}

static int load_row(void *arg, const struct key_record *r, const uint8_t digest[DIGEST_BYTES])
{
    return publish(arg, digest, r);
}

int keystore_load(const struct keystore *ks, uint64_t *after, size_t max)
{
    struct keystore copy = *ks;

    return each_row(ks, after, max, load_row, &copy);
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

static int insert_row(const struct keystore *ks, const struct key_record *r, const char *hash)
{
    sqlite3_stmt *stmt;
    char id[KEY_ID_TEXT_BYTES];
    struct buf models;
    int rc = prepare(ks,
                     "INSERT INTO api_keys (id, key_hash, name, created_at, expires_at, tier,"
                     " models, rpm, rpd, tpm, tpd, parallel)"
                     " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)"
                     " ON CONFLICT (id) DO NOTHING",
                     &stmt);

    if (rc < 0)
        return rc;
    buf_init(&models, (size_t)KEY_MODELS_MAX * USAGE_NAME_BYTES * 6 + 64);
    key_models_encode(r, &models);
    key_id_format(r->id, id);
    sqlite3_bind_text(stmt, 1, id, -1, SQLITE_STATIC);
    sqlite3_bind_text(stmt, 2, hash, -1, SQLITE_STATIC);
    if (r->name[0] != '\0')
        sqlite3_bind_text(stmt, 3, r->name, -1, SQLITE_STATIC);
    sqlite3_bind_int64(stmt, 4, r->created_at_ms);
    if (r->expires_at_ms != 0)
        sqlite3_bind_int64(stmt, 5, r->expires_at_ms);
    if (r->tier[0] != '\0')
        sqlite3_bind_text(stmt, 6, r->tier, -1, SQLITE_STATIC);
    sqlite3_bind_text(stmt, 7, models.data, (int)models.len, SQLITE_STATIC);
    for (int i = 0; i < KEY_LIMIT_COUNT; i++) {
        if (r->limits[i] != KEY_LIMIT_UNSET)
            sqlite3_bind_int64(stmt, 8 + i, r->limits[i]);
    }
    rc = models.err != 0 ? models.err : database_step(stmt);
    sqlite3_finalize(stmt);
    buf_clear(&models);
    return rc;
}

static int insert_with_new_id(const struct keystore *ks, struct key_record *r, const char *hash)
{
    for (int i = 0; i < ID_ATTEMPTS; i++) {
        int rc = make_id(r->created_at_ms, &r->id);

        if (rc == 0)
            rc = insert_row(ks, r, hash);
        if (rc == -EINVAL) /* the name is all that can still be in the way */
            return -EEXIST;
        if (rc < 0)
            return rc;
        if (sqlite3_changes(ledger_db(ks->ledger)) == 1)
            return 0;
    }
    return -EAGAIN; /* four equal ids out of four million: the random numbers are none */
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

static int create(const struct keystore *ks, struct key_record *r,
                  const uint8_t digest[DIGEST_BYTES])
{
    sqlite3 *db = ledger_db(ks->ledger);
    char hash[HASH_TEXT_BYTES];
    int rc = db != NULL ? database_exec(db, "BEGIN IMMEDIATE") : -EIO;

    if (rc < 0)
        return rc;
    hex_encode(digest, DIGEST_BYTES, hash);
    rc = insert_with_new_id(ks, r, hash);
    if (rc == 0)
        rc = reserve_entry(ks, digest, r);
    if (rc == 0) {
        rc = database_exec(db, "COMMIT");
        if (rc < 0)
            give_entry_up(ks, digest, r);
    }
    if (rc < 0)
        database_rollback(db);
    return rc == 0 ? publish(ks, digest, r) : rc;
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

/* ---- the rest ---- */

int keystore_find(const struct keystore *ks, const char *name_or_id, struct key_record *out)
{
    uint8_t digest[DIGEST_BYTES];

    return find(ks, name_or_id, out, digest);
}

static int update_revoked(const struct keystore *ks, const struct key_record *r)
{
    sqlite3_stmt *stmt;
    char id[KEY_ID_TEXT_BYTES];
    int rc = prepare(ks, "UPDATE api_keys SET revoked_at = ?2 WHERE id = ?1", &stmt);

    if (rc < 0)
        return rc;
    key_id_format(r->id, id);
    sqlite3_bind_text(stmt, 1, id, -1, SQLITE_STATIC);
    sqlite3_bind_int64(stmt, 2, r->revoked_at_ms);
    rc = database_step(stmt); /* its own transaction */
    sqlite3_finalize(stmt);
    return rc;
}

int keystore_revoke(const struct keystore *ks, const char *name_or_id, int64_t now_at_ms,
                    struct key_record *out)
{
    uint8_t digest[DIGEST_BYTES];
    int rc = find(ks, name_or_id, out, digest);
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
    rc = update_revoked(ks, out);
    if (rc < 0) {
        out->revoked_at_ms = 0;
        put = publish(ks, digest, out);
        if (put < 0)
            return put;
    }
    return rc;
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

    return each_row(ks, after, max, list_row, &list);
}

int keystore_name(struct ledger *ledger, const char *id_text, char out[KEY_NAME_BYTES])
{
    struct keystore ks = {.ledger = ledger};
    sqlite3_stmt *stmt;
    int rc = prepare(&ks, "SELECT name FROM api_keys WHERE id = ?1", &stmt);

    out[0] = '\0';
    if (rc < 0)
        return rc;
    sqlite3_bind_text(stmt, 1, id_text, -1, SQLITE_STATIC);
    rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW)
        rc = copy_text(stmt, 0, out, KEY_NAME_BYTES);
    else
        rc = database_errno(rc);
    sqlite3_finalize(stmt);
    return rc;
}
