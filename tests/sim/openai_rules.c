#include "tests/sim/openai_rules.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "tests/sim/translate.h"

#define FUNCTION_NAME_BYTES_MAX 64
#define STOPS_MAX 4
#define CHOICES_MAX 128

static const struct {
    const char *name;
    enum role role;
} roles[] = {
    {"system", ROLE_SYSTEM},       {"developer", ROLE_SYSTEM}, {"user", ROLE_USER},
    {"assistant", ROLE_ASSISTANT}, {"tool", ROLE_FUNCTION},
};

/* The parts that a content may have, and what makes one whole. */
static const struct {
    const char *type;
    const char *member;
    bool is_text;
} parts[] = {
    {"text", "text", true},
    {"refusal", "refusal", true},
    {"image_url", "image_url", false},
    {"input_audio", "input_audio", false},
    {"file", "file", false},
};

static const struct range ranges[] = {
    {"temperature", 0, 2, false, false, "0 to 2"},
    {"top_p", 0, 1, false, false, "0 to 1"},
    {"presence_penalty", -2, 2, false, false, "-2 to 2"},
    {"frequency_penalty", -2, 2, false, false, "-2 to 2"},
    {"max_tokens", 1, INFINITY, false, true, "1 and more"},
    {"max_completion_tokens", 1, INFINITY, false, true, "1 and more"},
    {"n", 1, CHOICES_MAX, false, true, "1 to 128"},
};
#define RANGE_COUNT (sizeof(ranges) / sizeof(ranges[0]))

/* A 400 for the field. */
__attribute__((format(printf, 4, 5))) static bool refuse(struct verdict *verdict, const char *code,
                                                         const char *param, const char *format, ...)
{
    va_list args;

    *verdict = (struct verdict){.status = 400, .code = code};
    snprintf(verdict->param, sizeof(verdict->param), "%s", param);
    va_start(args, format);
    vsnprintf(verdict->message, sizeof(verdict->message), format, args);
    va_end(args);
    return false;
}

static bool refuse_type(struct verdict *verdict, const char *param, const char *expected)
{
    return refuse(verdict, "invalid_type", param, "Invalid type for '%s': expected %s.", param,
                  expected);
}

/* --- shapes --- */

static bool check_shape(const cJSON *root, struct verdict *verdict)
{
    static const char *const booleans[] = {"stream", "parallel_tool_calls"};
    const cJSON *messages = json_get(root, "messages");
    const cJSON *options = json_get(root, "stream_options");

    if (!cJSON_IsObject(root))
        return refuse_type(verdict, "body", "an object");
    if (json_string(root, "model") == NULL)
        return refuse(verdict, NULL, "", "you must provide a model parameter");
    if (messages == NULL)
        return refuse(verdict, "missing_required_parameter", "messages",
                      "Missing required parameter: 'messages'.");
    if (!cJSON_IsArray(messages))
        return refuse_type(verdict, "messages", "an array of objects");
    if (messages->child == NULL)
        return refuse(verdict, "empty_array", "messages",
                      "Invalid 'messages': empty array. Expected an array with minimum length 1, "
                      "but got an empty array instead.");
    for (size_t i = 0; i < sizeof(booleans) / sizeof(booleans[0]); i++) {
        const cJSON *item = json_get(root, booleans[i]);

        if (!rules_is_absent(item) && !cJSON_IsBool(item))
            return refuse_type(verdict, booleans[i], "a boolean");
    }
    for (size_t i = 0; i < RANGE_COUNT; i++) {
        const cJSON *item = json_get(root, ranges[i].name);

        if (!rules_is_absent(item) && !cJSON_IsNumber(item))
            return refuse_type(verdict, ranges[i].name, "a number");
    }
    if (!rules_is_absent(options) && !cJSON_IsObject(options))
        return refuse_type(verdict, "stream_options", "an object");
    if (cJSON_IsObject(options) && !cJSON_IsTrue(json_get(root, "stream")))
        return refuse(verdict, NULL, "stream_options",
                      "The 'stream_options' parameter is only allowed when 'stream' is enabled.");
    return true;
}

static bool check_stop(const cJSON *stop, struct verdict *verdict)
{
    const cJSON *item;

    if (rules_is_absent(stop) || cJSON_IsString(stop))
        return true;
    cJSON_ArrayForEach(item, stop)
    {
        if (!cJSON_IsString(item))
            return refuse_type(verdict, "stop", "a string or an array of strings");
    }
    if (!cJSON_IsArray(stop) || cJSON_GetArraySize(stop) > STOPS_MAX)
        return refuse_type(verdict, "stop", "a string or an array of at most 4 strings");
    return true;
}

/* --- tools --- */

static bool is_function_name(const char *name)
{
    size_t len = strlen(name);

    return len > 0 && len <= FUNCTION_NAME_BYTES_MAX &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == len;
}

static bool check_tools(const cJSON *tools, struct sim_request *request, struct verdict *verdict)
{
    const cJSON *tool;
    size_t i = 0;

    if (!rules_is_absent(tools) && !cJSON_IsArray(tools))
        return refuse_type(verdict, "tools", "an array of objects");
    cJSON_ArrayForEach(tool, tools)
    {
        const char *type = json_string(tool, "type");
        const cJSON *function = json_get(tool, "function");
        const cJSON *parameters = json_get(function, "parameters");
        const char *name = json_string(function, "name");
        char param[VERDICT_PARAM_BYTES];

        snprintf(param, sizeof(param), "tools[%zu].function.name", i++);
        if (type == NULL || strcmp(type, "function") != 0)
            return refuse(verdict, "invalid_value", "tools",
                          "Invalid value: '%.64s'. Supported values are: 'function'.",
                          type == NULL ? "" : type);
        if (name == NULL)
            return refuse(verdict, "missing_required_parameter", param,
                          "Missing required parameter: '%s'.", param);
        if (!is_function_name(name))
            return refuse(verdict, "invalid_value", param,
                          "Invalid '%s': string does not match pattern. Expected a string that "
                          "matches the pattern '^[a-zA-Z0-9_-]+$'.",
                          param);
        if (!rules_is_absent(parameters) && !cJSON_IsObject(parameters))
            return refuse_type(verdict, "tools", "an object as parameters");
        translate_function(request, name, cJSON_IsObject(parameters) ? parameters : NULL);
    }
    return true;
}

static bool is_offered(const cJSON *tools, const char *name)
{
    const cJSON *tool;

    cJSON_ArrayForEach(tool, tools)
    {
        if (strcmp(json_string(json_get(tool, "function"), "name"), name) == 0)
            return true;
    }
    return false;
}

static bool check_choice(const cJSON *choice, const cJSON *tools, struct sim_request *request,
                         struct verdict *verdict)
{
    bool has_tools = cJSON_IsArray(tools) && tools->child != NULL;
    const char *word = cJSON_IsString(choice) ? choice->valuestring : NULL;

    request->calls_allowed = has_tools;
    if (rules_is_absent(choice))
        return true;
    if (!has_tools)
        return refuse(verdict, NULL, "tool_choice",
                      "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' "
                      "are specified.");
    if (word != NULL) {
        request->calls_allowed = strcmp(word, "none") != 0;
        request->must_call = strcmp(word, "required") == 0;
        if (strcmp(word, "auto") == 0 || request->must_call || !request->calls_allowed)
            return true;
    } else {
        request->forced = json_string(json_get(choice, "function"), "name");
        if (request->forced != NULL && is_offered(tools, request->forced))
            return true;
    }
    return refuse(verdict, "invalid_value", "tool_choice",
                  "Invalid value: '%.64s'. Supported values are: 'none', 'auto', 'required', and "
                  "a function of 'tools'.",
                  word != NULL              ? word
                  : request->forced != NULL ? request->forced
                                            : "");
}

/* --- messages --- */

static bool find_role(const cJSON *message, enum role *role)
{
    const char *name = json_string(message, "role");

    for (size_t i = 0; name != NULL && i < sizeof(roles) / sizeof(roles[0]); i++) {
        if (strcmp(roles[i].name, name) == 0) {
            *role = roles[i].role;
            return true;
        }
    }
    return false;
}

static bool is_part(const cJSON *part)
{
    const char *type = json_string(part, "type");

    for (size_t i = 0; type != NULL && i < sizeof(parts) / sizeof(parts[0]); i++) {
        const cJSON *member = json_get(part, parts[i].member);

        if (strcmp(parts[i].type, type) == 0)
            return parts[i].is_text ? cJSON_IsString(member) : cJSON_IsObject(member);
    }
    return false;
}

static bool is_content(const cJSON *content)
{
    const cJSON *part;

    if (cJSON_IsString(content))
        return true;
    cJSON_ArrayForEach(part, content)
    {
        if (!is_part(part))
            return false;
    }
    return cJSON_IsArray(content) && content->child != NULL;
}

static bool is_tool_call(const cJSON *call)
{
    const cJSON *function = json_get(call, "function");
    const char *type = json_string(call, "type");

    return json_string(call, "id") != NULL && type != NULL && strcmp(type, "function") == 0 &&
           json_string(function, "name") != NULL && json_string(function, "arguments") != NULL;
}

static bool check_message(const cJSON *message, size_t index, enum role *role,
                          struct verdict *verdict)
{
    const cJSON *calls = json_get(message, "tool_calls");
    const cJSON *content = json_get(message, "content");
    const cJSON *call;
    char param[VERDICT_PARAM_BYTES];

    snprintf(param, sizeof(param), "messages.[%zu].role", index);
    if (!find_role(message, role))
        return refuse(verdict, "invalid_value", param,
                      "Invalid value: '%.64s'. Supported values are: 'system', 'assistant', "
                      "'user', 'tool', and 'developer'.",
                      json_string(message, "role") == NULL ? "" : json_string(message, "role"));
    snprintf(param, sizeof(param), "messages.[%zu].tool_calls", index);
    if (!rules_is_absent(calls) &&
        (*role != ROLE_ASSISTANT || !cJSON_IsArray(calls) || calls->child == NULL))
        return refuse(verdict, "invalid_value", param,
                      "Invalid '%s': a list with calls of an "
                      "assistant is expected.",
                      param);
    cJSON_ArrayForEach(call, calls)
    {
        if (!is_tool_call(call))
            return refuse(verdict, "missing_required_parameter", param,
                          "Missing required parameter: '%s[].id', type, function.name or "
                          "function.arguments.",
                          param);
    }
    snprintf(param, sizeof(param), "messages.[%zu].content", index);
    if (!is_content(content) && (!rules_is_absent(content) || rules_is_absent(calls)))
        return refuse(verdict, NULL, param,
                      "Invalid value for 'content': expected a string or an array of parts, got "
                      "%s.",
                      rules_is_absent(content) ? "null" : "something else");
    return true;
}

static const cJSON *call_by_id(const cJSON *calls, const char *id)
{
    const cJSON *call;

    cJSON_ArrayForEach(call, calls)
    {
        if (strcmp(json_string(call, "id"), id) == 0)
            return call;
    }
    return NULL;
}

/* Whether one of the tool messages that begin at message answers the call. */
static bool is_answered(const cJSON *message, const char *id)
{
    enum role role;

    for (; message != NULL; message = message->next) {
        const char *answered = json_string(message, "tool_call_id");

        if (!find_role(message, &role) || role != ROLE_FUNCTION)
            break;
        if (answered != NULL && strcmp(answered, id) == 0)
            return true;
    }
    return false;
}

/* Every result follows its call, every call has its result. calls: of the assistant's turn that is
 * still being answered. */
static bool check_turn(const cJSON *message, size_t index, enum role role, const cJSON **calls,
                       struct verdict *verdict)
{
    const char *id = json_string(message, "tool_call_id");
    const cJSON *call;
    char param[VERDICT_PARAM_BYTES];

    if (role == ROLE_FUNCTION) {
        snprintf(param, sizeof(param), "messages.[%zu].tool_call_id", index);
        if (id == NULL)
            return refuse(verdict, "missing_required_parameter", param,
                          "Missing required parameter: '%s'.", param);
        snprintf(param, sizeof(param), "messages.[%zu].role", index);
        if (call_by_id(*calls, id) == NULL)
            return refuse(verdict, NULL, param,
                          "Invalid parameter: messages with role 'tool' must be a response to a "
                          "preceeding message with 'tool_calls'.");
        return true;
    }
    *calls = role == ROLE_ASSISTANT ? json_get(message, "tool_calls") : NULL;
    snprintf(param, sizeof(param), "messages.[%zu].role", index + 1);
    cJSON_ArrayForEach(call, *calls)
    {
        if (!is_answered(message->next, json_string(call, "id")))
            return refuse(verdict, NULL, param,
                          "An assistant message with 'tool_calls' must be followed by tool "
                          "messages responding to each 'tool_call_id'. The following "
                          "tool_call_ids did not have response messages: %.64s",
                          json_string(call, "id"));
    }
    return true;
}

static bool check_messages(const cJSON *messages, struct sim_request *request,
                           struct verdict *verdict)
{
    const cJSON *calls = NULL;
    const cJSON *message;
    size_t index = 0;

    cJSON_ArrayForEach(message, messages)
    {
        enum role role = ROLE_UNKNOWN;

        if (!check_message(message, index, &role, verdict) ||
            !check_turn(message, index, role, &calls, verdict))
            return false;
        translate_content(request, role, json_get(message, "content"));
        index++;
    }
    translate_end(request);
    return true;
}

/* --- the rest --- */

static bool check_format(const cJSON *format, struct sim_request *request, struct verdict *verdict)
{
    const char *type = json_string(format, "type");
    const cJSON *schema = json_get(format, "json_schema");

    if (rules_is_absent(format) || (type != NULL && strcmp(type, "text") == 0))
        return true;
    if (type != NULL && strcmp(type, "json_object") == 0) {
        translate_any_object(request);
        return true;
    }
    if (type == NULL || strcmp(type, "json_schema") != 0)
        return refuse(verdict, "invalid_value", "response_format.type",
                      "Invalid value: '%.64s'. Supported values are: 'json_object', "
                      "'json_schema', and 'text'.",
                      type == NULL ? "" : type);
    request->schema = json_get(schema, "schema");
    if (json_string(schema, "name") == NULL || !cJSON_IsObject(request->schema))
        return refuse(verdict, "missing_required_parameter", "response_format.json_schema",
                      "Missing required parameter: 'response_format.json_schema'.");
    return true;
}

static bool check_model(const struct sim_config *config, struct sim_request *request,
                        struct verdict *verdict)
{
    if (!rules_find_model(config, DIALECT_OPENAI, request))
        return verdict_refuse(verdict, 404,
                              "The model `%.64s` does not exist or you do not have access to it.",
                              request->model);
    if (!rules_is_absent(json_get(request->root, "tools")) && request->entry != NULL &&
        !request->entry->has_functions)
        return refuse(verdict, "unsupported_parameter", "tools",
                      "Unsupported parameter: 'tools' is not supported with this model.");
    return true;
}

static bool check_client(const struct sim_client *client, const struct sim_request *request,
                         struct verdict *verdict)
{
    switch (rules_client_limit(client, request)) {
    case LIMIT_BALANCE:
        verdict_refuse(verdict, 429,
                       "You exceeded your current quota, please check your plan and billing "
                       "details.");
        verdict->code = "insufficient_quota";
        return false;
    case LIMIT_CONCURRENT:
        return verdict_refuse(verdict, 429, OPENAI_OVERRUN_TEXT);
    case LIMIT_NONE:
        break;
    }
    return true;
}

static bool check_numbers(const cJSON *root, struct verdict *verdict)
{
    const struct range *range = rules_out_of_range(root, ranges, RANGE_COUNT);

    if (range == NULL)
        return true;
    return refuse(verdict, "invalid_value", range->name,
                  "Invalid '%s': %g is outside of the range of %s.", range->name,
                  json_get(root, range->name)->valuedouble, range->text);
}

static bool check_context(const struct sim_request *request, struct verdict *verdict)
{
    if (request->entry == NULL || request->prompt_tokens <= request->entry->context_tokens)
        return true;
    return refuse(verdict, "context_length_exceeded", "messages",
                  "This model's maximum context length is %u tokens. However, your messages "
                  "resulted in %llu tokens. Please reduce the length of the messages.",
                  request->entry->context_tokens, (unsigned long long)request->prompt_tokens);
}

static void fill(struct sim_request *out)
{
    const cJSON *root = out->root;
    const cJSON *options = json_get(root, "stream_options");
    int64_t choices = 1;

    out->stream = cJSON_IsTrue(json_get(root, "stream"));
    out->includes_usage = cJSON_IsTrue(json_get(options, "include_usage"));
    out->one_call = cJSON_IsFalse(json_get(root, "parallel_tool_calls"));
    out->separates_thinking = true;
    out->cache_key = json_string(root, "prompt_cache_key");
    out->stops = json_get(root, "stop");
    if (rules_is_absent(out->stops))
        out->stops = NULL;
    if (json_get_i64(root, "max_completion_tokens", &out->max_tokens) < 0)
        json_get_i64(root, "max_tokens", &out->max_tokens);
    if (json_get_i64(root, "n", &choices) == 0)
        out->choices = (uint32_t)choices;
}

static bool check_body(const struct sim_config *config, const struct caller *caller,
                       struct sim_request *out, struct verdict *verdict)
{
    const cJSON *root = out->root;
    const cJSON *tools = json_get(root, "tools");

    if (!check_shape(root, verdict) || !check_stop(json_get(root, "stop"), verdict))
        return false;
    out->model = json_string(root, "model");
    if (!check_model(config, out, verdict) || !check_client(caller->client, out, verdict) ||
        !check_numbers(root, verdict) || !check_tools(tools, out, verdict) ||
        !check_choice(json_get(root, "tool_choice"), tools, out, verdict) ||
        !check_messages(json_get(root, "messages"), out, verdict) ||
        !check_format(json_get(root, "response_format"), out, verdict) ||
        !check_context(out, verdict))
        return false;
    fill(out);
    return !out->is_incomplete || verdict_refuse(verdict, 500, "out of memory");
}

bool openai_check_chat(const struct sim_config *config, const struct caller *caller,
                       const char *body, size_t len, struct sim_request *out,
                       struct verdict *verdict)
{
    cJSON *root;

    *out = (struct sim_request){0};
    *verdict = (struct verdict){0};
    if (caller->token != TOKEN_VALID)
        return verdict_refuse(verdict, 401, OPENAI_UNAUTHORIZED_TEXT);
    root = caller->has_json_type ? json_parse(body, len, &JSON_LIMITS_DEFAULT, NULL, NULL) : NULL;
    if (root == NULL)
        return refuse(verdict, NULL, "",
                      "We could not parse the JSON body of your request. (HINT: This likely means "
                      "you aren't using your HTTP library correctly. The OpenAI API expects a JSON "
                      "payload, but what was sent was not valid JSON.)");
    translate_begin(out, root);
    if (check_body(config, caller, out, verdict))
        return true;
    sim_request_clear(out);
    return false;
}
