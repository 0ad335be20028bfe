#include "common/config_text.h"

#include <stdlib.h>
#include <string.h>

#include "common/config.h"
#include "common/json.h"

/* An option or a section, by its path. */
struct entry {
    const char *path;
    const struct option *option; /* NULL = a section */
};

struct walk {
    const struct option_visitor *visitor;
    const struct entry *entries;
    size_t count;
    struct buf *out;
};

/* Whether both have the same first len bytes and then a dot. */
static bool is_same_group(const char *a, const char *b, size_t len)
{
    return strncmp(a, b, len) == 0 && a[len] == '.' && b[len] == '.';
}

/* Whether the group was written already, with the first of its entries. */
static bool is_seen_group(const struct walk *w, size_t index, size_t len)
{
    for (size_t i = 0; i < index; i++)
        if (is_same_group(w->entries[i].path, w->entries[index].path, len))
            return true;
    return false;
}

static void walk_leaf(const struct walk *w, const struct entry *entry, const char *name)
{
    json_put_key(w->out, name);
    if (entry->option != NULL)
        w->visitor->on_option(w->visitor->arg, entry->option, name, w->out);
    else
        w->visitor->on_section(w->visitor->arg, entry->path, name, w->out);
}

/* Entries whose path begins with the first prefix_len bytes of like (which end with a dot). */
static void walk_level(const struct walk *w, const char *like, size_t prefix_len)
{
    for (size_t i = 0; i < w->count; i++) {
        const char *path = w->entries[i].path;
        size_t name_len;
        char name[64];

        if (strncmp(path, like, prefix_len) != 0)
            continue;
        name_len = strcspn(path + prefix_len, ".");
        if (path[prefix_len + name_len] == '\0') {
            walk_leaf(w, &w->entries[i], path + prefix_len);
            continue;
        }
        if (name_len >= sizeof(name) || is_seen_group(w, i, prefix_len + name_len))
            continue;
        memcpy(name, path + prefix_len, name_len);
        name[name_len] = '\0';
        json_put_key(w->out, name);
        buf_str(w->out, w->visitor->open);
        walk_level(w, path, prefix_len + name_len + 1);
        buf_str(w->out, w->visitor->close);
    }
}

void options_walk(const struct option_table *table, const struct option_visitor *visitor,
                  struct buf *out)
{
    struct entry entries[64];
    struct walk w = {visitor, entries, 0, out};

    for (size_t i = 0; i < table->count && w.count < 64; i++)
        entries[w.count++] = (struct entry){table->options[i].path, &table->options[i]};
    for (const char *const *s = table->sections; *s != NULL && w.count < 64; s++)
        entries[w.count++] = (struct entry){*s, NULL};
    walk_level(&w, "", 0);
}

static void new_line(struct buf *out, size_t level)
{
    buf_byte(out, '\n');
    for (size_t i = 0; i < level; i++)
        buf_str(out, "  ");
}

void text_indent(const struct buf *text, struct buf *out)
{
    bool in_string = false;
    size_t level = 0;

    for (size_t i = 0; i < text->len; i++) {
        char c = text->data[i];

        if (in_string) {
            buf_byte(out, c);
            if (c == '\\' && i + 1 < text->len)
                buf_byte(out, text->data[++i]);
            in_string = c != '"';
            continue;
        }
        in_string = c == '"';
        if ((c == '{' || c == '[') && i + 1 < text->len && text->data[i + 1] == c + 2) {
            buf_append(out, text->data + i++, 2); /* an empty one stays on its line */
            continue;
        }
        if (c == '}' || c == ']')
            new_line(out, --level);
        buf_byte(out, c);
        if (c == '{' || c == '[')
            new_line(out, ++level);
        else if (c == ',')
            new_line(out, level);
        else if (c == ':')
            buf_byte(out, ' ');
    }
}

/* What the encoders of one config need at hand. */
struct encoding {
    const struct config *config;
    bool with_secrets;
    const void *section; /* the struct that is being written */
};

static void encode_option(void *arg, const struct option *o, const char *name, struct buf *out)
{
    const struct encoding *encoding = arg;

    option_encode(o, encoding->section, encoding->with_secrets, out);
}

/* A comma between array elements. */
static void separate(struct buf *out)
{
    if (out->len > 0 && out->data[out->len - 1] != '[')
        buf_byte(out, ',');
}

static void encode_section(const struct encoding *encoding, const struct option_table *table,
                           const void *section,
                           void (*on_section)(void *arg, const char *path, const char *name,
                                              struct buf *out),
                           struct buf *out)
{
    struct encoding inner = {encoding->config, encoding->with_secrets, section};
    struct option_visitor visitor = {encode_option, on_section, "{", "}", &inner};

    buf_byte(out, '{');
    options_walk(table, &visitor, out);
    buf_byte(out, '}');
}

static void encode_prices(const struct encoding *encoding, const struct price *prices, size_t count,
                          struct buf *out)
{
    for (size_t i = 0; i < count; i++) {
        separate(out);
        encode_section(encoding, &PRICE_TABLE, &prices[i], NULL, out);
    }
}

static void encode_provider_section(void *arg, const char *path, const char *name, struct buf *out)
{
    const struct encoding *encoding = arg;
    const struct provider_config *provider = encoding->section;

    buf_byte(out, '[');
    for (size_t i = 0; i < provider->account_count; i++) {
        separate(out);
        encode_section(encoding, &ACCOUNT_TABLE, &provider->accounts[i], NULL, out);
    }
    buf_byte(out, ']');
}

static void encode_candidate_section(void *arg, const char *path, const char *name, struct buf *out)
{
    const struct encoding *encoding = arg;
    const struct candidate_config *candidate = encoding->section;

    buf_byte(out, '[');
    encode_prices(encoding, candidate->prices, candidate->price_count, out);
    buf_byte(out, ']');
}

static void encode_model_section(void *arg, const char *path, const char *name, struct buf *out)
{
    const struct encoding *encoding = arg;
    const struct model_config *model = encoding->section;

    buf_byte(out, '[');
    if (strcmp(path, "aliases") == 0)
        for (size_t i = 0; i < model->alias_count; i++) {
            separate(out);
            json_put_text(out, model->aliases[i]);
        }
    else if (strcmp(path, "candidates") == 0)
        for (size_t i = 0; i < model->candidate_count; i++) {
            separate(out);
            encode_section(encoding, &CANDIDATE_TABLE, &model->candidates[i],
                           encode_candidate_section, out);
        }
    else
        encode_prices(encoding, model->prices, model->price_count, out);
    buf_byte(out, ']');
}

static void encode_tiers(const struct encoding *encoding, struct buf *out)
{
    const struct config *config = encoding->config;

    buf_byte(out, '{');
    for (size_t i = 0; i < config->tier_count; i++) {
        json_put_key(out, config->tiers[i].name);
        encode_section(encoding, &TIER_TABLE, &config->tiers[i], NULL, out);
    }
    buf_byte(out, '}');
}

static void encode_config_section(void *arg, const char *path, const char *name, struct buf *out)
{
    const struct encoding *encoding = arg;
    const struct config *config = encoding->config;

    if (strcmp(path, "limits.tiers") == 0) {
        encode_tiers(encoding, out);
        return;
    }
    buf_byte(out, '[');
    if (strcmp(path, "providers") == 0)
        for (size_t i = 0; i < config->provider_count; i++) {
            separate(out);
            encode_section(encoding, &PROVIDER_TABLE, &config->providers[i],
                           encode_provider_section, out);
        }
    else
        for (size_t i = 0; i < config->model_count; i++) {
            separate(out);
            encode_section(encoding, &MODEL_TABLE, &config->models[i], encode_model_section, out);
        }
    buf_byte(out, ']');
}

/* Only between processes: for people the output is a file that could be used as it is. */
static void encode_origin(const struct config *config, struct buf *out)
{
    json_put_key(out, "origin");
    buf_byte(out, '{');
    json_put_field_text(out, "file", config->file);
    json_put_field_u64(out, "generation", config->generation);
    buf_byte(out, '}');
}

int config_encode(const struct config *config, bool with_secrets, struct buf *out)
{
    struct encoding encoding = {config, with_secrets, config};
    struct option_visitor visitor = {encode_option, encode_config_section, "{", "}", &encoding};
    struct buf text;
    int rc;

    buf_init(&text, out->max);
    buf_byte(&text, '{');
    options_walk(&CONFIG_TABLE, &visitor, &text);
    if (with_secrets)
        encode_origin(config, &text);
    buf_byte(&text, '}');
    if (text.err != 0 && out->err == 0)
        out->err = text.err;
    if (with_secrets)
        buf_append(out, text.data, text.len);
    else
        text_indent(&text, out);
    rc = out->err;
    buf_wipe(&text);
    return rc;
}
