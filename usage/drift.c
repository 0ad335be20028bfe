#include "usage/drift.h"

#include <string.h>

#include "common/clock.h"
#include "common/json.h"
#include "common/money.h"
#include "common/text.h"

struct drift drift_at(const char *table, const char *key, const char *model, int64_t at_ms)
{
    struct drift d = {.table = table, .at_ms = at_ms};

    text_copy(d.key, sizeof(d.key), key);
    text_copy(d.model, sizeof(d.model), model);
    return d;
}

size_t drifts_named(const struct drifts *drifts)
{
    return drifts->count < DRIFTS_NAMED_MAX ? (size_t)drifts->count : DRIFTS_NAMED_MAX;
}

void drifts_add(struct drifts *drifts, const struct drift *drift)
{
    if (drifts->count < DRIFTS_NAMED_MAX)
        drifts->named[drifts->count] = *drift;
    drifts->count++;
}

void drifts_compare(struct drifts *drifts, const struct drift *place, const struct sums *expected,
                    const struct sums *found)
{
    for (int i = 0; i < SUM_FIELDS; i++) {
        struct drift drift = *place;

        if (expected->of[i] == found->of[i])
            continue;
        drift.field = SUM_FIELD_NAMES[i];
        drift.expected = expected->of[i];
        drift.found = found->of[i];
        drift.is_amount = i == SUM_COST;
        drifts_add(drifts, &drift);
    }
}

static void put_value(struct buf *out, const char *name, const struct drift *d, int64_t value,
                      bool is_null)
{
    char text[MONEY_TEXT_BYTES];

    if (!d->is_amount) {
        json_put_field_i64(out, name, value);
        return;
    }
    money_format(value, text);
    json_put_field_text(out, name, is_null ? NULL : text);
}

static void put_drift(struct buf *out, const struct drift *d)
{
    char at[CLOCK_TEXT_BYTES];

    buf_byte(out, '{');
    json_put_field_text(out, "table", d->table);
    json_put_field_text(out, "field", d->field);
    json_put_field_text(out, "key", d->key);
    json_put_field_text(out, "model", d->model[0] != '\0' ? d->model : NULL);
    if (d->at_ms >= 0)
        clock_format(d->at_ms, at);
    json_put_field_text(out, "at", d->at_ms >= 0 ? at : NULL);
    put_value(out, "expected", d, d->expected, false);
    put_value(out, "found", d, d->found, d->is_null);
    buf_byte(out, '}');
}

void drifts_encode(const struct drifts *drifts, struct buf *out)
{
    buf_byte(out, '[');
    for (size_t i = 0; i < drifts_named(drifts); i++) {
        if (i > 0)
            buf_byte(out, ',');
        put_drift(out, &drifts->named[i]);
    }
    buf_byte(out, ']');
}

void drift_describe(const struct drift *d, struct buf *out)
{
    char at[CLOCK_TEXT_BYTES];

    buf_printf(out, "%s.%s of %s", d->table, d->field, d->key);
    if (d->model[0] != '\0')
        buf_printf(out, ", %s", d->model);
    if (d->at_ms >= 0) {
        clock_format(d->at_ms, at);
        buf_printf(out, ", %s", at);
    }
    if (d->is_null)
        buf_printf(out, ": expected %lld, found none", (long long)d->expected);
    else
        buf_printf(out, ": expected %lld, found %lld", (long long)d->expected, (long long)d->found);
}
