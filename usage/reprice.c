#include "usage/reprice.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/json.h"
#include "common/money.h"
#include "common/text.h"
#include "usage/key_rows.h"
#include "usage/keytable.h"
#include "usage/sums.h"

#define SLICE_US 3000
#define UNIT_ROWS 200 /* read between two looks at the clock */

struct tally {
    int64_t requests, cost_nano;
    int64_t miscounted, stored_price_nano;
    int64_t changed, config_price_nano;
    int64_t unknown;
};

struct group {
    char key[KEY_ID_TEXT_BYTES];
    char model[USAGE_NAME_BYTES];
    struct tally tally;
};

struct reprice {
    uint8_t id[USAGE_ID_BYTES]; /* the last row that was read */
    struct group *groups;       /* of rows that differ; sorted by key and model */
    size_t count, capacity;
    size_t last;      /* found last: the next is often the same */
    int64_t left_out; /* rows that differ and found no place */
    struct tally total;
};

/* One row of usage. */
struct priced {
    const char *key, *model;
    const char *provider, *upstream_model; /* of the last attempt; NULL or "" = none was made */
    int64_t created_at_ms;
    int64_t tokens_input, tokens_cached, tokens_output;
    int64_t cost_nano;
    bool used_nothing; /* such a request costs nothing, not even its own price */
    struct price price;
};

struct reprice *reprice_new(void)
{
    return calloc(1, sizeof(struct reprice));
}

void reprice_free(struct reprice *r)
{
    if (r == NULL)
        return;
    free(r->groups);
    free(r);
}

static int compare_group(const struct group *g, const char *key, const char *model)
{
    int order = strcmp(g->key, key);

    return order != 0 ? order : strcmp(g->model, model);
}

static bool search(const struct reprice *r, const char *key, const char *model, size_t *at)
{
    size_t low = 0, high = r->count;

    if (r->last < r->count && compare_group(&r->groups[r->last], key, model) == 0) {
        *at = r->last;
        return true;
    }
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = compare_group(&r->groups[middle], key, model);

        if (order == 0) {
            *at = middle;
            return true;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *at = low;
    return false;
}

/* 0 with NULL when there is no place for one more. */
static int find_group(struct reprice *r, const char *key, const char *model, struct group **out)
{
    size_t at;

    *out = NULL;
    if (!search(r, key, model, &at)) {
        if (r->count == REPRICE_ROWS_MAX)
            return 0;
        if (r->count == r->capacity) {
            size_t capacity = r->capacity == 0 ? 64 : 2 * r->capacity;
            struct group *grown = reallocarray(r->groups, capacity, sizeof(*grown));

            if (grown == NULL)
                return -ENOMEM;
            r->groups = grown;
            r->capacity = capacity;
        }
        memmove(&r->groups[at + 1], &r->groups[at], (r->count - at) * sizeof(*r->groups));
        memset(&r->groups[at], 0, sizeof(r->groups[at]));
        text_copy(r->groups[at].key, sizeof(r->groups[at].key), key);
        text_copy(r->groups[at].model, sizeof(r->groups[at].model), model);
        r->count++;
    }
    r->last = at;
    *out = &r->groups[at];
    return 0;
}

static int64_t cost_by(const struct price *price, const struct priced *p)
{
    if (p->used_nothing)
        return 0;
    return money_cost_nano(price, p->tokens_input, p->tokens_cached, p->tokens_output);
}

static void add_tally(struct tally *to, const struct tally *from)
{
    sum_add(&to->requests, from->requests);
    sum_add(&to->cost_nano, from->cost_nano);
    sum_add(&to->miscounted, from->miscounted);
    sum_add(&to->stored_price_nano, from->stored_price_nano);
    sum_add(&to->changed, from->changed);
    sum_add(&to->config_price_nano, from->config_price_nano);
    sum_add(&to->unknown, from->unknown);
}

/* A candidate that is not in the config any more had the model's price, as far as we know. */
static struct price config_price(const struct model_config *model, const struct priced *p)
{
    const struct candidate_config *candidate = NULL;

    if (p->provider != NULL && p->upstream_model != NULL)
        candidate = model_candidate(model, p->provider, p->upstream_model);
    return candidate != NULL ? candidate_price_at(model, candidate, p->created_at_ms)
                             : model_price_at(model, p->created_at_ms);
}

static struct tally price_row(const struct priced *p, const struct config *config)
{
    const struct model_config *model = config_model(config, p->model, strlen(p->model));
    struct tally t = {.requests = 1, .cost_nano = p->cost_nano};

    t.stored_price_nano = cost_by(&p->price, p);
    t.miscounted = t.stored_price_nano != p->cost_nano;
    if (model != NULL) {
        struct price price = config_price(model, p);

        t.config_price_nano = cost_by(&price, p);
    } else {
        t.config_price_nano = p->cost_nano;
        t.unknown = 1;
    }
    t.changed = t.config_price_nano != p->cost_nano;
    return t;
}

static int add_row(struct reprice *r, sqlite3_stmt *stmt, const struct config *config)
{
    const struct priced p = {
        .key = (const char *)sqlite3_column_text(stmt, 1),
        .model = (const char *)sqlite3_column_text(stmt, 2),
        .created_at_ms = sqlite3_column_int64(stmt, 3),
        .tokens_input = sqlite3_column_int64(stmt, 4),
        .tokens_cached = sqlite3_column_int64(stmt, 5),
        .tokens_output = sqlite3_column_int64(stmt, 6),
        .cost_nano = sqlite3_column_int64(stmt, 7),
        .used_nothing = sqlite3_column_int(stmt, 8) == USAGE_BY_NOBODY,
        .price = {.from_at_ms = sqlite3_column_int64(stmt, 9),
                  .input_nano = sqlite3_column_int64(stmt, 10),
                  .cached_input_nano = sqlite3_column_int64(stmt, 11),
                  .output_nano = sqlite3_column_int64(stmt, 12),
                  .request_nano = sqlite3_column_int64(stmt, 13)},
        .provider = (const char *)sqlite3_column_text(stmt, 14),
        .upstream_model = (const char *)sqlite3_column_text(stmt, 15),
    };
    const void *id = sqlite3_column_blob(stmt, 0);
    struct group *group;
    struct tally tally;
    int rc;

    if (p.key == NULL || p.model == NULL || id == NULL ||
        sqlite3_column_bytes(stmt, 0) != USAGE_ID_BYTES)
        return -ENOMEM; /* columns that are NOT NULL and checked */
    memcpy(r->id, id, USAGE_ID_BYTES);
    tally = price_row(&p, config);
    add_tally(&r->total, &tally);
    if (tally.miscounted == 0 && tally.changed == 0)
        return 0;
    rc = find_group(r, p.key, p.model, &group);
    if (rc < 0)
        return rc;
    if (group != NULL)
        add_tally(&group->tally, &tally);
    else
        r->left_out++;
    return 0;
}

/* Returns how many rows were read. */
static int read_unit(struct reprice *r, sqlite3 *db, const struct config *config)
{
    sqlite3_stmt *stmt = NULL;
    int count = 0, step = SQLITE_OK;
    int rc = database_prepare(
        db,
        "SELECT id, api_key_id, model, created_at, tokens_input, tokens_cached, tokens_output,"
        " cost, source, price_from, price_input, price_cached_input, price_output, price_request,"
        " provider, (SELECT a.model FROM usage_attempts a WHERE a.usage_id = usage.id"
        " ORDER BY a.number DESC LIMIT 1)"
        " FROM usage WHERE id > ?1 ORDER BY id LIMIT ?2",
        &stmt);

    if (rc < 0)
        return rc;
    sqlite3_bind_blob(stmt, 1, r->id, USAGE_ID_BYTES, SQLITE_TRANSIENT);
    sqlite3_bind_int(stmt, 2, UNIT_ROWS);
    while (rc == 0 && (step = sqlite3_step(stmt)) == SQLITE_ROW) {
        rc = add_row(r, stmt, config);
        count++;
    }
    sqlite3_finalize(stmt);
    if (rc == 0)
        rc = database_errno(step);
    return rc < 0 ? rc : count;
}

int reprice_step(struct reprice *r, struct ledger *ledger, const struct config *config)
{
    int64_t deadline_us = clock_monotonic_us() + SLICE_US;

    do {
        sqlite3 *db = ledger_db(ledger);
        int count = db != NULL ? read_unit(r, db, config) : -EIO;

        if (count < UNIT_ROWS)
            return count < 0 ? count : 0;
    } while (clock_monotonic_us() < deadline_us);
    return 1;
}

static void put_amount(struct buf *out, const char *name, int64_t nano)
{
    char text[MONEY_TEXT_BYTES];

    money_format(nano, text);
    json_put_field_text(out, name, text);
}

static void put_tally(struct buf *out, const struct tally *t)
{
    json_put_field_i64(out, "requests", t->requests);
    put_amount(out, "cost", t->cost_nano);
    json_put_field_i64(out, "miscounted", t->miscounted);
    put_amount(out, "stored_price", t->stored_price_nano);
    json_put_field_i64(out, "changed", t->changed);
    put_amount(out, "config_price", t->config_price_nano);
    json_put_field_i64(out, "unknown", t->unknown);
}

static int put_group(const struct group *g, struct key_names *names, struct buf *out)
{
    char name[KEY_NAME_BYTES];
    int rc = key_names_get(names, g->key, name);

    if (rc < 0)
        return rc;
    buf_byte(out, '{');
    json_put_field_text(out, "key", g->key);
    json_put_field_text(out, "name", name[0] != '\0' ? name : NULL);
    json_put_field_text(out, "model", g->model);
    put_tally(out, &g->tally);
    return buf_byte(out, '}');
}

int reprice_encode(const struct reprice *r, struct ledger *ledger, struct buf *out)
{
    struct key_names names;
    int rc = key_names_open(ledger, &names);

    buf_byte(out, '{');
    json_put_key(out, "rows");
    buf_byte(out, '[');
    for (size_t i = 0; i < r->count && rc == 0; i++) {
        if (i > 0)
            buf_byte(out, ',');
        rc = put_group(&r->groups[i], &names, out);
    }
    key_names_close(&names);
    if (rc < 0)
        return rc;
    buf_byte(out, ']');
    json_put_key(out, "total");
    buf_byte(out, '{');
    put_tally(out, &r->total);
    buf_byte(out, '}');
    json_put_field_i64(out, "left_out", r->left_out);
    return buf_byte(out, '}');
}
