/* Providers: what they do now, and the switch that keeps new requests from one. */
#include "gateway/ctl/ctl.h"

#include <errno.h>
#include <stdio.h>

#include "common/clock.h"
#include "common/frame.h"
#include "common/json.h"
#include "router/status.h"
#include "router/targets.h"

#define LIST_BYTES_MAX (64UL * 1024 * 1024)

/* As many models and providers as a configuration may ask for. */
static const struct json_limits list_limits = {.depth = 16, .elements = 10000000};

static enum ctl_exit read_list(const struct ctl *ctl, struct buf *out)
{
    struct ctl_segment s;
    enum ctl_exit status = ctl_segment_open(ctl, &s);
    int rc;

    if (status != CTL_OK)
        return status;
    rc = status_render_providers(s.shm, s.counters, ctl->config, out);
    ctl_segment_close(&s);
    return rc == -EPROTO ? ctl_refuse("the shared memory was made by another version of xrouter")
                         : CTL_OK; /* ctl_print() tells of an incomplete text */
}

static void add_count(struct ctl_table *table, const cJSON *row, const char *name)
{
    int64_t value = 0;

    if (json_get_i64(row, name, &value) == 0)
        ctl_table_cell_i64(table, value);
    else
        ctl_table_cell(table, NULL);
}

static void put_providers(const cJSON *list, struct buf *out)
{
    struct ctl_table table;
    const cJSON *row;

    ctl_table_init(&table, "llrrrrrr");
    ctl_table_heading(&table, "PROVIDER|SWITCH|ACCOUNTS|RESTING|SLOTS TAKEN|OF|WAITING|IN FLIGHT");
    cJSON_ArrayForEach(row, list)
    {
        ctl_table_cell(&table, json_string(row, "name"));
        ctl_table_cell(&table, json_string(row, "switch"));
        add_count(&table, row, "accounts");
        add_count(&table, row, "accounts_resting");
        add_count(&table, row, "slots_taken");
        add_count(&table, row, "slots");
        add_count(&table, row, "waiting");
        add_count(&table, row, "in_flight");
    }
    ctl_table_render(&table, out);
    ctl_table_clear(&table);
}

/* Whether the provider lists the model; NULL = not known. */
static const char *offered_text(const cJSON *row)
{
    const cJSON *offered = json_get(row, "offered");

    if (!cJSON_IsBool(offered))
        return NULL;
    return cJSON_IsTrue(offered) ? "yes" : "no";
}

static void put_models(const cJSON *list, struct buf *out)
{
    const cJSON *provider, *row;
    struct ctl_table table;

    ctl_table_init(&table, "llllrrr");
    ctl_table_heading(&table, "PROVIDER|MODEL|OFFERED|BREAKER|OPENED|LEFT ALONE MS|FIRST BYTE MS");
    cJSON_ArrayForEach(provider, list)
    {
        cJSON_ArrayForEach(row, json_get(provider, "models"))
        {
            ctl_table_cell(&table, json_string(provider, "name"));
            ctl_table_cell(&table, json_string(row, "model"));
            ctl_table_cell(&table, offered_text(row));
            ctl_table_cell(&table, json_string(row, "breaker"));
            add_count(&table, row, "breaker_opened_total");
            add_count(&table, row, "left_alone_ms");
            add_count(&table, row, "first_byte_ms");
        }
    }
    buf_byte(out, '\n');
    ctl_table_render(&table, out);
    ctl_table_clear(&table);
}

static void add_age(struct ctl_table *table, const cJSON *row)
{
    int64_t at_ms = 0;

    if (json_get_i64(row, "at_ms", &at_ms) == 0)
        ctl_table_cell_i64(table, (clock_now_at_ms() - at_ms) / 1000);
    else
        ctl_table_cell(table, NULL);
}

/* Nothing where no provider tells. */
static void put_balances(const cJSON *list, struct buf *out)
{
    const cJSON *provider, *row;
    struct ctl_table table;
    bool has_rows = false;

    ctl_table_init(&table, "lrlrr");
    ctl_table_heading(&table, "PROVIDER|ACCOUNT|MODEL|TOKENS LEFT|SECONDS AGO");
    cJSON_ArrayForEach(provider, list)
    {
        cJSON_ArrayForEach(row, json_get(provider, "balances"))
        {
            has_rows = true;
            ctl_table_cell(&table, json_string(provider, "name"));
            add_count(&table, row, "account");
            ctl_table_cell(&table, json_string(row, "model"));
            add_count(&table, row, "tokens");
            add_age(&table, row);
        }
    }
    if (has_rows) {
        buf_byte(out, '\n');
        ctl_table_render(&table, out);
    }
    ctl_table_clear(&table);
}

static enum ctl_exit print_tables(const struct buf *json)
{
    const char *why = "out of memory";
    cJSON *list =
        json->err != 0 ? NULL : json_parse(json->data, json->len, &list_limits, NULL, &why);
    enum ctl_exit status;
    struct buf out;

    if (list == NULL)
        return ctl_refuse("%s", why);
    buf_init(&out, LIST_BYTES_MAX);
    put_providers(list, &out);
    put_models(list, &out);
    put_balances(list, &out);
    status = ctl_print(&out);
    buf_clear(&out);
    cJSON_Delete(list);
    return status;
}

enum ctl_exit ctl_provider_list(struct ctl *ctl)
{
    enum ctl_exit status;
    struct buf list, object;

    buf_init(&list, LIST_BYTES_MAX);
    status = read_list(ctl, &list);
    if (status == CTL_OK && !ctl->options.json) {
        status = print_tables(&list);
    } else if (status == CTL_OK) {
        buf_init(&object, LIST_BYTES_MAX);
        buf_str(&object, "{\"providers\":");
        buf_append(&object, list.data, list.len);
        buf_byte(&object, '}');
        if (list.err != 0)
            object.err = list.err;
        status = ctl_print_line(&object);
        buf_clear(&object);
    }
    buf_clear(&list);
    return status;
}

static enum ctl_exit on_switched(void *arg, const struct ctl_answer *answer)
{
    const struct ctl *ctl = arg;
    const cJSON *result = json_get(answer->tree, "result");
    int64_t in_flight = 0;

    if (ctl->options.json)
        return ctl_print_member(answer, "result");
    (void)json_get_i64(result, "in_flight", &in_flight); /* absent is none */
    printf("%s: %s", json_string(result, "provider"), json_string(result, "switch"));
    if (in_flight > 0)
        printf(", %lld in flight", (long long)in_flight);
    putchar('\n');
    return CTL_OK;
}

static enum ctl_exit order_switch(struct ctl *ctl, enum provider_switch to)
{
    enum ctl_exit status;
    struct buf request;

    buf_init(&request, FRAME_MAX);
    buf_byte(&request, '{');
    json_put_field_text(&request, "op", "provider.switch");
    json_put_field_text(&request, "provider", ctl->args[0]);
    json_put_field_text(&request, "switch", PROVIDER_SWITCH_NAMES[to]);
    buf_byte(&request, '}');
    status = ctl_call(ctl, &(struct ctl_call){.server = CTL_MASTER,
                                              .repeatable = true,
                                              .request = &request,
                                              .on_answer = on_switched,
                                              .arg = ctl});
    buf_clear(&request);
    return status;
}

enum ctl_exit ctl_provider_enable(struct ctl *ctl)
{
    return order_switch(ctl, PROVIDER_ENABLED);
}

enum ctl_exit ctl_provider_disable(struct ctl *ctl)
{
    return order_switch(ctl, PROVIDER_DISABLED);
}

enum ctl_exit ctl_provider_drain(struct ctl *ctl)
{
    return order_switch(ctl, PROVIDER_DRAINING);
}
