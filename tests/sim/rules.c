#include "tests/sim/rules.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "tests/sim/scenario.h"

#define CODE_POINTS_PER_TOKEN 3
#define SYNTAX_TEXT "Your request contains invalid JSON syntax."

static const char *const role_names[] = {
    [ROLE_SYSTEM] = "system",
    [ROLE_USER] = "user",
    [ROLE_ASSISTANT] = "assistant",
    [ROLE_FUNCTION] = "function",
};

/* Functions that GigaChat itself runs: they may be forced without being listed. */
static const char *const builtin_functions[] = {"text2image", "text2model3d"};

static const struct range ranges[] = {
    {"temperature", 0, INFINITY, true, false, "(0, +inf)"},
    {"top_p", 0, 1, false, false, "[0, 1]"},
    {"max_tokens", 0, INFINITY, true, true, "(0, +inf)"},
    {"repetition_penalty", 0, INFINITY, true, false, "(0, +inf)"},
    {"update_interval", 0, INFINITY, false, false, "[0, +inf)"},
};
#define RANGE_COUNT (sizeof(ranges) / sizeof(ranges[0]))

static bool refuse_syntax(struct verdict *verdict)
{
    return verdict_refuse(verdict, 400, SYNTAX_TEXT);
}

/* --- 4: shapes --- */

static bool is_call(const cJSON *call)
{
    return cJSON_IsObject(call) && json_string(call, "name") != NULL &&
           cJSON_IsObject(json_get(call, "arguments"));
}

static bool is_text_list(const cJSON *list)
{
    const cJSON *item;

    cJSON_ArrayForEach(item, list)
    {
        if (!cJSON_IsString(item))
            return false;
    }
    return cJSON_IsArray(list);
}

static bool is_message(const cJSON *message)
{
    const cJSON *call = json_get(message, "function_call");
    const cJSON *attachments = json_get(message, "attachments");
    const cJSON *state = json_get(message, "functions_state_id");

    return cJSON_IsObject(message) && role_of(message) != ROLE_UNKNOWN &&
           json_string(message, "content") != NULL && (rules_is_absent(call) || is_call(call)) &&
           (rules_is_absent(attachments) || is_text_list(attachments)) &&
           (rules_is_absent(state) || cJSON_IsString(state));
}

static bool is_function(const cJSON *function)
{
    const cJSON *description = json_get(function, "description");
    const cJSON *examples = json_get(function, "few_shot_examples");

    return cJSON_IsObject(function) && json_string(function, "name") != NULL &&
           cJSON_IsObject(json_get(function, "parameters")) &&
           (rules_is_absent(description) || cJSON_IsString(description)) &&
           (rules_is_absent(examples) || cJSON_IsArray(examples));
}

static bool is_function_choice(const cJSON *choice)
{
    if (cJSON_IsString(choice))
        return strcmp(choice->valuestring, "auto") == 0 || strcmp(choice->valuestring, "none") == 0;
    return cJSON_IsObject(choice) && json_string(choice, "name") != NULL;
}

static bool is_list_of(const cJSON *list, bool (*check)(const cJSON *item))
{
    const cJSON *item;

    cJSON_ArrayForEach(item, list)
    {
        if (!check(item))
            return false;
    }
    return cJSON_IsArray(list);
}

static bool has_number_shapes(const cJSON *root)
{
    for (size_t i = 0; i < RANGE_COUNT; i++) {
        const cJSON *item = json_get(root, ranges[i].name);

        if (!rules_is_absent(item) && !cJSON_IsNumber(item))
            return false;
    }
    return true;
}

static bool has_shape(const cJSON *root)
{
    const cJSON *messages = json_get(root, "messages");
    const cJSON *functions = json_get(root, "functions");
    const cJSON *choice = json_get(root, "function_call");
    const cJSON *format = json_get(root, "response_format");
    const cJSON *stream = json_get(root, "stream");

    return cJSON_IsObject(root) && json_string(root, "model") != NULL &&
           is_list_of(messages, is_message) && messages->child != NULL &&
           (rules_is_absent(stream) || cJSON_IsBool(stream)) &&
           (rules_is_absent(functions) || is_list_of(functions, is_function)) &&
           (rules_is_absent(choice) || is_function_choice(choice)) &&
           (rules_is_absent(format) ||
            (cJSON_IsObject(format) && json_string(format, "type") != NULL)) &&
           has_number_shapes(root);
}

static void fill(struct sim_request *out, cJSON *root)
{
    const cJSON *choice = json_get(root, "function_call");
    const cJSON *message;
    bool none = cJSON_IsString(choice) && strcmp(choice->valuestring, "none") == 0;

    *out = (struct sim_request){.root = root, .last_user = "", .choices = 1};
    out->model = json_string(root, "model");
    out->messages = json_get(root, "messages");
    out->functions = json_get(root, "functions");
    if (rules_is_absent(out->functions) || out->functions->child == NULL)
        out->functions = NULL;
    if (cJSON_IsObject(choice))
        out->forced = json_string(choice, "name");
    out->calls_allowed = out->functions != NULL && !none;
    out->stream = cJSON_IsTrue(json_get(root, "stream"));
    json_get_i64(root, "max_tokens", &out->max_tokens);
    if (cJSON_IsNumber(json_get(root, "update_interval")))
        out->update_interval = json_get(root, "update_interval")->valuedouble;
    cJSON_ArrayForEach(message, out->messages)
    {
        if (role_of(message) == ROLE_USER)
            out->last_user = json_string(message, "content");
        out->last = message;
    }
}

/* --- 8: message rules --- */

/* Only calls carry a state id here, so an id stands for its call. */
static bool owes_result(const cJSON *message)
{
    return message != NULL && role_of(message) == ROLE_ASSISTANT &&
           (!rules_is_absent(json_get(message, "function_call")) ||
            !rules_is_absent(json_get(message, "functions_state_id")));
}

static bool check_order(const struct sim_request *request, struct verdict *verdict)
{
    static const char no_result[] =
        "Invalid params: every assistant function call must have a result in history";
    const cJSON *previous = NULL;
    const cJSON *message;

    cJSON_ArrayForEach(message, request->messages)
    {
        enum role role = role_of(message);

        if (role == ROLE_SYSTEM && previous != NULL)
            return verdict_refuse(verdict, 422,
                                  "Invalid params: system message must be the first message");
        if (owes_result(previous) && role != ROLE_FUNCTION)
            return verdict_refuse(verdict, 422, "%s", no_result);
        if (role == ROLE_FUNCTION && !owes_result(previous))
            return verdict_refuse(
                verdict, 422,
                "Invalid params: every assistant function result must have an assistant "
                "function call in history");
        previous = message;
    }
    return owes_result(request->last) ? verdict_refuse(verdict, 422, "%s", no_result) : true;
}

static bool check_results(const struct sim_request *request, struct verdict *verdict)
{
    const cJSON *message;

    cJSON_ArrayForEach(message, request->messages)
    {
        const char *content = json_string(message, "content");
        const char *name = json_string(message, "name");

        if (role_of(message) == ROLE_FUNCTION &&
            json_check(content, strlen(content), &JSON_LIMITS_DEFAULT, NULL, NULL) < 0)
            return verdict_refuse(
                verdict, 422,
                "invalid function result for function %.64s json string %.128s, error: "
                "JSON parse error at line 1 column 1",
                name == NULL ? "" : name, content);
    }
    return true;
}

static bool is_function_name(const char *name)
{
    if (*name == '\0' || (*name >= '0' && *name <= '9'))
        return false;
    for (; *name != '\0'; name++) {
        bool letter = (*name >= 'a' && *name <= 'z') || (*name >= 'A' && *name <= 'Z');

        if (!letter && !(*name >= '0' && *name <= '9') && strchr("_-.", *name) == NULL)
            return false;
    }
    return true;
}

static bool is_listed(const struct sim_request *request, const char *name)
{
    const cJSON *function;

    for (size_t i = 0; i < sizeof(builtin_functions) / sizeof(builtin_functions[0]); i++) {
        if (request->functions == NULL && strcmp(builtin_functions[i], name) == 0)
            return true;
    }
    cJSON_ArrayForEach(function, request->functions)
    {
        if (strcmp(json_string(function, "name"), name) == 0)
            return true;
    }
    return false;
}

static bool has_state_id(const struct sim_request *request)
{
    const cJSON *message;

    cJSON_ArrayForEach(message, request->messages)
    {
        if (!rules_is_absent(json_get(message, "functions_state_id")))
            return true;
    }
    return false;
}

static bool check_functions(const struct sim_request *request, struct verdict *verdict)
{
    enum role last = role_of(request->last);
    bool asks = last == ROLE_USER || last == ROLE_FUNCTION;
    const cJSON *function;

    if (request->functions != NULL && !asks && has_state_id(request))
        return verdict_refuse(
            verdict, 422,
            "functions or thinking_functions should only appeal in user, function "
            "messages or random role messages");
    if (request->forced != NULL && !asks)
        return verdict_refuse(
            verdict, 422,
            "explicit_call should only appeal in user, function messages or random role "
            "messages");
    cJSON_ArrayForEach(function, request->functions)
    {
        if (!is_function_name(json_string(function, "name")))
            return verdict_refuse(
                verdict, 422,
                "Invalid params: Invalid function names. Only Latin letters (A-Z or "
                "a-z), underscore (_), hyphen (-), dot (.) and digits (not leading) are "
                "allowed.: [%.100s]",
                json_string(function, "name"));
    }
    if (request->functions != NULL && request->entry != NULL && !request->entry->has_functions)
        return verdict_refuse(verdict, 422, "Requested model does not support functions");
    if (request->forced != NULL && !is_listed(request, request->forced))
        return verdict_refuse(verdict, 422, "Invalid params: function %.100s is not in functions",
                              request->forced);
    return true;
}

static bool check_numbers(const struct sim_request *request, struct verdict *verdict)
{
    const struct range *range = rules_out_of_range(request->root, ranges, RANGE_COUNT);

    if (range == NULL)
        return true;
    return verdict_refuse(verdict, 422, "Invalid params: %s must be in range %s", range->name,
                          range->text);
}

/* --- 9: response_format --- */

static bool check_format(struct sim_request *request, struct verdict *verdict)
{
    const cJSON *format = json_get(request->root, "response_format");
    const char *type;

    if (rules_is_absent(format))
        return true;
    type = json_string(format, "type");
    if (strcmp(type, "text") == 0)
        return true;
    if (strcmp(type, "json_schema") != 0)
        return verdict_refuse(verdict, 400, "Unknown type \"%.64s\" in response_format", type);
    request->schema = json_get(format, "schema");
    if (!cJSON_IsObject(request->schema))
        return verdict_refuse(verdict, 400, "Empty schema with json format type is not supported");
    return true;
}

static bool check_model(const struct sim_config *config, struct sim_request *request,
                        struct verdict *verdict)
{
    return rules_find_model(config, DIALECT_GIGACHAT, request) ||
           verdict_refuse(verdict, 404, "No such model");
}

static bool check_client(const struct sim_client *client, const struct sim_request *request,
                         struct verdict *verdict)
{
    switch (rules_client_limit(client, request)) {
    case LIMIT_BALANCE:
        return verdict_refuse(verdict, 402, "Payment Required");
    case LIMIT_CONCURRENT:
        return verdict_refuse(verdict, 429, "Too many requests");
    case LIMIT_NONE:
        break;
    }
    return true;
}

static bool check_context(const struct sim_request *request, struct verdict *verdict)
{
    if (request->entry != NULL && request->prompt_tokens > request->entry->context_tokens)
        return verdict_refuse(verdict, 413, "Payload too large");
    return true;
}

bool verdict_refuse(struct verdict *verdict, int status, const char *format, ...)
{
    va_list args;

    *verdict = (struct verdict){.status = status};
    va_start(args, format);
    vsnprintf(verdict->message, sizeof(verdict->message), format, args);
    va_end(args);
    return false;
}

bool rules_is_absent(const cJSON *item)
{
    return item == NULL || cJSON_IsNull(item);
}

bool rules_find_model(const struct sim_config *config, enum dialect_id dialect,
                      struct sim_request *request)
{
    static const char prefix[] = SCENARIO_MODEL_PREFIX;

    if (strncmp(request->model, prefix, sizeof(prefix) - 1) == 0)
        return true;
    request->entry = sim_config_model(config, dialect, request->model);
    return request->entry != NULL && request->entry->type == MODEL_CHAT;
}

enum client_limit rules_client_limit(const struct sim_client *client,
                                     const struct sim_request *request)
{
    const struct sim_balance *balance = sim_client_balance(client, request->model);

    if (balance != NULL && balance->tokens <= 0)
        return LIMIT_BALANCE;
    if (client->max_concurrent > 0 && client->in_flight >= client->max_concurrent)
        return LIMIT_CONCURRENT;
    return LIMIT_NONE;
}

const struct range *rules_out_of_range(const cJSON *root, const struct range *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct range *range = &list[i];
        const cJSON *item = json_get(root, range->name);
        double value;

        if (rules_is_absent(item))
            continue;
        value = item->valuedouble;
        if (value < range->min || value > range->max || (range->open && value <= range->min) ||
            (range->whole && value != floor(value)))
            return range;
    }
    return NULL;
}

uint64_t count_code_points(const char *text, size_t len)
{
    uint64_t count = 0;

    for (size_t i = 0; i < len; i++)
        count += ((unsigned char)text[i] & 0xc0) != 0x80;
    return count;
}

uint64_t count_tokens(uint64_t code_points)
{
    return (code_points + CODE_POINTS_PER_TOKEN - 1) / CODE_POINTS_PER_TOKEN;
}

uint64_t count_prompt_tokens(const cJSON *messages)
{
    const cJSON *message;
    uint64_t sum = 0;

    cJSON_ArrayForEach(message, messages)
    {
        const char *content = json_string(message, "content");

        if (content != NULL)
            sum += count_tokens(count_code_points(content, strlen(content)));
    }
    return sum;
}

const char *role_name(enum role role)
{
    return role_names[role];
}

enum role role_of(const cJSON *message)
{
    const char *name = json_string(message, "role");

    for (unsigned role = 0; name != NULL && role < ROLE_UNKNOWN; role++) {
        /* Each role has its own first letter, and this is asked several times a message. */
        if (role_names[role][0] == name[0])
            return strcmp(role_names[role], name) == 0 ? (enum role)role : ROLE_UNKNOWN;
    }
    return ROLE_UNKNOWN;
}

bool rules_admit(const struct sim_config *config, const struct caller *caller,
                 struct verdict *verdict)
{
    *verdict = (struct verdict){0};
    if (config->require_user_agent && !caller->has_user_agent)
        return verdict_refuse(verdict, 403, "Unauthorized");
    if (caller->token == TOKEN_EXPIRED)
        return verdict_refuse(verdict, 401, "Token has expired");
    if (caller->token == TOKEN_UNKNOWN)
        return verdict_refuse(verdict, 401, "Unauthorized");
    return true;
}

bool rules_check_chat(const struct sim_config *config, const struct caller *caller,
                      const char *body, size_t len, struct sim_request *out,
                      struct verdict *verdict)
{
    cJSON *root;

    *out = (struct sim_request){0};
    if (!rules_admit(config, caller, verdict))
        return false;
    if (!caller->has_json_type)
        return refuse_syntax(verdict);
    root = json_parse(body, len, &JSON_LIMITS_DEFAULT, NULL, NULL);
    if (root == NULL)
        return refuse_syntax(verdict);
    out->root = root;
    if (!has_shape(root)) {
        refuse_syntax(verdict);
    } else {
        fill(out, root);
        out->prompt_tokens = count_prompt_tokens(out->messages);
        if (check_model(config, out, verdict) && check_client(caller->client, out, verdict) &&
            check_order(out, verdict) && check_results(out, verdict) &&
            check_functions(out, verdict) && check_numbers(out, verdict) &&
            check_format(out, verdict) && check_context(out, verdict))
            return true;
    }
    sim_request_clear(out);
    return false;
}

void sim_request_clear(struct sim_request *request)
{
    cJSON_Delete(request->tree); /* first: it borrows from root */
    cJSON_Delete(request->root);
    *request = (struct sim_request){0};
}
