#include "usage/credits.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "common/money.h"
#include "usage/spent.h"

static const char *const KIND_NAMES[] = {[CREDIT_ADD] = "add", [CREDIT_USAGE] = "usage"};

#define COLUMNS "id, api_key_id, kind, amount, balance, requests, created_at, operation_id, note"

/* ---- rows ---- */

static void bind_text(sqlite3_stmt *stmt, int at, const char *text)
{
    if (text[0] != '\0')
        sqlite3_bind_text(stmt, at, text, -1, SQLITE_STATIC);
}

int credit_entry_insert(struct ledger *ledger, struct credit_entry *e)
{
    char key_text[KEY_ID_TEXT_BYTES];
    sqlite3_stmt *stmt;
    int rc =
        ledger_prepare(ledger,
                       "INSERT INTO credit_ledger (api_key_id, kind, amount, balance, requests,"
                       " created_at, operation_id, note) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                       &stmt);

    if (rc < 0)
        return rc;
    key_id_format(e->key_id, key_text);
    sqlite3_bind_text(stmt, 1, key_text, -1, SQLITE_STATIC);
    sqlite3_bind_text(stmt, 2, KIND_NAMES[e->kind], -1, SQLITE_STATIC);
    sqlite3_bind_int64(stmt, 3, e->amount_nano);
    sqlite3_bind_int64(stmt, 4, e->balance_nano);
    sqlite3_bind_int64(stmt, 5, e->requests);
    sqlite3_bind_int64(stmt, 6, e->created_at_ms);
    bind_text(stmt, 7, e->operation_id);
    bind_text(stmt, 8, e->note);
    rc = database_step(stmt);
    sqlite3_finalize(stmt);
    if (rc == 0)
        e->id = sqlite3_last_insert_rowid(ledger_db(ledger));
    return rc;
}

static int read_row(sqlite3_stmt *stmt, struct credit_entry *out)
{
    const char *key_text = (const char *)sqlite3_column_text(stmt, 1);
    const char *kind = (const char *)sqlite3_column_text(stmt, 2);

    if (key_text == NULL || kind == NULL)
        return -ENOMEM; /* columns that are NOT NULL */
    out->id = sqlite3_column_int64(stmt, 0);
    out->kind = strcmp(kind, KIND_NAMES[CREDIT_ADD]) == 0 ? CREDIT_ADD : CREDIT_USAGE;
    out->amount_nano = sqlite3_column_int64(stmt, 3);
    out->balance_nano = sqlite3_column_int64(stmt, 4);
    out->requests = sqlite3_column_int64(stmt, 5);
    out->created_at_ms = sqlite3_column_int64(stmt, 6);
    if (key_id_parse(key_text, &out->key_id) < 0 ||
        database_copy_text(stmt, 7, out->operation_id, sizeof(out->operation_id)) < 0 ||
        database_copy_text(stmt, 8, out->note, sizeof(out->note)) < 0)
        return -EBADMSG;
    return 0;
}

void credit_entry_encode(const struct credit_entry *e, struct buf *out)
{
    char key_text[KEY_ID_TEXT_BYTES];

    key_id_format(e->key_id, key_text);
    buf_byte(out, '{');
    json_put_field_i64(out, "id", e->id);
    json_put_field_text(out, "key", key_text);
    json_put_field_text(out, "kind", KIND_NAMES[e->kind]);
    key_credits_encode(out, "amount", e->amount_nano);
    key_credits_encode(out, "balance", e->balance_nano);
    json_put_field_i64(out, "requests", e->requests);
    json_put_field_time(out, "created_at", e->created_at_ms);
    json_put_field_text(out, "operation_id", e->operation_id[0] != '\0' ? e->operation_id : NULL);
    json_put_field_text(out, "note", e->note[0] != '\0' ? e->note : NULL);
    buf_byte(out, '}');
}

/* ---- paying ---- */

/* The row of that operation: 0, -ENOENT or -errno. */
static int find_operation(struct ledger *ledger, const char *operation_id, struct credit_entry *out)
{
    sqlite3_stmt *stmt;
    int rc = ledger_prepare(ledger, "SELECT " COLUMNS " FROM credit_ledger WHERE operation_id = ?1",
                            &stmt);

    if (rc < 0)
        return rc;
    sqlite3_bind_text(stmt, 1, operation_id, -1, SQLITE_STATIC);
    rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW)
        rc = read_row(stmt, out);
    else
        rc = rc == SQLITE_DONE ? -ENOENT : database_errno(rc);
    sqlite3_finalize(stmt);
    return rc;
}

static int set_balance(struct ledger *ledger, const struct credit_entry *e)
{
    char key_text[KEY_ID_TEXT_BYTES];
    sqlite3_stmt *stmt;
    int rc = ledger_prepare(ledger, "UPDATE api_keys SET balance = ?2 WHERE id = ?1", &stmt);

    if (rc < 0)
        return rc;
    key_id_format(e->key_id, key_text);
    sqlite3_bind_text(stmt, 1, key_text, -1, SQLITE_STATIC);
    sqlite3_bind_int64(stmt, 2, e->balance_nano);
    rc = database_step(stmt);
    sqlite3_finalize(stmt);
    return rc;
}

/* 1 = done, 0 = this operation was done before, -errno. */
static int pay(const struct keystore *ks, const struct key_record *key, struct credit_entry *e)
{
    int64_t before_nano = key->balance_nano == ACCOUNT_UNLIMITED ? 0 : key->balance_nano;
    struct credit_entry earlier = {0};
    int rc = -ENOENT;

    if (e->operation_id[0] != '\0')
        rc = find_operation(ks->ledger, e->operation_id, &earlier);
    if (rc == 0) {
        if (earlier.key_id != key->id || earlier.amount_nano != e->amount_nano)
            return -EEXIST;
        *e = earlier;
        return 0;
    }
    if (rc != -ENOENT)
        return rc;
    /* Both are within +-ACCOUNT_MAX_NANO: the sum fits. */
    e->balance_nano = before_nano + e->amount_nano;
    if (e->balance_nano > ACCOUNT_MAX_NANO || e->balance_nano < -ACCOUNT_MAX_NANO)
        return -ERANGE;
    rc = set_balance(ks->ledger, e);
    if (rc == 0)
        rc = credit_entry_insert(ks->ledger, e);
    return rc < 0 ? rc : 1;
}

/* What the workers see of it. A payment that may or may not be durable is counted anew. */
static void publish(const struct keystore *ks, const struct key_record *before,
                    const struct credit_entry *e, bool is_sure)
{
    uint32_t account;

    if (ks->accounts == NULL || accounts_find(ks->accounts, before->id, &account) < 0)
        return; /* revoked before the start */
    if (is_sure && before->balance_nano != ACCOUNT_UNLIMITED)
        account_add(ks->accounts, account, e->amount_nano);
    else
        account_mark_all(ks->accounts, account);
}

int credits_add(const struct keystore *ks, const char *name_or_id, int64_t now_at_ms,
                struct credit_entry *e)
{
    sqlite3 *db = ledger_db(ks->ledger);
    struct key_record key;
    int rc = keystore_find(ks, name_or_id, &key);
    int paid;

    if (rc < 0)
        return rc;
    if (e->amount_nano > ACCOUNT_MAX_NANO || e->amount_nano < -ACCOUNT_MAX_NANO)
        return -ERANGE;
    e->key_id = key.id;
    e->kind = CREDIT_ADD;
    e->requests = 0;
    e->created_at_ms = now_at_ms;
    rc = ledger_look(ks->ledger); /* what goes into files that were taken away is lost */
    if (rc == 0)
        rc = database_exec(db, "BEGIN IMMEDIATE");
    if (rc < 0)
        return rc;
    paid = pay(ks, &key, e);
    if (paid <= 0) {
        database_rollback(db);
        return paid;
    }
    rc = database_exec(db, "COMMIT");
    if (rc < 0)
        database_rollback(db);
    else
        rc = ledger_look(ks->ledger);
    publish(ks, &key, e, rc == 0);
    return rc;
}

/* ---- showing ---- */

struct tally {
    uint64_t key_id;
    int64_t reserved_nano;
};

static void add_reserved(void *arg, const struct open_request *request)
{
    struct tally *tally = arg;

    if (request->key_id == tally->key_id &&
        __builtin_add_overflow(tally->reserved_nano, request->reservation.amount_nano,
                               &tally->reserved_nano))
        tally->reserved_nano = ACCOUNT_MAX_NANO;
}

static int64_t reserved_nano(const struct open_requests *requests, uint64_t key_id)
{
    struct tally tally = {.key_id = key_id};

    if (requests != NULL)
        requests->each(requests->arg, add_reserved, &tally);
    return tally.reserved_nano;
}

/* False: the account is being counted anew, or there is none. */
static bool read_account(const struct keystore *ks, uint64_t key_id, int64_t now_at_ms,
                         struct account_values *out)
{
    bool is_marked;
    uint32_t account;

    if (ks->accounts == NULL || accounts_find(ks->accounts, key_id, &account) < 0)
        return false;
    account_get(ks->accounts, account, now_at_ms, out, &is_marked);
    return !is_marked;
}

int credits_show(const struct keystore *ks, const struct open_requests *requests,
                 const char *name_or_id, int64_t now_at_ms, struct buf *out)
{
    struct spent spent[SPEND_PERIODS] = {0};
    struct account_values values;
    struct key_record key;
    char id[KEY_ID_TEXT_BYTES];
    bool is_prepaid, is_counted;
    int rc = keystore_find(ks, name_or_id, &key);

    if (rc == 0)
        rc = spent_read_all(ks->ledger, key.id, now_at_ms, spent);
    if (rc < 0)
        return rc;
    is_prepaid = key.balance_nano != ACCOUNT_UNLIMITED;
    is_counted = read_account(ks, key.id, now_at_ms, &values);
    key_id_format(key.id, id);
    json_put_field_text(out, "key", id);
    json_put_field_text(out, "name", key.name[0] != '\0' ? key.name : NULL);
    key_credits_encode(out, "balance", key.balance_nano);
    key_credits_encode(out, "available",
                       is_prepaid && is_counted ? values.balance_nano : ACCOUNT_UNLIMITED);
    key_credits_encode(out, "reserved",
                       is_prepaid ? reserved_nano(requests, key.id) : ACCOUNT_UNLIMITED);
    json_put_key(out, "spending");
    spent_encode(spent, &key, is_counted ? &values : NULL, out);
    return out->err;
}

int credits_list(struct ledger *ledger, uint64_t key_id, int64_t *before, size_t max,
                 struct buf *out)
{
    char key_text[KEY_ID_TEXT_BYTES];
    struct credit_entry e;
    sqlite3_stmt *stmt;
    int count = 0;
    int rc =
        ledger_prepare(ledger,
                       "SELECT " COLUMNS " FROM credit_ledger WHERE api_key_id = ?1 AND id < ?2"
                       " ORDER BY id DESC LIMIT ?3",
                       &stmt);

    if (rc < 0)
        return rc;
    key_id_format(key_id, key_text);
    sqlite3_bind_text(stmt, 1, key_text, -1, SQLITE_STATIC);
    sqlite3_bind_int64(stmt, 2, *before);
    sqlite3_bind_int64(stmt, 3, (int64_t)max);
    while ((rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        rc = read_row(stmt, &e);
        if (rc < 0)
            break;
        if (count++ > 0)
            buf_byte(out, ',');
        credit_entry_encode(&e, out);
        *before = e.id;
    }
    sqlite3_finalize(stmt);
    if (rc >= 0)
        rc = database_errno(rc);
    if (rc == 0)
        rc = out->err;
    return rc < 0 ? rc : count;
}
