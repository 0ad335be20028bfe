#include "usage/debts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct debt_item {
    struct usage_id id;
    uint32_t debt;                                      /* its index */
    enum { ITEM_RUNNING, ITEM_FINAL, ITEM_EVENT } kind; /* of equal ids the first one counts */
    int64_t at_ms;
    int64_t reserved_nano;
    int64_t cost_nano;
};

struct collection {
    struct debts *debts;
    struct debt *of;
    size_t count;
    int rc;
};

void debt_init(struct debt *debt, uint64_t key_id, int64_t now_at_ms)
{
    *debt = (struct debt){.key_id = key_id};
    for (enum spend_period p = SPEND_DAY; p < SPEND_PERIODS; p++)
        debt->spending[p].period = spend_period_number(p, now_at_ms);
}

void debts_clear(struct debts *d)
{
    free(d->items);
    *d = (struct debts){0};
}

/* ---- collecting ---- */

static struct debt *find_debt(const struct collection *c, uint64_t key_id)
{
    size_t from = 0, to = c->count;

    while (from < to) {
        size_t middle = from + (to - from) / 2;

        if (c->of[middle].key_id == key_id)
            return &c->of[middle];
        if (c->of[middle].key_id < key_id)
            from = middle + 1;
        else
            to = middle;
    }
    return NULL;
}

static void add_item(struct collection *c, const struct debt_item *item)
{
    struct debts *d = c->debts;

    if (d->count == d->capacity) {
        size_t capacity = d->capacity == 0 ? 256 : 2 * d->capacity;
        struct debt_item *grown = reallocarray(d->items, capacity, sizeof(*grown));

        if (grown == NULL) {
            c->rc = -ENOMEM;
            return;
        }
        d->items = grown;
        d->capacity = capacity;
    }
    d->items[d->count++] = *item;
}

static void on_row(void *arg, const struct open_request *request)
{
    struct collection *c = arg;
    struct debt *debt = find_debt(c, request->key_id);

    if (debt == NULL)
        return;
    if (request->state == OPEN_IN_BRACKET) {
        debt->in_bracket = true;
        return;
    }
    add_item(c, &(struct debt_item){
                    .id = request->id,
                    .debt = (uint32_t)(debt - c->of),
                    .kind = request->state == OPEN_RUNNING ? ITEM_RUNNING : ITEM_FINAL,
                    .at_ms = request->reservation.at_ms,
                    .reserved_nano = request->reservation.amount_nano,
                    .cost_nano = request->cost_nano,
                });
}

static void add_records(struct collection *c, const uint8_t *data, size_t len)
{
    struct usage_event event;
    size_t used;

    for (size_t at = 0; at < len; at += used) {
        int rc = usage_event_decode(data + at, len - at, &event, &used);
        const struct debt *debt = rc == 0 ? find_debt(c, event.key_id) : NULL;

        if (rc == -EAGAIN || used == 0)
            return; /* no record: it becomes a dead letter, which nobody pays */
        if (debt == NULL)
            continue;
        add_item(c, &(struct debt_item){
                        .id = event.id,
                        .debt = (uint32_t)(debt - c->of),
                        .kind = ITEM_EVENT,
                        .at_ms = event.created_at_ms,
                        .cost_nano = event.cost_nano,
                    });
    }
}

static void read_ring(struct collection *c, const struct outbox *ob)
{
    uint8_t records[OUTBOX_PACKET_MAX];
    uint64_t next = outbox_tail(ob);
    ssize_t n;

    do {
        n = outbox_read(ob, next, records, sizeof(records), &next);
        if (n > 0)
            add_records(c, records, (size_t)n);
    } while (n >
             0); /* behind what makes no sense nothing is found, by the ledger's reader neither */
}

int debts_collect(struct debts *d, struct debt *debts, size_t count,
                  const struct open_requests *requests, struct outbox_region *outbox)
{
    struct collection c = {.debts = d, .of = debts, .count = count};

    d->count = 0;
    requests->each(requests->arg, on_row, &c);
    for (size_t slot = 0; slot < outbox_slot_count(outbox); slot++) {
        const struct outbox *ob = outbox_slot(outbox, slot);

        if (outbox_is_sane(ob))
            read_ring(&c, ob);
    }
    return c.rc;
}

/* ---- adding up ---- */

int64_t debt_subtract(int64_t nano, int64_t debt_nano)
{
    return account_sum(nano, debt_nano == INT64_MIN ? INT64_MAX : -debt_nano);
}

static void owe(struct debt *debt, int64_t at_ms, int64_t nano)
{
    debt->nano = account_sum(debt->nano, nano);
    for (enum spend_period p = SPEND_DAY; p < SPEND_PERIODS && at_ms >= 0; p++) {
        int64_t number = spend_period_number(p, at_ms);

        if (number == debt->spending[p].period)
            debt->spending[p].nano = account_sum(debt->spending[p].nano, nano);
        if (number == debt->spending[p].period + 1)
            debt->spending[p].next_nano = account_sum(debt->spending[p].next_nano, nano);
    }
}

static int is_committed(sqlite3_stmt *stmt, const struct usage_id *id, bool *out)
{
    int rc;

    sqlite3_bind_blob(stmt, 1, id->bytes, USAGE_ID_BYTES, SQLITE_STATIC);
    rc = sqlite3_step(stmt);
    *out = rc == SQLITE_ROW;
    sqlite3_reset(stmt);
    return database_errno(rc);
}

/* What a row has reserved comes back when it is settled, and its cost goes: until then a cost that
 * the ledger has already must not count twice. */
static int add_up(struct debt *debt, const struct debt_item *item, sqlite3_stmt *stmt)
{
    bool committed = false;
    int rc = 0;

    if (item->kind != ITEM_RUNNING)
        rc = is_committed(stmt, &item->id, &committed);
    if (rc < 0)
        return rc;
    switch (item->kind) {
    case ITEM_RUNNING:
        owe(debt, item->at_ms, item->reserved_nano);
        break;
    case ITEM_FINAL:
        owe(debt, item->at_ms, item->reserved_nano);
        if (committed)
            owe(debt, item->at_ms, -item->cost_nano);
        break;
    case ITEM_EVENT:
        if (!committed)
            owe(debt, item->at_ms, item->cost_nano);
        break;
    }
    return 0;
}

static int compare_items(const void *a, const void *b)
{
    const struct debt_item *x = a, *y = b;
    int order = memcmp(&x->id, &y->id, sizeof(x->id));

    return order != 0 ? order : (int)x->kind - (int)y->kind;
}

/* Events travel at least once, and rows stand until theirs has been settled. */
static bool is_repeated(const struct debts *d, size_t i)
{
    return i > 0 && memcmp(&d->items[i].id, &d->items[i - 1].id, sizeof(d->items[i].id)) == 0;
}

int debts_sum(struct debts *d, struct debt *debts, struct ledger *ledger)
{
    sqlite3_stmt *stmt;
    int rc;

    if (d->count == 0)
        return 0;
    rc = ledger_prepare(ledger, "SELECT 1 FROM usage WHERE id = ?1", &stmt);
    if (rc < 0)
        return rc;
    qsort(d->items, d->count, sizeof(d->items[0]), compare_items);
    for (size_t i = 0; i < d->count && rc == 0; i++) {
        if (!is_repeated(d, i))
            rc = add_up(&debts[d->items[i].debt], &d->items[i], stmt);
    }
    sqlite3_finalize(stmt);
    return rc;
}
