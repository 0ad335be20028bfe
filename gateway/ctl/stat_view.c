#include "gateway/ctl/ctl.h"

#include <ctype.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <string.h>

#include "common/json.h"

static void put_span(struct buf *out, int64_t seconds)
{
    if (seconds >= 86400)
        buf_printf(out, "%" PRId64 "d ", seconds / 86400);
    if (seconds >= 3600)
        buf_printf(out, "%" PRId64 "h ", seconds / 3600 % 24);
    if (seconds >= 60)
        buf_printf(out, "%" PRId64 "m ", seconds / 60 % 60);
    buf_printf(out, "%" PRId64 "s", seconds % 60);
}

static void put_heading(const cJSON *stat, struct buf *out)
{
    const cJSON *listener;
    bool running = false;
    int64_t uptime_s = 0;

    (void)json_get_bool(stat, "running", &running); /* our own object: always there */
    (void)json_get_i64(stat, "uptime_s", &uptime_s);
    buf_printf(out, "xrouter %s, instance %s: %s ", json_string(stat, "version"),
               json_string(stat, "instance"), running ? "running for" : "NOT RUNNING, ran for");
    put_span(out, uptime_s);
    buf_byte(out, '\n');
    cJSON_ArrayForEach(listener, json_get(stat, "listeners"))
    {
        if (cJSON_IsString(listener))
            buf_printf(out, "%-6s %s\n", listener->string, listener->valuestring);
    }
    buf_byte(out, '\n');
}

/* Numbers as they are, amounts as their decimal text. */
static void add_value(struct ctl_table *table, const cJSON *value)
{
    char memory[48];
    struct buf text;
    int64_t whole;

    buf_init_fixed(&text, memory, sizeof(memory));
    if (cJSON_IsString(value))
        buf_str(&text, value->valuestring);
    else if (json_is_integer(value, &whole))
        buf_i64(&text, whole);
    else if (cJSON_IsNumber(value))
        buf_printf(&text, "%.6f", value->valuedouble);
    ctl_table_cell(table, buf_text(&text));
}

static void put_processes(const cJSON *stat, struct buf *out)
{
    struct ctl_table table;
    const cJSON *row;

    ctl_table_init(&table, "lrrlr");
    ctl_table_heading(&table, "PROCESS|SLOT|PID|STATE|HEARTBEAT MS AGO");
    cJSON_ArrayForEach(row, json_get(stat, "processes"))
    {
        ctl_table_cell(&table, json_string(row, "role"));
        add_value(&table, json_get(row, "slot"));
        add_value(&table, json_get(row, "pid"));
        ctl_table_cell(&table, json_string(row, "state"));
        add_value(&table, json_get(row, "heartbeat_age_ms"));
    }
    ctl_table_render(&table, out);
    ctl_table_clear(&table);
}

static void add_rate(struct ctl_table *table, const cJSON *now, const cJSON *before,
                     int64_t elapsed_ms)
{
    char memory[48];
    struct buf text;

    buf_init_fixed(&text, memory, sizeof(memory));
    if (cJSON_IsNumber(now) && cJSON_IsNumber(before) && elapsed_ms > 0)
        buf_printf(&text, "%+.1f",
                   (now->valuedouble - before->valuedouble) * 1000.0 / (double)elapsed_ms);
    ctl_table_cell(table, buf_text(&text));
}

static bool is_zero(const cJSON *value)
{
    if (cJSON_IsString(value))
        return strcmp(value->valuestring, "0") == 0;
    return cJSON_IsNumber(value) && value->valuedouble >= 0 && value->valuedouble <= 0;
}

static void put_counters(const cJSON *stat, const cJSON *before, int64_t elapsed_ms,
                         const char *filter, struct buf *out)
{
    const cJSON *old = json_get(before, "counters");
    struct ctl_table table;
    const cJSON *value;

    ctl_table_init(&table, before != NULL ? "lrr" : "lr");
    ctl_table_heading(&table, before != NULL ? "COUNTER|VALUE|PER SECOND" : "COUNTER|VALUE");
    cJSON_ArrayForEach(value, json_get(stat, "counters"))
    {
        if (filter != NULL && fnmatch(filter, value->string, 0) != 0)
            continue;
        if (before != NULL && filter == NULL && is_zero(value))
            continue;
        ctl_table_cell(&table, value->string);
        add_value(&table, value);
        if (before != NULL)
            add_rate(&table, value, json_get(old, value->string), elapsed_ms);
    }
    buf_byte(out, '\n');
    ctl_table_render(&table, out);
    ctl_table_clear(&table);
}

/* "tokens_input_total" as a column's title: TOKENS INPUT. */
static void add_title(struct ctl_table *table, const char *name)
{
    static const char suffix[] = "_total";
    char title[64];
    size_t len = strnlen(name, sizeof(title) - 1);

    if (len >= sizeof(suffix) && strcmp(name + len - (sizeof(suffix) - 1), suffix) == 0)
        len -= sizeof(suffix) - 1;
    for (size_t i = 0; i < len; i++)
        title[i] = name[i] == '_' ? ' ' : (char)toupper((unsigned char)name[i]);
    title[len] = '\0';
    ctl_table_cell(table, title);
}

/* "providers" and "models" are lists of flat objects with the same members: one line each. */
static void put_list(const cJSON *stat, const char *name, struct buf *out)
{
    char alignment[CTL_COLUMNS_MAX + 1] = "l";
    const cJSON *first = cJSON_GetArrayItem(json_get(stat, name), 0);
    int columns = cJSON_GetArraySize(first);
    struct ctl_table table;
    const cJSON *row, *value;

    if (columns <= 0 || columns > CTL_COLUMNS_MAX)
        return;
    memset(alignment + 1, 'r', (size_t)columns - 1);
    ctl_table_init(&table, alignment);
    cJSON_ArrayForEach(value, first)
    {
        add_title(&table, value == first->child ? name : value->string);
    }
    cJSON_ArrayForEach(row, json_get(stat, name))
    {
        cJSON_ArrayForEach(value, row)
        {
            add_value(&table, value);
        }
    }
    buf_byte(out, '\n');
    ctl_table_render(&table, out);
    ctl_table_clear(&table);
}

void ctl_stat_view(const cJSON *stat, const cJSON *before, int64_t elapsed_ms, const char *filter,
                   struct buf *out)
{
    put_heading(stat, out);
    put_processes(stat, out);
    put_list(stat, "providers", out);
    put_list(stat, "models", out);
    put_counters(stat, before, elapsed_ms, filter, out);
}
