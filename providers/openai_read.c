#include "providers/openai.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

struct reader {
    const struct openai_flavor *flavor;
    struct openai_choices *choices;
    struct token_meter *meter;
    struct openai_reading *out;
};

struct reason {
    const char *theirs;
    const char *ours; /* NULL = the provider has failed */
};
static const struct reason reasons[] = {
    {"stop", "stop"},
    {"length", "length"},
    {"tool_calls", "tool_calls"},
    {"function_call", "function_call"},
    {"content_filter", "content_filter"},
    {"model_length", "length"},             /* Mistral */
    {"error", NULL},                        /* Mistral, OpenRouter */
    {"insufficient_system_resource", NULL}, /* DeepSeek: interrupted */
    {"abort", NULL},                        /* vLLM */
};

static bool is_given(const cJSON *item)
{
    return item != NULL && !cJSON_IsNull(item);
}

const char *openai_finish_reason(const char *reason, const struct openai_choice *choice)
{
    const char *ours = "stop";

    for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
        if (strcmp(reasons[i].theirs, reason) == 0)
            ours = reasons[i].ours;
    /* Some say "stop" although they have called. */
    if (ours != NULL && strcmp(ours, "stop") == 0 && choice->has_tool_call)
        return "tool_calls";
    if (ours != NULL && strcmp(ours, "stop") == 0 && choice->has_function_call)
        return "function_call";
    return ours;
}

int openai_choice_index(const cJSON *choice)
{
    int64_t index;
    int rc = json_get_i64(choice, "index", &index);

    if (rc == -ENOENT)
        return 0;
    return rc == 0 && index >= 0 && index < OPENAI_CHOICES_MAX ? (int)index : -1;
}

/* Their numbers are far below; what is not is ignored as if absent. */
static bool read_count(const cJSON *usage, const char *name, int64_t *out)
{
    int64_t value;

    if (!json_is_integer(json_get(usage, name), &value) || value < 0 || value > INT32_MAX)
        return false;
    *out = value;
    return true;
}

bool openai_read_usage(const struct provider_config *p, const cJSON *usage, struct token_usage *out)
{
    int64_t input, output;
    int64_t cached = 0;

    if (!read_count(usage, "prompt_tokens", &input))
        return false;
    if (!read_count(usage, "completion_tokens", &output)) {
        int64_t total;

        if (!read_count(usage, "total_tokens", &total) || total < input)
            return false;
        output = total - input;
    }
    if (!read_count(json_get(usage, "prompt_tokens_details"), "cached_tokens", &cached) &&
        !read_count(usage, "prompt_cache_hit_tokens", &cached)) /* DeepSeek's older name */
        cached = 0;
    if (p->cached_tokens != NULL && strcmp(p->cached_tokens, "excluded") == 0)
        input += cached;
    out->input = input;
    out->cached = cached < input ? cached : input;
    out->output = output;
    return true;
}

static void tell(struct reader *r, const char *text)
{
    if (text == NULL || text[0] == '\0')
        return;
    r->out->text_count++;
    if (r->meter != NULL)
        r->meter->on_text(r->meter, text, strlen(text));
}

/* Mistral's lists: {"type":"text","text"} and {"type":"thinking","thinking":[parts of text]}. */
static void read_parts(struct reader *r, const cJSON *list)
{
    const cJSON *part;

    cJSON_ArrayForEach(part, list)
    {
        const cJSON *thinking = json_get(part, "thinking");

        if (cJSON_IsArray(thinking))
            read_parts(r, thinking);
        else
            tell(r, cJSON_IsString(thinking) ? thinking->valuestring : json_string(part, "text"));
    }
}

static int read_content(struct reader *r, const cJSON *content)
{
    if (!is_given(content))
        return 0;
    if (cJSON_IsString(content)) {
        tell(r, content->valuestring);
        return 0;
    }
    if (!cJSON_IsArray(content))
        return -EBADMSG;
    r->out->needs_edit = true;
    read_parts(r, content);
    return 0;
}

static void read_reasoning(struct reader *r, const cJSON *message)
{
    const char *named = json_string(message, "reasoning");
    const char *usual = json_string(message, "reasoning_content");

    if (r->flavor->reasoning == REASONING_SHORT && json_get(message, "reasoning") != NULL)
        r->out->needs_edit = true;
    tell(r, usual != NULL ? usual : named);
}

static int read_function(struct reader *r, const cJSON *function)
{
    const cJSON *arguments = json_get(function, "arguments");

    if (!cJSON_IsObject(function))
        return is_given(function) ? -EBADMSG : 0;
    tell(r, json_string(function, "name"));
    if (is_given(arguments) && !cJSON_IsString(arguments))
        return -EBADMSG;
    tell(r, cJSON_GetStringValue(arguments));
    return 0;
}

static int read_calls(struct reader *r, struct openai_choice *choice, const cJSON *message)
{
    const cJSON *calls = json_get(message, "tool_calls");
    const cJSON *function = json_get(message, "function_call");
    const cJSON *call;
    int rc = 0;

    if (is_given(calls) && !cJSON_IsArray(calls))
        return -EBADMSG;
    cJSON_ArrayForEach(call, calls)
    {
        if (!cJSON_IsObject(call))
            return -EBADMSG;
        choice->has_tool_call = true;
        if (json_get(call, "index") == NULL)
            r->out->chunk_needs_edit = true;
        rc = read_function(r, json_get(call, "function"));
        if (rc < 0)
            return rc;
        tell(r, json_string(json_get(call, "custom"), "input"));
    }
    if (!is_given(function))
        return 0;
    choice->has_function_call = true;
    return read_function(r, function);
}

static int read_message(struct reader *r, struct openai_choice *choice, const cJSON *message)
{
    int rc;

    if (!is_given(message))
        return 0;
    if (!cJSON_IsObject(message))
        return -EBADMSG;
    read_reasoning(r, message);
    rc = read_content(r, json_get(message, "content"));
    if (rc < 0)
        return rc;
    tell(r, json_string(message, "refusal"));
    return read_calls(r, choice, message);
}

static int read_finish(struct reader *r, struct openai_choice *choice, const char *reason,
                       struct error *e)
{
    const char *ours;

    if (reason == NULL || reason[0] == '\0') /* some send "" until it is over */
        return 0;
    r->out->has_plain_effect = false;
    ours = openai_finish_reason(reason, choice);
    if (ours == NULL)
        return error_set(e, XR_EUPSTREAM, NULL, "The model ended its answer with an error.");
    if (strcmp(ours, reason) != 0)
        r->out->needs_edit = true;
    if (!choice->finished)
        r->choices->finished_count++;
    choice->finished = true;
    return 0;
}

static int read_choice(struct reader *r, const cJSON *choice, struct error *e)
{
    const cJSON *delta = json_get(choice, "delta");
    int index = openai_choice_index(choice);
    struct openai_choice *state;
    int rc;

    if (!cJSON_IsObject(choice) || index < 0)
        return -EBADMSG;
    state = &r->choices->all[index];
    if (!state->seen)
        r->choices->seen_count++;
    state->seen = true;
    if (delta == NULL && json_get(choice, "message") != NULL) {
        delta = json_get(choice, "message"); /* a whole answer */
        r->out->chunk_needs_edit = true;
    }
    rc = read_message(r, state, delta);
    return rc < 0 ? rc : read_finish(r, state, json_string(choice, "finish_reason"), e);
}

int openai_read_answer(const struct openai_flavor *flavor, const cJSON *root,
                       struct openai_choices *choices, struct token_meter *meter,
                       struct openai_reading *out, struct error *e)
{
    struct reader r = {flavor, choices, meter, out};
    const cJSON *list = json_get(root, "choices");
    const cJSON *choice;
    int rc = openai_check_error(root, e);

    *out = (struct openai_reading){.has_plain_effect = true};
    out->usage = json_get(root, "usage");
    if (!cJSON_IsObject(out->usage))
        out->usage = json_get(json_get(root, "x_groq"), "usage");
    if (!cJSON_IsObject(out->usage))
        out->usage = NULL;
    if (out->usage != NULL)
        out->has_plain_effect = false;
    if (rc < 0)
        return rc;
    if (!cJSON_IsObject(root) || (is_given(list) && !cJSON_IsArray(list)))
        return -EBADMSG;
    cJSON_ArrayForEach(choice, list)
    {
        out->has_choices = true;
        rc = read_choice(&r, choice, e);
        if (rc < 0)
            return rc;
    }
    return 0;
}
