#include "gateway/ctl/ctl.h"

#include <stdio.h>
#include <string.h>

#include "common/frame.h"
#include "common/json.h"
#include "common/secret.h"

#define LIST_BYTES_MAX (1024UL * 1024 * 1024)
#define HISTORY_DEFAULT 100
#define OPERATION_RANDOM_BYTES 16
#define OPERATION_BYTES (3 + 2 * OPERATION_RANDOM_BYTES + 1) /* "op_", hex, NUL */

static const char *text_or_dash(const cJSON *object, const char *name)
{
    const char *text = json_string(object, name);

    return text != NULL ? text : "-";
}

/* ---- paying ---- */

static enum ctl_exit on_added(void *arg, const struct ctl_answer *answer)
{
    const struct ctl *ctl = arg;
    const cJSON *credit = json_get(answer->tree, "credit");

    if (ctl->options.json)
        return ctl_print_member(answer, "credit");
    printf("added %s: the balance was then %s (operation %s)\n", text_or_dash(credit, "amount"),
           text_or_dash(credit, "balance"), text_or_dash(credit, "operation_id"));
    return CTL_OK;
}

/* So that a try after a lost connection pays no second time. */
static int make_operation(char out[OPERATION_BYTES])
{
    uint8_t random[OPERATION_RANDOM_BYTES];
    int rc = secret_random(random, sizeof(random));

    memcpy(out, "op_", 4);
    if (rc == 0)
        hex_encode(random, sizeof(random), out + 3);
    return rc;
}

enum ctl_exit ctl_credit_add(struct ctl *ctl)
{
    const char *operation = ctl->options.operation;
    char made[OPERATION_BYTES];
    struct buf request;
    enum ctl_exit status;

    if (operation == NULL) {
        int rc = make_operation(made);

        if (rc < 0)
            return ctl_refuse("no random numbers: %s", strerror(-rc));
        operation = made;
    }
    buf_init(&request, FRAME_MAX);
    buf_byte(&request, '{');
    json_put_field_text(&request, "op", "credit.add");
    json_put_field_text(&request, "key", ctl->args[0]);
    json_put_field_text(&request, "amount", ctl->args[1]);
    json_put_field_text(&request, "operation_id", operation);
    json_put_field_text(&request, "note", ctl->options.note);
    buf_byte(&request, '}');
    status = ctl_call(ctl, &(struct ctl_call){.server = CTL_WRITER,
                                              .repeatable = true,
                                              .request = &request,
                                              .on_answer = on_added,
                                              .arg = ctl});
    buf_clear(&request);
    return status;
}

/* ---- looking ---- */

static void put_spending(struct buf *out, const cJSON *credit)
{
    struct ctl_table table;
    const cJSON *item;

    ctl_table_init(&table, "lrrrl");
    ctl_table_heading(&table, "PERIOD|LIMIT|SPENT|LEFT|BEGINS ANEW");
    cJSON_ArrayForEach(item, json_get(credit, "spending"))
    {
        ctl_table_cell(&table, json_string(item, "period"));
        ctl_table_cell(&table, json_string(item, "limit"));
        ctl_table_cell(&table, json_string(item, "spent"));
        ctl_table_cell(&table, json_string(item, "left"));
        ctl_table_cell(&table, json_string(item, "resets_at"));
    }
    ctl_table_render(&table, out);
    ctl_table_clear(&table);
}

static enum ctl_exit on_shown(void *arg, const struct ctl_answer *answer)
{
    static const char *const texts[] = {"key", "name", "balance", "available", "reserved"};
    const struct ctl *ctl = arg;
    const cJSON *credit = json_get(answer->tree, "credit");
    enum ctl_exit status;
    struct buf out;

    if (ctl->options.json)
        return ctl_print_member(answer, "credit");
    buf_init(&out, FRAME_MAX);
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        buf_printf(&out, "%-10s %s\n", texts[i], text_or_dash(credit, texts[i]));
    buf_byte(&out, '\n');
    put_spending(&out, credit);
    status = ctl_print(&out);
    buf_clear(&out);
    return status;
}

enum ctl_exit ctl_credit_show(struct ctl *ctl)
{
    struct buf request;
    enum ctl_exit status;

    buf_init(&request, FRAME_MAX);
    buf_byte(&request, '{');
    json_put_field_text(&request, "op", "credit.show");
    json_put_field_text(&request, "key", ctl->args[0]);
    buf_byte(&request, '}');
    status = ctl_call(ctl, &(struct ctl_call){.server = CTL_WRITER,
                                              .repeatable = true,
                                              .request = &request,
                                              .on_answer = on_shown,
                                              .arg = ctl});
    buf_clear(&request);
    return status;
}

/* ---- the history ---- */

struct history {
    const struct ctl *ctl;
    struct buf json; /* the objects so far, with commas between */
    struct ctl_table table;
};

static void add_row(struct ctl_table *table, const cJSON *entry)
{
    int64_t requests = 0;

    ctl_table_cell(table, json_string(entry, "created_at"));
    ctl_table_cell(table, json_string(entry, "kind"));
    ctl_table_cell(table, json_string(entry, "amount"));
    ctl_table_cell(table, json_string(entry, "balance"));
    if (json_get_i64(entry, "requests", &requests) == 0 && requests > 0)
        ctl_table_cell_i64(table, requests);
    else
        ctl_table_cell(table, NULL);
    ctl_table_cell(table, json_string(entry, "operation_id"));
    ctl_table_cell(table, json_string(entry, "note"));
}

static enum ctl_exit on_entries(void *arg, const struct ctl_answer *answer)
{
    struct history *h = arg;
    const cJSON *entries = json_get(answer->tree, "entries");
    const cJSON *entry;
    const char *array;
    size_t len;

    if (!h->ctl->options.json) {
        cJSON_ArrayForEach(entry, entries)
        {
            add_row(&h->table, entry);
        }
        return CTL_OK;
    }
    if (cJSON_GetArraySize(entries) == 0 ||
        json_slice(answer->text, answer->len, "entries", &array, &len) < 0)
        return CTL_OK;
    if (h->json.len > 0)
        buf_byte(&h->json, ',');
    json_minify(&h->json, array + 1, len - 2);
    return CTL_OK;
}

static enum ctl_exit print_history(struct history *h)
{
    enum ctl_exit status;
    struct buf out;

    buf_init(&out, LIST_BYTES_MAX);
    if (h->ctl->options.json) {
        buf_str(&out, "{\"entries\":[");
        buf_append(&out, h->json.data, h->json.len);
        buf_str(&out, "]}\n");
        if (h->json.err != 0)
            out.err = h->json.err;
    } else {
        ctl_table_render(&h->table, &out);
    }
    status = ctl_print(&out);
    buf_clear(&out);
    return status;
}

enum ctl_exit ctl_credit_history(struct ctl *ctl)
{
    int64_t limit = ctl->options.limit >= 0 ? ctl->options.limit : HISTORY_DEFAULT;
    struct history h = {.ctl = ctl};
    struct buf request;
    enum ctl_exit status;

    buf_init(&request, FRAME_MAX);
    buf_byte(&request, '{');
    json_put_field_text(&request, "op", "credit.history");
    json_put_field_text(&request, "key", ctl->args[0]);
    json_put_field_i64(&request, "limit", limit);
    buf_byte(&request, '}');
    buf_init(&h.json, LIST_BYTES_MAX);
    ctl_table_init(&h.table, "llrrrll");
    ctl_table_heading(&h.table, "TIME|KIND|AMOUNT|BALANCE|REQUESTS|OPERATION|NOTE");
    status = ctl_call(ctl, &(struct ctl_call){.server = CTL_WRITER,
                                              .repeatable = true,
                                              .request = &request,
                                              .on_answer = on_entries,
                                              .arg = &h});
    if (status == CTL_OK)
        status = print_history(&h);
    buf_clear(&request);
    buf_clear(&h.json);
    ctl_table_clear(&h.table);
    return status;
}
