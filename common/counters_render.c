#include "common/counters.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "common/money.h"

#define NAME_BYTES 64

/* How a value is written: amounts leave as decimals of credits, durations as decimals of seconds,
 * both without passing through floating point. */
static bool is_amount(const struct counter_desc *d)
{
    return strcmp(d->unit, "nanocredits") == 0;
}

static bool is_duration(const struct counter_desc *d)
{
    return strcmp(d->unit, "milliseconds") == 0;
}

/* Replaces the unit inside a name ("cost_nano_total" -> "cost_credits_total"). */
static void name_in_base_unit(const char *name, const char *from, const char *to,
                              char out[NAME_BYTES])
{
    const char *at = strstr(name, from);

    if (at == NULL)
        snprintf(out, NAME_BYTES, "%s", name);
    else
        snprintf(out, NAME_BYTES, "%.*s%s%s", (int)(at - name), name, to, at + strlen(from));
}

static void counter_name(const struct counter_desc *d, char out[NAME_BYTES])
{
    if (is_amount(d))
        name_in_base_unit(d->name, "_nano", "_credits", out);
    else if (is_duration(d))
        name_in_base_unit(d->name, "_ms", "_seconds", out);
    else
        snprintf(out, NAME_BYTES, "%s", d->name);
}

static void histogram_name(const struct histogram_desc *d, char out[NAME_BYTES])
{
    name_in_base_unit(d->name, "_ms", "_seconds", out);
}

static uint64_t value_at(const void *base, size_t offset)
{
    const _Atomic uint64_t *word =
        (const _Atomic uint64_t *)(const void *)((const char *)base + offset);

    return atomic_load_explicit(word, memory_order_relaxed);
}

static void put_amount(struct buf *out, uint64_t nano)
{
    char text[MONEY_TEXT_BYTES];

    money_format(nano > INT64_MAX ? INT64_MAX : (int64_t)nano, text);
    buf_str(out, text);
}

static uint64_t power_of_ten(unsigned places)
{
    uint64_t power = 1;

    for (unsigned i = 0; i < places; i++)
        power *= 10;
    return power;
}

/* value / 10^places, without trailing zeros. */
static void put_decimal(struct buf *out, uint64_t value, unsigned places)
{
    char digits[24];
    uint64_t unit = power_of_ten(places);

    buf_u64(out, value / unit);
    if (value % unit == 0)
        return;
    snprintf(digits, sizeof(digits), "%0*" PRIu64, (int)places, value % unit);
    for (size_t len = strlen(digits); len > 0 && digits[len - 1] == '0'; len--)
        digits[len - 1] = '\0';
    buf_printf(out, ".%s", digits);
}

static void put_value(struct buf *out, const struct counter_desc *d, uint64_t value)
{
    if (is_amount(d))
        put_amount(out, value);
    else if (is_duration(d))
        put_decimal(out, value, 3);
    else if (d->kind == KIND_GAUGE)
        buf_i64(out, (int64_t)value);
    else
        buf_u64(out, value);
}

/* A label's value: backslash, quote and newline are what the format cannot hold as they are. */
void counters_put_label(struct buf *out, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '\\' || *text == '"')
            buf_byte(out, '\\');
        if (*text == '\n')
            buf_str(out, "\\n");
        else
            buf_byte(out, *text);
    }
}

static void put_family(struct buf *out, const char *prefix, const char *name, const char *help,
                       const char *type)
{
    buf_printf(out, "# HELP xrouter_%s%s ", prefix, name);
    for (; *help != '\0'; help++) {
        if (*help == '\\')
            buf_byte(out, '\\');
        buf_byte(out, *help);
    }
    buf_printf(out, "\n# TYPE xrouter_%s%s %s\n", prefix, name, type);
}

static const char *type_name(const struct counter_desc *d)
{
    return d->kind == KIND_GAUGE ? "gauge" : "counter";
}

static void put_plain(struct buf *out, const struct counters *sum)
{
    char name[NAME_BYTES];

    for (size_t i = 0; i < COUNTER_COUNT; i++) {
        const struct counter_desc *d = &COUNTER_DESCS[i];

        counter_name(d, name);
        put_family(out, "", name, d->help, type_name(d));
        buf_printf(out, "xrouter_%s ", name);
        put_value(out, d, value_at(sum, d->offset));
        buf_byte(out, '\n');
    }
}

static void put_histogram(struct buf *out, const struct histogram_desc *d,
                          const struct counters *sum)
{
    const struct histogram *h = (const void *)((const char *)sum + d->offset);
    char name[NAME_BYTES];
    uint64_t count = 0;

    histogram_name(d, name);
    put_family(out, "", name, d->help, "histogram");
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        count += atomic_load_explicit(&h->bucket[i], memory_order_relaxed);
        buf_printf(out, "xrouter_%s_bucket{le=\"", name);
        if (i < HISTOGRAM_BUCKETS - 1)
            put_decimal(out, HISTOGRAM_BOUNDS_MS[i], 3);
        else
            buf_str(out, "+Inf");
        buf_printf(out, "\"} %" PRIu64 "\n", count);
    }
    buf_printf(out, "xrouter_%s_sum ", name);
    put_decimal(out, atomic_load_explicit(&h->sum_us, memory_order_relaxed), 6);
    buf_printf(out, "\nxrouter_%s_count %" PRIu64 "\n", name, count);
}

/* Models and providers are rendered alike: a set is a list of names with counters each, and perhaps
 * with gauges from elsewhere. */
struct labelled_set {
    const char *label;
    const char *prefix;
    const struct counter_desc *descs;
    size_t desc_count;
    const char *(*name)(const struct counters_region *r, size_t index);
    void (*sum)(const struct counters_region *r, size_t index, void *out);
    const struct model_gauges *more; /* NULL: none */
};

/* Large enough for one row of either set. */
union labelled_row {
    struct model_counters model;
    struct provider_counters provider;
};

static void sum_model(const struct counters_region *r, size_t index, void *out)
{
    counters_sum_model(r, index, out);
}

static void sum_provider(const struct counters_region *r, size_t index, void *out)
{
    counters_sum_provider(r, index, out);
}

/* A sample's name and label; the value follows. */
static void put_sample(struct buf *out, const struct labelled_set *set, const char *name,
                       const char *label)
{
    buf_printf(out, "xrouter_%s%s{%s=\"", set->prefix, name, set->label);
    counters_put_label(out, label);
    buf_str(out, "\"} ");
}

static void put_gauge_value(struct buf *out, const struct model_gauge *g, uint64_t value)
{
    uint64_t unit = power_of_ten(g->places);

    buf_u64(out, value / unit);
    if (g->places > 0)
        buf_printf(out, ".%0*" PRIu64, (int)g->places, value % unit);
}

static void put_gauge(struct buf *out, const struct counters_region *r,
                      const struct labelled_set *set, const struct model_gauge *g)
{
    const char *label;
    uint64_t value;

    put_family(out, set->prefix, g->name, g->help, "gauge");
    for (size_t j = 0; (label = set->name(r, j)) != NULL; j++) {
        if (!g->read(set->more->arg, j, &value))
            continue;
        put_sample(out, set, g->name, label);
        put_gauge_value(out, g, value);
        buf_byte(out, '\n');
    }
}

static void put_labelled(struct buf *out, const struct counters_region *r,
                         const struct labelled_set *set)
{
    union labelled_row row;
    char name[NAME_BYTES];
    const char *label;

    /* All rows of a family stand together, as the format wants it. */
    for (size_t i = 0; i < set->desc_count; i++) {
        const struct counter_desc *d = &set->descs[i];

        counter_name(d, name);
        put_family(out, set->prefix, name, d->help, type_name(d));
        for (size_t j = 0; (label = set->name(r, j)) != NULL; j++) {
            set->sum(r, j, &row);
            put_sample(out, set, name, label);
            put_value(out, d, value_at(&row, d->offset));
            buf_byte(out, '\n');
        }
    }
    for (size_t i = 0; set->more != NULL && i < set->more->count; i++)
        put_gauge(out, r, set, &set->more->list[i]);
}

static struct labelled_set model_set(const struct model_gauges *more)
{
    return (struct labelled_set){
        "model",   "model_", MODEL_COUNTER_DESCS, MODEL_COUNTER_COUNT, counters_model_name,
        sum_model, more,
    };
}

static struct labelled_set provider_set(void)
{
    return (struct labelled_set){
        "provider",
        "provider_",
        PROVIDER_COUNTER_DESCS,
        PROVIDER_COUNTER_COUNT,
        counters_provider_name,
        sum_provider,
        NULL,
    };
}

static void put_json_value(struct buf *out, const struct counter_desc *d, const void *base)
{
    char name[NAME_BYTES];

    counter_name(d, name);
    json_put_key(out, name);
    if (is_amount(d))
        buf_byte(out, '"');
    put_value(out, d, value_at(base, d->offset));
    if (is_amount(d))
        buf_byte(out, '"');
}

static void put_json_histogram(struct buf *out, const struct histogram_desc *d,
                               const struct counters *sum)
{
    const struct histogram *h = (const void *)((const char *)sum + d->offset);
    char name[NAME_BYTES], full[NAME_BYTES + 8];
    uint64_t count = 0;

    histogram_name(d, name);
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++)
        count += atomic_load_explicit(&h->bucket[i], memory_order_relaxed);
    snprintf(full, sizeof(full), "%s_count", name);
    json_put_field_u64(out, full, count);
    snprintf(full, sizeof(full), "%s_sum", name);
    json_put_key(out, full);
    put_decimal(out, atomic_load_explicit(&h->sum_us, memory_order_relaxed), 6);
}

static void put_json_gauge(struct buf *out, const struct model_gauges *more,
                           const struct model_gauge *g, size_t model)
{
    uint64_t value;

    if (!g->read(more->arg, model, &value)) {
        json_put_field_text(out, g->name, NULL);
        return;
    }
    json_put_key(out, g->name);
    if (g->places > 0)
        buf_byte(out, '"');
    put_gauge_value(out, g, value);
    if (g->places > 0)
        buf_byte(out, '"');
}

static void put_json_labelled(struct buf *out, const struct counters_region *r, const char *member,
                              const struct labelled_set *set)
{
    union labelled_row row;
    const char *label;

    json_put_key(out, member);
    buf_byte(out, '[');
    for (size_t j = 0; (label = set->name(r, j)) != NULL; j++) {
        set->sum(r, j, &row);
        buf_str(out, j == 0 ? "{" : ",{");
        json_put_field_text(out, "name", label);
        for (size_t i = 0; i < set->desc_count; i++)
            put_json_value(out, &set->descs[i], &row);
        for (size_t i = 0; set->more != NULL && i < set->more->count; i++)
            put_json_gauge(out, set->more, &set->more->list[i], j);
        buf_byte(out, '}');
    }
    buf_byte(out, ']');
}

int counters_render_prometheus(const struct counters_region *r, const struct model_gauges *more,
                               struct buf *out)
{
    const struct labelled_set models = model_set(more), providers = provider_set();
    struct counters sum;

    counters_sum(r, &sum);
    put_plain(out, &sum);
    for (size_t i = 0; i < HISTOGRAM_COUNT; i++)
        put_histogram(out, &HISTOGRAM_DESCS[i], &sum);
    put_labelled(out, r, &models);
    put_labelled(out, r, &providers);
    return out->err;
}

int counters_render_json(const struct counters_region *r, const struct model_gauges *more,
                         struct buf *out)
{
    const struct labelled_set models = model_set(more), providers = provider_set();
    struct counters sum;

    counters_sum(r, &sum);
    json_put_key(out, "counters");
    buf_byte(out, '{');
    for (size_t i = 0; i < COUNTER_COUNT; i++)
        put_json_value(out, &COUNTER_DESCS[i], &sum);
    for (size_t i = 0; i < HISTOGRAM_COUNT; i++)
        put_json_histogram(out, &HISTOGRAM_DESCS[i], &sum);
    buf_byte(out, '}');
    put_json_labelled(out, r, "providers", &providers);
    put_json_labelled(out, r, "models", &models);
    return out->err;
}
