#include "gateway/ops.h"

#include "common/json.h"
#include "gateway/worker.h"
#include "router/status.h"
#include "usage/calibration.h"

#define OUTBOX_FULL_PERCENT 95

void ops_handle_health(void *arg, struct http_request *r)
{
    struct buf body;

    buf_init(&body, SIZE_MAX);
    buf_str(&body, "{\"status\":\"ok\"}\n");
    http_answer(r, 200, "application/json", &body);
}

/* NULL = ready; else why not. */
static const char *not_ready_reason(const struct worker *w)
{
    struct processes_region *processes = w->setup->instance->processes;
    struct process_row *writer = process_row_at(processes, process_slot(processes, ROLE_WRITER));
    uint32_t state = atomic_load(&processes_instance(processes)->state);

    if (w->draining || state == PROCESS_DRAINING)
        return "draining";
    if (state != PROCESS_READY)
        return "starting";
    /* Without the writer requests are still served, as long as the outbox takes their events. */
    if (atomic_load(&writer->state) != PROCESS_READY &&
        outbox_fill_percent(w->outbox) >= OUTBOX_FULL_PERCENT)
        return "accounting_unavailable";
    return NULL;
}

void ops_handle_ready(void *arg, struct http_request *r)
{
    const char *reason = not_ready_reason(arg);
    struct buf body;

    buf_init(&body, SIZE_MAX);
    buf_byte(&body, '{');
    json_put_field_text(&body, "status", reason == NULL ? "ready" : reason);
    buf_str(&body, "}\n");
    http_answer(r, reason == NULL ? 200 : 503, "application/json", &body);
}

void ops_handle_metrics(void *arg, struct http_request *r)
{
    const struct worker *w = arg;
    const struct model_gauges ratios = calibration_gauges(w->setup->instance->calibration);
    struct buf body;

    buf_init(&body, SIZE_MAX);
    counters_render_prometheus(w->setup->instance->counters, &ratios, &body);
    status_render_prometheus(w->setup->instance->shm, w->setup->instance->counters, &body);
    http_answer(r, 200, "text/plain; version=0.0.4; charset=utf-8", &body);
}
