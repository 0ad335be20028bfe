#include "providers/anthropic.h"

#include <string.h>

#include "common/log.h"

size_t anthropic_own_stops(const struct model_request *req, const char *out[CHAT_STOP_MAX])
{
    size_t count = 0;

    for (size_t i = 0; i < req->stop_count; i++)
        if (anthropic_is_blank(req->stop[i]))
            out[count++] = req->stop[i];
    return count;
}

/* reason NULL: the answer ended without one, as other servers of the dialect may. */
const char *anthropic_finish_reason(const char *reason, bool has_calls, bool legacy)
{
    static const struct {
        const char *theirs, *ours;
    } reasons[] = {
        {"end_turn", NULL},
        {"tool_use", NULL},
        {"stop_sequence", NULL},
        {"pause_turn", NULL},
        {"max_tokens", "length"},
        {"model_context_window_exceeded", "length"},
        {"refusal", "content_filter"},
    };
    bool is_known = reason == NULL;

    for (size_t i = 0; !is_known && i < sizeof(reasons) / sizeof(reasons[0]); i++) {
        is_known = strcmp(reasons[i].theirs, reason) == 0;
        if (is_known && reasons[i].ours != NULL)
            return reasons[i].ours;
    }
    if (!is_known)
        log_event(LOG_INFO, "unknown_finish_reason", "",
                  "anthropic: unknown stop_reason \"%.40s\" taken for \"end_turn\"", reason);
    if (!has_calls)
        return "stop";
    return legacy ? "function_call" : "tool_calls";
}

bool anthropic_is_cut(const char *finish_reason)
{
    return strcmp(finish_reason, "length") == 0 || strcmp(finish_reason, "content_filter") == 0;
}

static void read_count(const cJSON *usage, const char *name, int64_t *out)
{
    int64_t value;

    if (json_is_integer(json_get(usage, name), &value) && value >= 0 && value <= INT32_MAX)
        *out = value;
}

void anthropic_counts_read(struct anthropic_counts *counts, const cJSON *usage)
{
    read_count(usage, "input_tokens", &counts->input);
    read_count(usage, "cache_creation_input_tokens", &counts->written);
    read_count(usage, "cache_read_input_tokens", &counts->cached);
    read_count(usage, "output_tokens", &counts->output);
}

bool anthropic_counts_usage(const struct anthropic_counts *counts, struct token_usage *out)
{
    if (counts->input < 0 || counts->output < 0)
        return false;
    out->cached = counts->cached < 0 ? 0 : counts->cached;
    out->input = counts->input + out->cached + (counts->written < 0 ? 0 : counts->written);
    out->output = counts->output;
    return true;
}
