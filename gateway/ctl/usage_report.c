#include "gateway/ctl/ctl.h"

#include <string.h>

#include "common/clock.h"
#include "common/frame.h"
#include "common/json.h"

static const char *const sum_names[] = {"requests",      "errors",        "tokens_input",
                                        "tokens_cached", "tokens_output", "cost"};

#define SUM_COUNT (sizeof(sum_names) / sizeof(sum_names[0]))

static bool is_by(const char *text)
{
    static const char *const names[] = {"hour", "day", "model", "key"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(text, names[i]) == 0)
            return true;
    return false;
}

/* Sums are whole numbers, but the cost is a decimal text. */
static void put_sum(struct buf *out, const cJSON *row, const char *name)
{
    const char *text = json_string(row, name);
    int64_t value = 0;

    if (text != NULL)
        buf_str(out, text);
    else if (json_get_i64(row, name, &value) == 0)
        buf_i64(out, value);
}

static void add_cells(struct ctl_table *table, const char *label, const cJSON *row)
{
    ctl_table_cell(table, label);
    for (size_t i = 0; i < SUM_COUNT; i++) {
        char memory[64];
        struct buf text;

        buf_init_fixed(&text, memory, sizeof(memory));
        put_sum(&text, row, sum_names[i]);
        ctl_table_cell(table, buf_text(&text));
    }
}

/* A key's name says more to a person than its id. */
static const char *label_of(const cJSON *row, const char *by)
{
    const char *name = json_string(row, "name");

    return name != NULL ? name : json_string(row, by);
}

static void put_table(const cJSON *usage, struct buf *out)
{
    const char *by = json_string(usage, "by");
    struct ctl_table table;
    const cJSON *row;

    ctl_table_init(&table, "lrrrrrr");
    ctl_table_cell(&table, by);
    ctl_table_heading(&table, "REQUESTS|ERRORS|INPUT|CACHED|OUTPUT|COST");
    cJSON_ArrayForEach(row, json_get(usage, "rows"))
    {
        add_cells(&table, by == NULL ? NULL : label_of(row, by), row);
    }
    add_cells(&table, "total", json_get(usage, "total"));
    ctl_table_render(&table, out);
    ctl_table_clear(&table);
}

/* RFC 4180: quoted, with quotes doubled. A text that a spreadsheet would take for a formula gets an
 * apostrophe in front. */
static void put_csv_text(struct buf *out, const char *text)
{
    buf_byte(out, '"');
    if (text != NULL && text[0] != '\0' && strchr("=+-@\t\r", text[0]) != NULL)
        buf_byte(out, '\'');
    for (; text != NULL && *text != '\0'; text++) {
        if (*text == '"')
            buf_byte(out, '"');
        buf_byte(out, *text);
    }
    buf_byte(out, '"');
}

static void put_csv(const cJSON *usage, struct buf *out)
{
    const char *by = json_string(usage, "by");
    const cJSON *row;

    if (by == NULL)
        return;
    buf_str(out, by);
    for (size_t i = 0; i < SUM_COUNT; i++)
        buf_printf(out, ",%s", sum_names[i]);
    buf_str(out, "\r\n");
    cJSON_ArrayForEach(row, json_get(usage, "rows"))
    {
        put_csv_text(out, json_string(row, by));
        for (size_t i = 0; i < SUM_COUNT; i++) {
            buf_byte(out, ',');
            put_sum(out, row, sum_names[i]);
        }
        buf_str(out, "\r\n");
    }
}

static enum ctl_exit on_usage(void *arg, const struct ctl_answer *answer)
{
    const struct ctl *ctl = arg;
    const cJSON *usage = json_get(answer->tree, "usage");
    enum ctl_exit status;
    struct buf out;

    if (ctl->options.json)
        return ctl_print_member(answer, "usage");
    buf_init(&out, 4 * FRAME_MAX);
    if (ctl->options.csv)
        put_csv(usage, &out);
    else
        put_table(usage, &out);
    status = ctl_print(&out);
    buf_clear(&out);
    return status;
}

enum ctl_exit ctl_usage(struct ctl *ctl)
{
    const struct ctl_options *o = &ctl->options;
    int64_t since_at_ms = 0;
    struct buf request;
    enum ctl_exit status;

    if (o->json && o->csv)
        return ctl_usage_error("--json and --csv exclude each other");
    if (o->by != NULL && !is_by(o->by))
        return ctl_usage_error("--by: \"%s\" is none of hour, day, model, key", o->by);
    if (o->since != NULL && ctl_when_parse(o->since, -1, clock_now_at_ms(), &since_at_ms) < 0)
        return ctl_usage_error("--since: \"%s\" is no date, time or span", o->since);
    buf_init(&request, FRAME_MAX);
    buf_byte(&request, '{');
    json_put_field_text(&request, "op", "usage");
    json_put_field_text(&request, "key", o->key);
    json_put_field_text(&request, "model", o->model);
    json_put_field_time(&request, "since", since_at_ms);
    json_put_field_text(&request, "by", o->by != NULL ? o->by : "day");
    buf_byte(&request, '}');
    status = ctl_call(ctl, &(struct ctl_call){.server = CTL_WRITER,
                                              .repeatable = true,
                                              .request = &request,
                                              .on_answer = on_usage,
                                              .arg = ctl});
    buf_clear(&request);
    return status;
}
