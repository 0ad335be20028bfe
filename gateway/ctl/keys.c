#include "gateway/ctl/ctl.h"

#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/frame.h"
#include "common/json.h"

#define LIMITS_BYTES 320
#define LIST_BYTES_MAX (1024UL * 1024 * 1024)

/* ---- what the options say about a key: what was not given is not put ---- */

static void put_models(struct buf *request, const char *models)
{
    json_put_key(request, "models");
    buf_byte(request, '[');
    while (*models != '\0') {
        size_t len = strcspn(models, ",");

        if (request->len > 0 && request->data[request->len - 1] != '[')
            buf_byte(request, ',');
        json_put_string(request, models, len);
        models += len;
        models += *models == ',' ? 1 : 0;
    }
    buf_byte(request, ']');
}

/* Whether the comma-separated list has the word. */
static bool has_word(const char *list, const char *word)
{
    size_t len = strlen(word);

    while (list != NULL && *list != '\0') {
        size_t n = strcspn(list, ",");

        if (n == len && memcmp(list, word, len) == 0)
            return true;
        list += n;
        list += *list == ',' ? 1 : 0;
    }
    return false;
}

struct limit_option {
    const char *option; /* as --unset names it */
    const char *name;   /* in JSON */
    int64_t count;      /* -1 = not given */
    const char *credits;
};

static void put_limits(struct buf *request, const struct ctl_options *o)
{
    const struct limit_option limits[] = {
        {"rpm", "rpm", o->rpm, NULL},
        {"rpd", "rpd", o->rpd, NULL},
        {"tpm", "tpm", o->tpm, NULL},
        {"tpd", "tpd", o->tpd, NULL},
        {"parallel", "parallel", o->parallel, NULL},
        {"spend-day", "spend_day", -1, o->spend_day},
        {"spend-week", "spend_week", -1, o->spend_week},
        {"spend-month", "spend_month", -1, o->spend_month},
    };

    json_put_key(request, "limits");
    buf_byte(request, '{');
    for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
        if (limits[i].count >= 0)
            json_put_field_i64(request, limits[i].name, limits[i].count);
        else if (limits[i].credits != NULL || has_word(o->unset, limits[i].option))
            json_put_field_text(request, limits[i].name, limits[i].credits);
    }
    buf_byte(request, '}');
}

static bool is_unset_word(const char *word, size_t len)
{
    static const char *const words[] = {"name",     "models",    "expires",    "tier",
                                        "rpm",      "rpd",       "tpm",        "tpd",
                                        "parallel", "spend-day", "spend-week", "spend-month"};

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strlen(words[i]) == len && memcmp(words[i], word, len) == 0)
            return true;
    }
    return false;
}

static enum ctl_exit check_unset(const char *list)
{
    for (const char *word = list; word != NULL && *word != '\0';) {
        size_t len = strcspn(word, ",");

        if (!is_unset_word(word, len))
            return ctl_usage_error("--unset: \"%.*s\" is nothing that a key could have", (int)len,
                                   word);
        word += len;
        word += *word == ',' ? 1 : 0;
    }
    return CTL_OK;
}

static void put_text(struct buf *request, const char *name, const char *value,
                     const struct ctl_options *o)
{
    if (value != NULL || has_word(o->unset, name))
        json_put_field_text(request, name, value);
}

static enum ctl_exit put_wishes(struct buf *request, const struct ctl_options *o)
{
    int64_t now_at_ms = clock_now_at_ms();
    int64_t expires_at_ms = 0;
    enum ctl_exit status = check_unset(o->unset);

    if (status != CTL_OK)
        return status;
    if (o->expires != NULL && ctl_when_parse(o->expires, 1, now_at_ms, &expires_at_ms) < 0)
        return ctl_usage_error("--expires: \"%s\" is no date, time or span", o->expires);
    put_text(request, "name", o->name, o);
    put_text(request, "tier", o->tier, o);
    if (o->models != NULL)
        put_models(request, o->models);
    else
        put_text(request, "models", NULL, o);
    if (o->expires != NULL || has_word(o->unset, "expires"))
        json_put_field_time(request, "expires_at", expires_at_ms);
    put_limits(request, o);
    return CTL_OK;
}

static const char *text_or_dash(const cJSON *object, const char *name)
{
    const char *text = json_string(object, name);

    return text != NULL ? text : "-";
}

/* ---- making one ---- */

static enum ctl_exit on_created(void *arg, const struct ctl_answer *answer)
{
    const struct ctl *ctl = arg;
    const cJSON *key = json_get(answer->tree, "key");
    const char *text = json_string(key, "key");

    if (ctl->options.json)
        return ctl_print_member(answer, "key");
    if (text == NULL)
        return ctl_refuse("an answer without the key");
    /* The key alone on stdout: KEY=$(xrouterctl key create) is what people type. */
    if (printf("%s\n", text) < 0 || fflush(stdout) != 0)
        return ctl_refuse("the key could not be written: revoke %s", text_or_dash(key, "id"));
    fprintf(stderr, "This is the key of %s (%s). It is shown this once and cannot be read again.\n",
            text_or_dash(key, "id"), text_or_dash(key, "name"));
    return CTL_OK;
}

enum ctl_exit ctl_key_create(struct ctl *ctl)
{
    struct buf request;
    enum ctl_exit status;

    buf_init(&request, FRAME_MAX);
    buf_byte(&request, '{');
    json_put_field_text(&request, "op", "key.create");
    json_put_field_text(&request, "credits", ctl->options.credits);
    status = put_wishes(&request, &ctl->options);
    buf_byte(&request, '}');
    if (status == CTL_OK)
        status = ctl_call(ctl, &(struct ctl_call){.server = CTL_WRITER,
                                                  .request = &request,
                                                  .on_answer = on_created,
                                                  .arg = ctl});
    buf_clear(&request);
    return status;
}

/* ---- looking ---- */

/* "rpm=20 spend_day=12.5", "-" if there are none. */
static const char *limits_text(const cJSON *key, char *out, size_t size)
{
    const cJSON *limit;
    struct buf text;

    buf_init_fixed(&text, out, size);
    cJSON_ArrayForEach(limit, json_get(key, "limits"))
    {
        int64_t value;

        if (json_is_integer(limit, &value))
            buf_printf(&text, "%s%s=%lld", text.len > 0 ? " " : "", limit->string,
                       (long long)value);
        else if (cJSON_IsString(limit))
            buf_printf(&text, "%s%s=%s", text.len > 0 ? " " : "", limit->string,
                       limit->valuestring);
    }
    return text.len > 0 && buf_text(&text) != NULL ? out : "-";
}

static const char *models_text(const cJSON *key, char *out, size_t size)
{
    const cJSON *model;
    struct buf text;

    buf_init_fixed(&text, out, size);
    cJSON_ArrayForEach(model, json_get(key, "models"))
    {
        if (cJSON_IsString(model))
            buf_printf(&text, "%s%s", text.len > 0 ? ", " : "", model->valuestring);
    }
    return text.len > 0 && buf_text(&text) != NULL ? out : "all";
}

struct listing {
    const struct ctl *ctl;
    struct buf json; /* the objects so far, with commas between */
    struct ctl_table table;
};

static void add_row(struct ctl_table *table, const cJSON *key)
{
    char limits[LIMITS_BYTES];

    ctl_table_cell(table, json_string(key, "id"));
    ctl_table_cell(table, json_string(key, "name"));
    ctl_table_cell(table, json_string(key, "state"));
    ctl_table_cell(table, json_string(key, "created_at"));
    ctl_table_cell(table, json_string(key, "last_used_at"));
    ctl_table_cell(table, json_string(key, "expires_at"));
    ctl_table_cell(table, json_string(key, "tier"));
    ctl_table_cell(table, limits_text(key, limits, sizeof(limits)));
    ctl_table_cell(table, json_string(key, "balance"));
}

static enum ctl_exit on_listed(void *arg, const struct ctl_answer *answer)
{
    struct listing *l = arg;
    const cJSON *key;
    const char *array;
    size_t len;

    if (json_slice(answer->text, answer->len, "keys", &array, &len) < 0)
        return CTL_OK; /* the last frame may be empty */
    if (!l->ctl->options.json) {
        cJSON_ArrayForEach(key, json_get(answer->tree, "keys"))
        {
            add_row(&l->table, key);
        }
        return CTL_OK;
    }
    if (cJSON_GetArraySize(json_get(answer->tree, "keys")) == 0)
        return CTL_OK;
    if (l->json.len > 0)
        buf_byte(&l->json, ',');
    json_minify(&l->json, array + 1, len - 2);
    return CTL_OK;
}

static enum ctl_exit print_listing(struct listing *l)
{
    struct buf out;
    enum ctl_exit status;

    buf_init(&out, LIST_BYTES_MAX);
    if (l->ctl->options.json) {
        buf_str(&out, "{\"keys\":[");
        buf_append(&out, l->json.data, l->json.len);
        buf_str(&out, "]}\n");
        if (l->json.err != 0)
            out.err = l->json.err;
    } else {
        ctl_table_render(&l->table, &out);
    }
    status = ctl_print(&out);
    buf_clear(&out);
    return status;
}

enum ctl_exit ctl_key_list(struct ctl *ctl)
{
    struct listing l = {.ctl = ctl};
    struct buf request;
    enum ctl_exit status;

    buf_init(&request, FRAME_MAX);
    buf_str(&request, "{\"op\":\"key.list\"}");
    buf_init(&l.json, LIST_BYTES_MAX);
    ctl_table_init(&l.table, "llllllllr");
    ctl_table_heading(&l.table, "ID|NAME|STATE|CREATED|LAST USED|EXPIRES|TIER|LIMITS|BALANCE");
    /* Repeatable only until the first frame came, which ctl_call() sees to: half a list followed by
     * a whole one would show keys twice. */
    status = ctl_call(ctl, &(struct ctl_call){.server = CTL_WRITER,
                                              .repeatable = true,
                                              .request = &request,
                                              .on_answer = on_listed,
                                              .arg = &l});
    if (status == CTL_OK)
        status = print_listing(&l);
    buf_clear(&request);
    buf_clear(&l.json);
    ctl_table_clear(&l.table);
    return status;
}

static enum ctl_exit on_shown(void *arg, const struct ctl_answer *answer)
{
    static const char *const texts[] = {"id",         "name",         "state",      "created_at",
                                        "expires_at", "last_used_at", "revoked_at", "tier"};
    const struct ctl *ctl = arg;
    const cJSON *key = json_get(answer->tree, "key");
    char limits[LIMITS_BYTES], models[4096];
    enum ctl_exit status;
    struct buf out;

    if (ctl->options.json)
        return ctl_print_member(answer, "key");
    buf_init(&out, FRAME_MAX);
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        buf_printf(&out, "%-13s %s\n", texts[i], text_or_dash(key, texts[i]));
    buf_printf(&out, "%-13s %s\n", "limits", limits_text(key, limits, sizeof(limits)));
    buf_printf(&out, "%-13s %s\n", "balance", text_or_dash(key, "balance"));
    buf_printf(&out, "%-13s %s\n", "models", models_text(key, models, sizeof(models)));
    status = ctl_print(&out);
    buf_clear(&out);
    return status;
}

/* ---- changing ---- */

static enum ctl_exit on_revoked(void *arg, const struct ctl_answer *answer)
{
    const struct ctl *ctl = arg;
    const cJSON *key = json_get(answer->tree, "key");

    if (ctl->options.json)
        return ctl_print_member(answer, "key");
    printf("revoked %s (%s)\n", text_or_dash(key, "id"), text_or_dash(key, "name"));
    return CTL_OK;
}

static enum ctl_exit ask_about_key(struct ctl *ctl, const char *op,
                                   enum ctl_exit (*on_answer)(void *, const struct ctl_answer *))
{
    struct buf request;
    enum ctl_exit status;

    buf_init(&request, FRAME_MAX);
    buf_byte(&request, '{');
    json_put_field_text(&request, "op", op);
    json_put_field_text(&request, "key", ctl->args[0]);
    buf_byte(&request, '}');
    status = ctl_call(ctl, &(struct ctl_call){.server = CTL_WRITER,
                                              .repeatable = true,
                                              .request = &request,
                                              .on_answer = on_answer,
                                              .arg = ctl});
    buf_clear(&request);
    return status;
}

enum ctl_exit ctl_key_show(struct ctl *ctl)
{
    return ask_about_key(ctl, "key.show", on_shown);
}

enum ctl_exit ctl_key_revoke(struct ctl *ctl)
{
    return ask_about_key(ctl, "key.revoke", on_revoked);
}

static enum ctl_exit on_updated(void *arg, const struct ctl_answer *answer)
{
    const struct ctl *ctl = arg;
    const cJSON *key = json_get(answer->tree, "key");

    if (ctl->options.json)
        return ctl_print_member(answer, "key");
    printf("updated %s (%s)\n", text_or_dash(key, "id"), text_or_dash(key, "name"));
    return CTL_OK;
}

enum ctl_exit ctl_key_update(struct ctl *ctl)
{
    struct buf request;
    enum ctl_exit status;

    buf_init(&request, FRAME_MAX);
    buf_byte(&request, '{');
    json_put_field_text(&request, "op", "key.update");
    json_put_field_text(&request, "key", ctl->args[0]);
    status = put_wishes(&request, &ctl->options);
    buf_byte(&request, '}');
    /* A key that has its new name already would not be found by the old one. */
    if (status == CTL_OK)
        status = ctl_call(ctl, &(struct ctl_call){.server = CTL_WRITER,
                                                  .repeatable = ctl->options.name == NULL,
                                                  .request = &request,
                                                  .on_answer = on_updated,
                                                  .arg = ctl});
    buf_clear(&request);
    return status;
}

enum ctl_exit ctl_key_rotate(struct ctl *ctl)
{
    struct buf request;
    enum ctl_exit status;

    buf_init(&request, FRAME_MAX);
    buf_byte(&request, '{');
    json_put_field_text(&request, "op", "key.rotate");
    json_put_field_text(&request, "key", ctl->args[0]);
    buf_byte(&request, '}');
    status = ctl_call(
        ctl, &(struct ctl_call){
                 .server = CTL_WRITER, .request = &request, .on_answer = on_created, .arg = ctl});
    buf_clear(&request);
    return status;
}
