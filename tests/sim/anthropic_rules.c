#include "tests/sim/anthropic_rules.h"

#include <math.h>
#include <string.h>

#include "tests/sim/translate.h"

#define THINKING_BUDGET_MIN 1024

static const char *const keys[] = {
    "model",    "max_tokens", "messages",     "system",        "stream",         "temperature",
    "top_p",    "top_k",      "tools",        "tool_choice",   "stop_sequences", "metadata",
    "thinking", "container",  "service_tier", "output_config", "cache_control",  "mcp_servers",
};

static const struct range ranges[] = {
    {"max_tokens", 1, INFINITY, false, true, "greater than or equal to 1"},
    {"temperature", 0, 1, false, false, "between 0 and 1"},
    {"top_p", 0, 1, false, false, "between 0 and 1"},
    {"top_k", 0, INFINITY, false, true, "greater than or equal to 0"},
};
#define RANGE_COUNT (sizeof(ranges) / sizeof(ranges[0]))

/* The blocks that a message may have: in whose, and what makes one whole. */
static const struct block_kind {
    const char *type;
    const char *role; /* NULL: anyone's */
    const char *texts[2];
    const char *object;
} block_kinds[] = {
    {"text", NULL, {"text", NULL}, NULL},
    {"image", "user", {NULL, NULL}, "source"},
    {"document", "user", {NULL, NULL}, "source"},
    {"tool_result", "user", {"tool_use_id", NULL}, NULL},
    {"tool_use", "assistant", {"id", "name"}, "input"},
    {"thinking", "assistant", {"thinking", "signature"}, NULL},
    {"redacted_thinking", "assistant", {"data", NULL}, NULL},
};

static bool is_type(const cJSON *object, const char *type)
{
    const char *name = json_string(object, "type");

    return name != NULL && strcmp(name, type) == 0;
}

/* --- shapes --- */

static bool check_keys(const cJSON *root, struct verdict *verdict)
{
    const cJSON *item;

    cJSON_ArrayForEach(item, root)
    {
        bool known = false;

        for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
            known = known || strcmp(keys[i], item->string) == 0;
        if (!known)
            return verdict_refuse(verdict, 400, "%.64s: Extra inputs are not permitted",
                                  item->string);
    }
    return true;
}

static bool is_text_blocks(const cJSON *list)
{
    const cJSON *block;

    cJSON_ArrayForEach(block, list)
    {
        if (!is_type(block, "text") || json_string(block, "text") == NULL)
            return false;
    }
    return cJSON_IsArray(list);
}

static bool check_stops(const cJSON *stops, struct verdict *verdict)
{
    const cJSON *item;
    bool right = rules_is_absent(stops) || cJSON_IsArray(stops);

    cJSON_ArrayForEach(item, stops) right = right && cJSON_IsString(item);
    return right || verdict_refuse(verdict, 400, "stop_sequences: Input should be a valid list");
}

static bool check_shape(const cJSON *root, struct verdict *verdict)
{
    const cJSON *system = json_get(root, "system");
    const cJSON *stream = json_get(root, "stream");
    const cJSON *messages = json_get(root, "messages");

    if (!cJSON_IsObject(root))
        return verdict_refuse(verdict, 400, "Input should be an object");
    if (!check_keys(root, verdict))
        return false;
    if (json_string(root, "model") == NULL)
        return verdict_refuse(verdict, 400, "model: Field required");
    if (json_get(root, "max_tokens") == NULL)
        return verdict_refuse(verdict, 400, "max_tokens: Field required");
    for (size_t i = 0; i < RANGE_COUNT; i++) {
        const cJSON *item = json_get(root, ranges[i].name);

        if (item != NULL && !cJSON_IsNumber(item))
            return verdict_refuse(verdict, 400, "%s: Input should be a valid number",
                                  ranges[i].name);
    }
    if (!cJSON_IsArray(messages))
        return verdict_refuse(verdict, 400, "messages: Input should be a valid list");
    if (messages->child == NULL)
        return verdict_refuse(verdict, 400, "messages: at least one message is required");
    if (stream != NULL && !cJSON_IsBool(stream))
        return verdict_refuse(verdict, 400, "stream: Input should be a valid boolean");
    if (system != NULL && !cJSON_IsString(system) && !is_text_blocks(system))
        return verdict_refuse(verdict, 400, "system: Input should be a valid string or list");
    return check_stops(json_get(root, "stop_sequences"), verdict);
}

/* --- tools --- */

static bool check_tools(const cJSON *tools, struct sim_request *request, struct verdict *verdict)
{
    const cJSON *tool;
    size_t i = 0;

    if (tools != NULL && !cJSON_IsArray(tools))
        return verdict_refuse(verdict, 400, "tools: Input should be a valid list");
    cJSON_ArrayForEach(tool, tools)
    {
        const char *name = json_string(tool, "name");
        const cJSON *schema = json_get(tool, "input_schema");

        if (name == NULL)
            return verdict_refuse(verdict, 400, "tools.%zu.custom.name: Field required", i);
        if (!cJSON_IsObject(schema))
            return verdict_refuse(verdict, 400, "tools.%zu.custom.input_schema: Field required", i);
        if (!is_type(schema, "object"))
            return verdict_refuse(
                verdict, 400, "tools.%zu.custom.input_schema.type: Input should be 'object'", i);
        translate_function(request, name, schema);
        i++;
    }
    return true;
}

static bool is_offered(const cJSON *tools, const char *name)
{
    const cJSON *tool;

    cJSON_ArrayForEach(tool, tools)
    {
        if (name != NULL && strcmp(json_string(tool, "name"), name) == 0)
            return true;
    }
    return false;
}

static bool check_choice(const cJSON *choice, const cJSON *tools, struct sim_request *request,
                         struct verdict *verdict)
{
    bool has_tools = cJSON_IsArray(tools) && tools->child != NULL;

    request->calls_allowed = has_tools && !is_type(choice, "none");
    request->must_call = is_type(choice, "any");
    request->one_call = cJSON_IsTrue(json_get(choice, "disable_parallel_tool_use"));
    if (choice == NULL)
        return true;
    if (!has_tools)
        return verdict_refuse(verdict, 400,
                              "tool_choice may only be specified while providing tools");
    if (is_type(choice, "tool")) {
        request->forced = json_string(choice, "name");
        return is_offered(tools, request->forced) ||
               verdict_refuse(verdict, 400, "Tool '%.64s' not found in provided tools",
                              request->forced == NULL ? "" : request->forced);
    }
    return is_type(choice, "auto") || is_type(choice, "any") || is_type(choice, "none") ||
           verdict_refuse(verdict, 400,
                          "tool_choice: Input tag found using 'type' does not match any of the "
                          "expected tags: 'auto', 'any', 'tool', 'none'");
}

/* --- messages --- */

static const struct block_kind *find_kind(const cJSON *block)
{
    for (size_t i = 0; i < sizeof(block_kinds) / sizeof(block_kinds[0]); i++) {
        if (is_type(block, block_kinds[i].type))
            return &block_kinds[i];
    }
    return NULL;
}

static bool check_result(const cJSON *content, size_t index, size_t at, struct verdict *verdict)
{
    const cJSON *part;
    bool right = rules_is_absent(content) || cJSON_IsString(content) || cJSON_IsArray(content);

    if (cJSON_IsArray(content)) {
        cJSON_ArrayForEach(part, content) right =
            right && ((is_type(part, "text") && json_string(part, "text") != NULL) ||
                      (is_type(part, "image") && json_get(part, "source") != NULL));
    }
    return right || verdict_refuse(verdict, 400,
                                   "messages.%zu.content.%zu.tool_result.content: Input should be "
                                   "a valid string or list",
                                   index, at);
}

static bool check_block(const cJSON *block, const char *role, size_t index, size_t at,
                        struct verdict *verdict)
{
    const struct block_kind *kind = find_kind(block);

    if (kind == NULL)
        return verdict_refuse(verdict, 400,
                              "messages.%zu.content.%zu: Input tag found using 'type' does not "
                              "match any of the expected tags",
                              index, at);
    if (kind->role != NULL && strcmp(kind->role, role) != 0)
        return verdict_refuse(verdict, 400,
                              "messages.%zu: `%s` blocks can only be in `%s` messages", index,
                              kind->type, kind->role);
    for (size_t i = 0; i < 2 && kind->texts[i] != NULL; i++) {
        if (json_string(block, kind->texts[i]) == NULL)
            return verdict_refuse(verdict, 400, "messages.%zu.content.%zu.%s.%s: Field required",
                                  index, at, kind->type, kind->texts[i]);
    }
    if (kind->object != NULL && !cJSON_IsObject(json_get(block, kind->object)))
        return verdict_refuse(verdict, 400,
                              "messages.%zu.content.%zu.%s.%s: Input should be a valid dictionary",
                              index, at, kind->type, kind->object);
    if (is_type(block, "text") && json_string(block, "text")[0] == '\0')
        return verdict_refuse(verdict, 400, "messages: text content blocks must be non-empty");
    return !is_type(block, "tool_result") ||
           check_result(json_get(block, "content"), index, at, verdict);
}

static bool check_message(const cJSON *message, size_t index, struct verdict *verdict)
{
    const char *role = json_string(message, "role");
    const cJSON *content = json_get(message, "content");
    const cJSON *block;
    size_t at = 0;

    if (role == NULL || (strcmp(role, "user") != 0 && strcmp(role, "assistant") != 0))
        return verdict_refuse(verdict, 400,
                              "messages: Unexpected role \"%.32s\". The Messages API accepts a "
                              "top-level `system` parameter, not \"system\" as an input message "
                              "role.",
                              role == NULL ? "" : role);
    if (!cJSON_IsString(content) && !cJSON_IsArray(content))
        return verdict_refuse(verdict, 400, "messages.%zu.content: Field required", index);
    if (cJSON_IsString(content) ? content->valuestring[0] == '\0' : content->child == NULL) {
        /* An empty last turn of the assistant is a prefill of nothing. */
        return (message->next == NULL && role[0] == 'a') ||
               verdict_refuse(verdict, 400,
                              "messages.%zu: all messages must have non-empty content except for "
                              "the optional final assistant message",
                              index);
    }
    if (cJSON_IsArray(content)) {
        cJSON_ArrayForEach(block, content)
        {
            if (!check_block(block, role, index, at++, verdict))
                return false;
        }
    }
    return true;
}

/* The blocks of a message; NULL where the content is a text. */
static const cJSON *first_block(const cJSON *message)
{
    const cJSON *content = json_get(message, "content");

    return cJSON_IsArray(content) ? content->child : NULL;
}

/* Whether the message begins with results (before anything else), one of them for id. */
static bool has_result(const cJSON *message, const char *id)
{
    for (const cJSON *block = first_block(message); block != NULL && is_type(block, "tool_result");
         block = block->next) {
        if (strcmp(json_string(block, "tool_use_id"), id) == 0)
            return true;
    }
    return false;
}

static bool has_call(const cJSON *message, const char *id)
{
    for (const cJSON *block = first_block(message); block != NULL; block = block->next) {
        if (is_type(block, "tool_use") && strcmp(json_string(block, "id"), id) == 0)
            return true;
    }
    return false;
}

/* Every call has its result at the beginning of the next message, every result its call. */
static bool check_pairs(const cJSON *message, const cJSON *previous, size_t index,
                        struct verdict *verdict)
{
    size_t at = 0;

    for (const cJSON *block = first_block(message); block != NULL; block = block->next, at++) {
        const char *result_of = json_string(block, "tool_use_id");

        if (is_type(block, "tool_use") && !has_result(message->next, json_string(block, "id")))
            return verdict_refuse(
                verdict, 400,
                "messages.%zu: `tool_use` ids were found without `tool_result` blocks immediately "
                "after: %.64s. Each `tool_use` block must have a corresponding `tool_result` block "
                "in the next message.",
                index + 1, json_string(block, "id"));
        if (is_type(block, "tool_result") && !has_call(previous, result_of))
            return verdict_refuse(
                verdict, 400,
                "messages.%zu.content.%zu: unexpected `tool_use_id` found in `tool_result` blocks: "
                "%.64s. Each `tool_result` block must have a corresponding `tool_use` block in the "
                "previous message.",
                index, at, result_of);
    }
    return true;
}

/* A user's results become messages of their own, in front of what else it says. */
static void translate(const cJSON *message, struct sim_request *request)
{
    bool is_user = json_string(message, "role")[0] == 'u';
    const cJSON *content = json_get(message, "content");
    bool says_more = first_block(message) == NULL;

    for (const cJSON *block = first_block(message); block != NULL; block = block->next) {
        if (is_type(block, "tool_result"))
            translate_content(request, ROLE_FUNCTION, json_get(block, "content"));
        else
            says_more = true;
    }
    if (says_more)
        translate_content(request, is_user ? ROLE_USER : ROLE_ASSISTANT, content);
}

static bool check_messages(const cJSON *root, struct sim_request *request, struct verdict *verdict)
{
    const cJSON *system = json_get(root, "system");
    const cJSON *messages = json_get(root, "messages");
    const cJSON *previous = NULL;
    const cJSON *message;
    size_t index = 0;

    if (system != NULL)
        translate_content(request, ROLE_SYSTEM, system);
    cJSON_ArrayForEach(message, messages)
    {
        if (!check_message(message, index++, verdict))
            return false;
    }
    index = 0;
    cJSON_ArrayForEach(message, messages)
    {
        if (!check_pairs(message, previous, index++, verdict))
            return false;
        translate(message, request);
        previous = message;
    }
    translate_end(request);
    return true;
}

/* --- the rest --- */

static bool check_thinking(const cJSON *root, struct sim_request *request, struct verdict *verdict)
{
    const cJSON *thinking = json_get(root, "thinking");
    int64_t budget = 0;

    if (thinking == NULL || is_type(thinking, "disabled"))
        return true;
    request->wants_thinking = true;
    if (is_type(thinking, "adaptive"))
        return true;
    if (!is_type(thinking, "enabled") || json_get_i64(thinking, "budget_tokens", &budget) < 0)
        return verdict_refuse(verdict, 400, "thinking.enabled.budget_tokens: Field required");
    if (budget < THINKING_BUDGET_MIN)
        return verdict_refuse(verdict, 400,
                              "thinking.enabled.budget_tokens: Input should be greater than or "
                              "equal to 1024");
    return budget < request->max_tokens ||
           verdict_refuse(verdict, 400,
                          "`max_tokens` must be greater than `thinking.budget_tokens`.");
}

static bool check_format(const cJSON *root, struct sim_request *request, struct verdict *verdict)
{
    const cJSON *format = json_get(json_get(root, "output_config"), "format");

    if (rules_is_absent(format))
        return true;
    request->schema = json_get(format, "schema");
    return (is_type(format, "json_schema") && cJSON_IsObject(request->schema)) ||
           verdict_refuse(verdict, 400, "output_config.format.schema: Field required");
}

static bool check_model(const struct sim_config *config, struct sim_request *request,
                        struct verdict *verdict)
{
    if (!rules_find_model(config, DIALECT_ANTHROPIC, request))
        return verdict_refuse(verdict, 404, "model: %.64s", request->model);
    if (json_get(request->root, "tools") != NULL && request->entry != NULL &&
        !request->entry->has_functions)
        return verdict_refuse(verdict, 400, "'%.64s' does not support tools.", request->model);
    return true;
}

static bool check_client(const struct sim_client *client, const struct sim_request *request,
                         struct verdict *verdict)
{
    switch (rules_client_limit(client, request)) {
    case LIMIT_BALANCE:
        return verdict_refuse(verdict, 402,
                              "Your credit balance is too low to access the Anthropic API.");
    case LIMIT_CONCURRENT:
        return verdict_refuse(verdict, 429, ANTHROPIC_OVERRUN_TEXT);
    case LIMIT_NONE:
        break;
    }
    return true;
}

static bool check_numbers(const cJSON *root, struct verdict *verdict)
{
    const struct range *range = rules_out_of_range(root, ranges, RANGE_COUNT);

    return range == NULL ||
           verdict_refuse(verdict, 400, "%s: Input should be %s", range->name, range->text);
}

static bool check_context(const struct sim_request *request, struct verdict *verdict)
{
    if (request->entry == NULL || request->prompt_tokens <= request->entry->context_tokens)
        return true;
    return verdict_refuse(verdict, 400, "prompt is too long: %llu tokens > %u maximum",
                          (unsigned long long)request->prompt_tokens,
                          request->entry->context_tokens);
}

static void fill(struct sim_request *out)
{
    out->model = json_string(out->root, "model");
    out->stream = cJSON_IsTrue(json_get(out->root, "stream"));
    out->includes_usage = true;
    out->separates_thinking = true;
    out->stops = json_get(out->root, "stop_sequences");
    out->cache_key = json_string(json_get(out->root, "metadata"), "user_id");
    json_get_i64(out->root, "max_tokens", &out->max_tokens);
}

static bool check_body(const struct sim_config *config, const struct caller *caller,
                       struct sim_request *out, struct verdict *verdict)
{
    const cJSON *root = out->root;
    const cJSON *tools = json_get(root, "tools");

    if (!check_shape(root, verdict))
        return false;
    fill(out);
    if (!check_model(config, out, verdict) || !check_client(caller->client, out, verdict) ||
        !check_numbers(root, verdict) || !check_tools(tools, out, verdict) ||
        !check_choice(json_get(root, "tool_choice"), tools, out, verdict) ||
        !check_thinking(root, out, verdict) || !check_messages(root, out, verdict) ||
        !check_format(root, out, verdict) || !check_context(out, verdict))
        return false;
    return !out->is_incomplete || verdict_refuse(verdict, 500, "out of memory");
}

bool anthropic_check_chat(const struct sim_config *config, const struct caller *caller,
                          const char *body, size_t len, struct sim_request *out,
                          struct verdict *verdict)
{
    cJSON *root;

    *out = (struct sim_request){0};
    *verdict = (struct verdict){0};
    if (caller->token != TOKEN_VALID)
        return verdict_refuse(verdict, 401, ANTHROPIC_UNAUTHORIZED_TEXT);
    if (!caller->has_version)
        return verdict_refuse(verdict, 400, "anthropic-version: header is required");
    root = caller->has_json_type ? json_parse(body, len, &JSON_LIMITS_DEFAULT, NULL, NULL) : NULL;
    if (root == NULL)
        return verdict_refuse(verdict, 400,
                              "The request body is not valid JSON: unexpected character");
    translate_begin(out, root);
    if (check_body(config, caller, out, verdict))
        return true;
    sim_request_clear(out);
    return false;
}
