#include "gateway/ctl/ctl.h"

#include <stdatomic.h>
#include <string.h>

#include "common/clock.h"
#include "common/json.h"
#include "gateway/inflight.h"
#include "gateway/processes.h"
#include "usage/event.h"
#include "usage/keytable.h"

#define ID_PREFIX "req_"
#define LIST_BYTES_MAX (256UL * 1024 * 1024)

/* A copy of a row, with what is shown of it. */
struct request_view {
    size_t worker;
    uint32_t state;
    bool killed;
    bool has_answer;
    int64_t age_ms;
    struct usage_event event;
    char id[CTL_REQUEST_ID_BYTES];
    char key[KEY_ID_TEXT_BYTES];
};

static void format_id(const struct usage_id *id, char out[CTL_REQUEST_ID_BYTES])
{
    memcpy(out, ID_PREFIX, sizeof(ID_PREFIX));
    usage_id_format(id, out + strlen(ID_PREFIX));
}

/* The row is its worker's, who goes on writing. It is the same request's before and after the copy
 * or it is left out. */
static bool copy_row(struct inflight_row *row, size_t worker, int64_t now_ms,
                     struct request_view *out)
{
    struct usage_id again;

    out->state = atomic_load_explicit(&row->state, memory_order_acquire);
    if (out->state == INFLIGHT_FREE)
        return false;
    out->worker = worker;
    out->killed = atomic_load_explicit(&row->kill, memory_order_relaxed) != 0;
    out->has_answer = atomic_load_explicit(&row->has_answer, memory_order_relaxed) != 0;
    out->age_ms = now_ms - row->started_ms;
    memcpy(&out->event, &row->event, sizeof(out->event));
    atomic_thread_fence(memory_order_acquire);
    memcpy(&again, &row->event.id, sizeof(again));
    if (atomic_load_explicit(&row->state, memory_order_relaxed) == INFLIGHT_FREE ||
        memcmp(&again, &out->event.id, sizeof(again)) != 0)
        return false;
    out->event.model[sizeof(out->event.model) - 1] = '\0';
    out->event.provider[sizeof(out->event.provider) - 1] = '\0';
    format_id(&out->event.id, out->id);
    key_id_format(out->event.key_id, out->key);
    return true;
}

static const char *state_name(const struct request_view *v)
{
    if (v->state == INFLIGHT_FINAL || v->state == INFLIGHT_SETTLING || v->state == INFLIGHT_SETTLED)
        return "finishing";
    if (v->killed)
        return "killed";
    return v->has_answer ? "answering" : "waiting";
}

static void put_json(struct buf *out, const struct request_view *v)
{
    if (out->len > 0 && out->data[out->len - 1] != '[')
        buf_byte(out, ',');
    buf_byte(out, '{');
    json_put_field_text(out, "id", v->id);
    json_put_field_u64(out, "worker", v->worker);
    json_put_field_text(out, "key", v->key);
    json_put_field_text(out, "model", v->event.model);
    json_put_field_text(out, "provider", v->event.provider[0] != '\0' ? v->event.provider : NULL);
    json_put_field_text(out, "state", state_name(v));
    json_put_field_bool(out, "streamed", v->event.streamed != 0);
    json_put_field_time(out, "started_at", v->event.created_at_ms);
    json_put_field_i64(out, "age_ms", v->age_ms);
    json_put_field_i64(out, "tokens_input", v->event.tokens_input);
    json_put_field_i64(out, "tokens_output", v->event.tokens_output);
    buf_byte(out, '}');
}

static void put_cells(struct ctl_table *table, const struct request_view *v)
{
    char memory[32];
    struct buf age;

    buf_init_fixed(&age, memory, sizeof(memory));
    buf_printf(&age, "%lld.%01llds", (long long)(v->age_ms / 1000),
               (long long)(v->age_ms % 1000 / 100));
    ctl_table_cell(table, v->id);
    ctl_table_cell_i64(table, (int64_t)v->worker);
    ctl_table_cell(table, v->key);
    ctl_table_cell(table, v->event.model);
    ctl_table_cell(table, v->event.provider);
    ctl_table_cell(table, state_name(v));
    ctl_table_cell(table, buf_text(&age));
    ctl_table_cell_i64(table, v->event.tokens_input);
    ctl_table_cell_i64(table, v->event.tokens_output);
}

static void put_rows(const struct ctl_segment *s, bool json, struct buf *out,
                     struct ctl_table *table)
{
    int64_t now_ms = clock_monotonic_ms();
    struct request_view view;

    for (size_t slot = 0; slot < inflight_slot_count(s->inflight); slot++) {
        for (size_t i = 0; i < inflight_row_count(s->inflight); i++) {
            if (!copy_row(inflight_row_at(s->inflight, slot, i), slot, now_ms, &view))
                continue;
            if (json)
                put_json(out, &view);
            else
                put_cells(table, &view);
        }
    }
}

int ctl_request_id_parse(const char *text, char out[CTL_REQUEST_ID_BYTES])
{
    struct usage_id id;
    int rc;

    if (strncmp(text, ID_PREFIX, strlen(ID_PREFIX)) == 0)
        text += strlen(ID_PREFIX);
    rc = usage_id_parse(text, strlen(text), &id);
    if (rc == 0)
        format_id(&id, out);
    return rc;
}

enum ctl_exit ctl_requests(struct ctl *ctl)
{
    struct ctl_segment s;
    struct ctl_table table;
    struct buf out;
    enum ctl_exit status = ctl_segment_open(ctl, &s);

    if (status != CTL_OK)
        return status;
    if (!s.running) {
        ctl_segment_close(&s);
        ctl_complain("not running");
        return CTL_NOT_RUNNING;
    }
    buf_init(&out, LIST_BYTES_MAX);
    ctl_table_init(&table, "lrllllrrr");
    ctl_table_heading(&table, "ID|WORKER|KEY|MODEL|PROVIDER|STATE|AGE|PROMPT|OUTPUT");
    buf_str(&out, ctl->options.json ? "{\"requests\":[" : "");
    put_rows(&s, ctl->options.json, &out, &table);
    if (ctl->options.json)
        buf_str(&out, "]}\n");
    else
        ctl_table_render(&table, &out);
    status = ctl_print(&out);
    ctl_table_clear(&table);
    buf_clear(&out);
    ctl_segment_close(&s);
    return status;
}
