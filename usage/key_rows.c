#include "usage/key_rows.h"

#include <errno.h>
#include <string.h>

#define HASH_TEXT_BYTES (2 * DIGEST_BYTES + 1)
#define MODELS_TEXT_MAX ((size_t)KEY_MODELS_MAX * USAGE_NAME_BYTES * 6 + 64)

/* What a request may set, in the order in which bind_wishes() binds them. */
#define WISHES                                                                             \
    "name, expires_at, tier, models, rpm, rpd, tpm, tpd, parallel, spend_day, spend_week," \
    " spend_month"
#define COLUMNS "id, key_hash, created_at, last_used_at, revoked_at, balance, " WISHES
enum column {
    COL_ID,
    COL_HASH,
    COL_CREATED,
    COL_LAST_USED,
    COL_REVOKED,
    COL_BALANCE,
    COL_NAME,
    COL_EXPIRES,
    COL_TIER,
    COL_MODELS,
    COL_LIMITS,
    COL_SPENDING = COL_LIMITS + KEY_LIMIT_COUNT
};

/* ---- reading ---- */

/* NULL is ACCOUNT_UNLIMITED. */
static int64_t read_credits(sqlite3_stmt *stmt, int column)
{
    if (sqlite3_column_type(stmt, column) == SQLITE_NULL)
        return ACCOUNT_UNLIMITED;
    return sqlite3_column_int64(stmt, column);
}

static int read_limits(sqlite3_stmt *stmt, struct key_record *out)
{
    for (int i = 0; i < KEY_LIMIT_COUNT; i++) {
        bool is_set = sqlite3_column_type(stmt, COL_LIMITS + i) != SQLITE_NULL;
        int64_t value = sqlite3_column_int64(stmt, COL_LIMITS + i);

        if (value < 0 || value > UINT32_MAX)
            return -EBADMSG;
        out->limits[i] = is_set ? value : KEY_LIMIT_UNSET;
    }
    out->balance_nano = read_credits(stmt, COL_BALANCE);
    for (int i = 0; i < SPEND_PERIODS; i++)
        out->spending_nano[i] = read_credits(stmt, COL_SPENDING + i);
    return 0;
}

static int read_row(sqlite3_stmt *stmt, struct key_record *out, uint8_t digest[DIGEST_BYTES])
{
    const char *id = (const char *)sqlite3_column_text(stmt, COL_ID);
    const char *hash = (const char *)sqlite3_column_text(stmt, COL_HASH);
    const char *models = (const char *)sqlite3_column_text(stmt, COL_MODELS);

    key_record_init(out);
    if (id == NULL || hash == NULL || models == NULL)
        return -ENOMEM; /* columns that are NOT NULL */
    if (key_id_parse(id, &out->id) < 0 || strlen(hash) != HASH_TEXT_BYTES - 1 ||
        hex_decode(hash, HASH_TEXT_BYTES - 1, digest) < 0 || key_models_decode(models, out) < 0 ||
        database_copy_text(stmt, COL_NAME, out->name, sizeof(out->name)) < 0 ||
        database_copy_text(stmt, COL_TIER, out->tier, sizeof(out->tier)) < 0)
        return -EBADMSG;
    out->created_at_ms = sqlite3_column_int64(stmt, COL_CREATED);
    out->expires_at_ms = sqlite3_column_int64(stmt, COL_EXPIRES);
    out->last_used_at_ms = sqlite3_column_int64(stmt, COL_LAST_USED);
    out->revoked_at_ms = sqlite3_column_int64(stmt, COL_REVOKED);
    return read_limits(stmt, out);
}

int key_row_find(struct ledger *ledger, const char *name_or_id, struct key_record *out,
                 uint8_t digest[DIGEST_BYTES])
{
    sqlite3_stmt *stmt;
    char id_text[KEY_ID_TEXT_BYTES];
    uint64_t id;
    bool by_id = key_id_parse(name_or_id, &id) == 0;
    int rc = ledger_prepare(ledger,
                            by_id ? "SELECT " COLUMNS " FROM api_keys WHERE id = ?1"
                                  : "SELECT " COLUMNS
                                    " FROM api_keys WHERE name = ?1 AND revoked_at IS NULL",
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

int key_row_each(struct ledger *ledger, uint64_t *after, size_t max, key_row_fn visit, void *arg)
{
    sqlite3_stmt *stmt;
    char after_text[KEY_ID_TEXT_BYTES];
    int count = 0;
    int rc = ledger_prepare(
        ledger, "SELECT " COLUMNS " FROM api_keys WHERE id > ?1 ORDER BY id LIMIT ?2", &stmt);

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

int key_digests_open(struct ledger *ledger, struct key_digests *digests)
{
    return ledger_prepare(ledger, "SELECT 1 FROM api_keys WHERE key_hash = ?1", &digests->stmt);
}

void key_digests_close(struct key_digests *digests)
{
    sqlite3_finalize(digests->stmt);
    digests->stmt = NULL;
}

int key_digests_find(struct key_digests *digests, const uint8_t digest[DIGEST_BYTES])
{
    char hash[HASH_TEXT_BYTES];
    int rc;

    hex_encode(digest, DIGEST_BYTES, hash);
    sqlite3_bind_text(digests->stmt, 1, hash, -1, SQLITE_STATIC);
    rc = sqlite3_step(digests->stmt);
    sqlite3_reset(digests->stmt);
    return rc == SQLITE_ROW ? 1 : database_errno(rc);
}

int key_names_open(struct ledger *ledger, struct key_names *names)
{
    return ledger_prepare(ledger, "SELECT name FROM api_keys WHERE id = ?1", &names->stmt);
}

void key_names_close(struct key_names *names)
{
    sqlite3_finalize(names->stmt);
    names->stmt = NULL;
}

int key_names_get(struct key_names *names, const char *id_text, char out[KEY_NAME_BYTES])
{
    int rc;

    out[0] = '\0';
    sqlite3_bind_text(names->stmt, 1, id_text, -1, SQLITE_STATIC);
    rc = sqlite3_step(names->stmt);
    if (rc == SQLITE_ROW)
        rc = database_copy_text(names->stmt, 0, out, KEY_NAME_BYTES);
    else
        rc = database_errno(rc);
    sqlite3_reset(names->stmt);
    return rc;
}

/* ---- writing ---- */

static void bind_text(sqlite3_stmt *stmt, int at, const char *text)
{
    if (text[0] != '\0')
        sqlite3_bind_text(stmt, at, text, -1, SQLITE_STATIC);
}

static void bind_unless(sqlite3_stmt *stmt, int at, int64_t value, int64_t none)
{
    if (value != none)
        sqlite3_bind_int64(stmt, at, value);
}

/* What is none stays NULL. models holds the text until the statement is stepped. */
static int bind_wishes(sqlite3_stmt *stmt, int at, const struct key_record *r, struct buf *models)
{
    key_models_encode(r, models);
    if (models->err != 0)
        return models->err;
    bind_text(stmt, at++, r->name);
    bind_unless(stmt, at++, r->expires_at_ms, 0);
    bind_text(stmt, at++, r->tier);
    sqlite3_bind_text(stmt, at++, models->data, (int)models->len, SQLITE_STATIC);
    for (int i = 0; i < KEY_LIMIT_COUNT; i++)
        bind_unless(stmt, at++, r->limits[i], KEY_LIMIT_UNSET);
    for (int i = 0; i < SPEND_PERIODS; i++)
        bind_unless(stmt, at++, r->spending_nano[i], ACCOUNT_UNLIMITED);
    return 0;
}

/* A change in files that were taken away would be lost: they are looked at before and after. */
static int prepare_change(struct ledger *ledger, const char *sql, sqlite3_stmt **out)
{
    int rc = ledger_look(ledger);

    *out = NULL;
    return rc < 0 ? rc : ledger_prepare(ledger, sql, out);
}

/* A change that is a transaction of its own. */
static int step_durably(struct ledger *ledger, sqlite3_stmt *stmt)
{
    int rc = database_step(stmt);

    return rc == 0 ? ledger_look(ledger) : rc;
}

/* Steps it; the name is all that a constraint can object to. */
static int step_wishes(sqlite3_stmt *stmt, int at, const struct key_record *r)
{
    struct buf models;
    int rc;

    buf_init(&models, MODELS_TEXT_MAX);
    rc = bind_wishes(stmt, at, r, &models);
    if (rc == 0) {
        rc = database_step(stmt);
        if (rc == -EINVAL)
            rc = -EEXIST;
    }
    buf_clear(&models);
    return rc;
}

int key_row_insert(struct ledger *ledger, const struct key_record *r,
                   const uint8_t digest[DIGEST_BYTES])
{
    char id[KEY_ID_TEXT_BYTES], hash[HASH_TEXT_BYTES];
    sqlite3_stmt *stmt;
    int rc =
        ledger_prepare(ledger,
                       "INSERT INTO api_keys (id, key_hash, created_at, balance, " WISHES
                       ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15,"
                       " ?16) ON CONFLICT (id) DO NOTHING",
                       &stmt);

    if (rc < 0)
        return rc;
    key_id_format(r->id, id);
    hex_encode(digest, DIGEST_BYTES, hash);
    sqlite3_bind_text(stmt, 1, id, -1, SQLITE_STATIC);
    sqlite3_bind_text(stmt, 2, hash, -1, SQLITE_STATIC);
    sqlite3_bind_int64(stmt, 3, r->created_at_ms);
    bind_unless(stmt, 4, r->balance_nano, ACCOUNT_UNLIMITED);
    rc = step_wishes(stmt, 5, r);
    sqlite3_finalize(stmt);
    if (rc < 0)
        return rc;
    return sqlite3_changes(ledger_db(ledger)) == 1 ? 0 : -EAGAIN;
}

int key_row_update(struct ledger *ledger, const struct key_record *r)
{
    char id[KEY_ID_TEXT_BYTES];
    sqlite3_stmt *stmt;
    int rc =
        prepare_change(ledger,
                       "UPDATE api_keys SET (" WISHES ") = (?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10,"
                       " ?11, ?12, ?13) WHERE id = ?1",
                       &stmt);

    if (rc < 0)
        return rc;
    key_id_format(r->id, id);
    sqlite3_bind_text(stmt, 1, id, -1, SQLITE_STATIC);
    rc = step_wishes(stmt, 2, r);
    sqlite3_finalize(stmt);
    return rc == 0 ? ledger_look(ledger) : rc;
}

int key_row_set_digest(struct ledger *ledger, uint64_t id, const uint8_t digest[DIGEST_BYTES])
{
    char id_text[KEY_ID_TEXT_BYTES], hash[HASH_TEXT_BYTES];
    sqlite3_stmt *stmt;
    int rc = prepare_change(ledger, "UPDATE api_keys SET key_hash = ?2 WHERE id = ?1", &stmt);

    if (rc < 0)
        return rc;
    key_id_format(id, id_text);
    hex_encode(digest, DIGEST_BYTES, hash);
    sqlite3_bind_text(stmt, 1, id_text, -1, SQLITE_STATIC);
    sqlite3_bind_text(stmt, 2, hash, -1, SQLITE_STATIC);
    rc = step_durably(ledger, stmt);
    sqlite3_finalize(stmt);
    return rc;
}

int key_row_set_revoked(struct ledger *ledger, uint64_t id, int64_t revoked_at_ms)
{
    char id_text[KEY_ID_TEXT_BYTES];
    sqlite3_stmt *stmt;
    int rc = prepare_change(ledger, "UPDATE api_keys SET revoked_at = ?2 WHERE id = ?1", &stmt);

    if (rc < 0)
        return rc;
    key_id_format(id, id_text);
    sqlite3_bind_text(stmt, 1, id_text, -1, SQLITE_STATIC);
    sqlite3_bind_int64(stmt, 2, revoked_at_ms);
    rc = step_durably(ledger, stmt);
    sqlite3_finalize(stmt);
    return rc;
}
