#include "common/config.h"

#include <string.h>

#include "common/config_parse.h"
#include "common/config_text.h"
#include "common/json.h"

static const struct option_table *const tables[] = {&CONFIG_TABLE,  &TIER_TABLE,  &PROVIDER_TABLE,
                                                    &ACCOUNT_TABLE, &MODEL_TABLE, &CANDIDATE_TABLE,
                                                    &PRICE_TABLE};

static void describe_default(const struct option *o, struct buf *out)
{
    if (o->standard == NULL)
        buf_str(out, "required");
    else if (o->standard[0] == '\0')
        buf_str(out, "empty");
    else
        buf_printf(out, "`%s`", o->standard);
}

static void describe_row(const struct option *o, struct buf *out)
{
    buf_printf(out, "| `%s` | %s | ", o->path, option_type_name(o->type));
    describe_default(o, out);
    buf_str(out, " | ");
    option_describe_range(o, out);
    buf_printf(out, " | %s | %s |\n", o->reload ? "yes" : "restart", o->help);
}

int config_describe_markdown(struct buf *out)
{
    for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
        const struct option_table *t = tables[i];

        if (t->title[0] != '\0')
            buf_printf(out, "\n### `%s`\n\n", t->title);
        else
            buf_str(out, "### The root\n\n");
        buf_printf(out, "%s\n\n", t->about);
        buf_str(out, "| option | type | default | allowed | reload | meaning |\n"
                     "| --- | --- | --- | --- | --- | --- |\n");
        for (size_t j = 0; j < t->count; j++)
            describe_row(&t->options[j], out);
        if (t == &PROVIDER_TABLE)
            config_describe_providers(out);
    }
    return out->err;
}

static void put_words(const char *words, struct buf *out)
{
    const char *separator = "";

    while (*words != '\0') {
        size_t n = strcspn(words, "|");

        buf_str(out, separator);
        json_put_string(out, words, n);
        words += words[n] == '|' ? n + 1 : n;
        separator = ",";
    }
}

static void put_constraints(const struct option *o, struct buf *out)
{
    enum node_type node = option_node_type(o);

    if (node == NODE_NUMBER) {
        json_put_field_text(out, "type", "integer");
        json_put_field_i64(out, "minimum", o->min);
        json_put_field_i64(out, "maximum", o->max);
        return;
    }
    json_put_field_text(out, "type", node == NODE_BOOL ? "boolean" : "string");
    if (o->type == OPTION_PRICE) {
        json_put_field_text(out, "pattern", "^[0-9]+([.][0-9]{1,9})?$");
    } else if (o->type == OPTION_TEXT && o->unit[0] != '\0') {
        json_put_key(out, "enum");
        buf_byte(out, '[');
        put_words(o->unit, out);
        buf_byte(out, ']');
    } else if (o->min > 0) {
        json_put_field_i64(out, "minLength", o->min);
    }
}

static void put_option_schema(void *arg, const struct option *o, const char *name, struct buf *out)
{
    enum node_type node = option_node_type(o);

    buf_byte(out, '{');
    json_put_field_text(out, "description", o->help);
    put_constraints(o, out);
    if (o->standard != NULL) {
        json_put_key(out, "default");
        if (node == NODE_STRING)
            json_put_text(out, o->standard);
        else
            buf_str(out, o->standard);
    }
    buf_byte(out, '}');
}

/* The names of the required options, and of one required section (NULL = none). */
static void put_required(const struct option_table *table, const char *section, struct buf *out)
{
    const char *separator = "";

    json_put_key(out, "required");
    buf_byte(out, '[');
    for (size_t i = 0; i < table->count; i++) {
        if (table->options[i].standard != NULL)
            continue;
        buf_str(out, separator);
        json_put_text(out, table->options[i].path);
        separator = ",";
    }
    if (section != NULL) {
        buf_str(out, separator);
        json_put_text(out, section);
    }
    buf_byte(out, ']');
}

/* The members of an object's schema, without its braces. */
static void put_members(const struct option_table *table, const char *required_section,
                        void (*on_section)(void *arg, const char *path, const char *name,
                                           struct buf *out),
                        struct buf *out)
{
    struct option_visitor visitor = {
        put_option_schema, on_section,
        "{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{", "}}", NULL};

    json_put_field_text(out, "type", "object");
    json_put_field_text(out, "description", table->about);
    json_put_field_bool(out, "additionalProperties", false);
    put_required(table, required_section, out);
    json_put_key(out, "properties");
    buf_byte(out, '{');
    options_walk(table, &visitor, out);
    buf_byte(out, '}');
}

static void put_array(const struct option_table *table, const char *required_section,
                      void (*on_section)(void *arg, const char *path, const char *name,
                                         struct buf *out),
                      struct buf *out)
{
    buf_str(out, "{\"type\":\"array\",\"items\":{");
    put_members(table, required_section, on_section, out);
    buf_str(out, "}}");
}

static void put_provider_section(void *arg, const char *path, const char *name, struct buf *out)
{
    put_array(&ACCOUNT_TABLE, NULL, NULL, out);
}

static void put_candidate_section(void *arg, const char *path, const char *name, struct buf *out)
{
    put_array(&PRICE_TABLE, NULL, NULL, out);
}

static void put_model_section(void *arg, const char *path, const char *name, struct buf *out)
{
    if (strcmp(path, "aliases") == 0)
        buf_str(out, "{\"type\":\"array\",\"items\":{\"type\":\"string\",\"minLength\":1}}");
    else if (strcmp(path, "candidates") == 0)
        put_array(&CANDIDATE_TABLE, NULL, put_candidate_section, out);
    else
        put_array(&PRICE_TABLE, NULL, NULL, out);
}

static void put_config_section(void *arg, const char *path, const char *name, struct buf *out)
{
    if (strcmp(path, "providers") == 0) {
        put_array(&PROVIDER_TABLE, NULL, put_provider_section, out);
    } else if (strcmp(path, "models") == 0) {
        put_array(&MODEL_TABLE, "candidates", put_model_section, out);
    } else {
        buf_str(out, "{\"type\":\"object\",\"additionalProperties\":{");
        put_members(&TIER_TABLE, NULL, NULL, out);
        buf_str(out, "}}");
    }
}

int config_describe_schema(struct buf *out)
{
    struct buf text;
    int rc;

    buf_init(&text, out->max);
    buf_byte(&text, '{');
    json_put_field_text(&text, "$schema", "https://json-schema.org/draft/2020-12/schema");
    json_put_field_text(&text, "title", "xrouter configuration");
    put_members(&CONFIG_TABLE, NULL, put_config_section, &text);
    buf_byte(&text, '}');
    if (text.err != 0 && out->err == 0)
        out->err = text.err;
    text_indent(&text, out);
    rc = out->err;
    buf_clear(&text);
    return rc;
}
