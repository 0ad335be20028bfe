#include "providers/gigachat.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/log.h"

#define ARGUMENTS_MAX (4 * 1024 * 1024)
#define STATE_ID_MAX 64
#define ID_PREFIX "chatcmpl-"

void gigachat_call_init(struct gigachat_call *call)
{
    memset(call, 0, sizeof(*call));
    buf_init(&call->arguments, ARGUMENTS_MAX);
}

void gigachat_call_clear(struct gigachat_call *call)
{
    free(call->name);
    free(call->state_id);
    buf_clear(&call->arguments);
    call->name = NULL;
    call->state_id = NULL;
}

static int read_name(struct gigachat_call *call, const cJSON *name)
{
    const char *text = cJSON_GetStringValue(name);

    if (name == NULL || cJSON_IsNull(name))
        return 0;
    if (text == NULL)
        return -EBADMSG;
    if (text[0] == '\0')
        return 0;
    text = gigachat_real_function_name(text);
    if (call->name != NULL) /* v1 makes one call a message */
        return strcmp(call->name, text) == 0 ? 0 : -EBADMSG;
    call->name = strdup(text);
    return call->name == NULL ? -ENOMEM : 0;
}

/* An object comes whole, as the source's own bytes: order and numbers stay what they were. Text
 * may come in pieces. */
static int read_arguments(struct gigachat_call *call, const cJSON *arguments, const char *text,
                          size_t len, const char *path)
{
    char where[96];
    const char *slice;
    size_t slice_len;

    if (arguments == NULL || cJSON_IsNull(arguments))
        return 0;
    if (cJSON_IsString(arguments))
        return buf_str(&call->arguments, arguments->valuestring);
    snprintf(where, sizeof(where), "%s.function_call.arguments", path);
    if (!cJSON_IsObject(arguments) || json_slice(text, len, where, &slice, &slice_len) < 0)
        return -EBADMSG;
    buf_reset(&call->arguments);
    return json_minify(&call->arguments, slice, slice_len);
}

/* Theirs is a UUID; anything that would look odd as an id is left out. */
static int read_state_id(struct gigachat_call *call, const char *id)
{
    static const char letters[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-";
    size_t len = id == NULL ? 0 : strlen(id);

    if (len == 0 || len > STATE_ID_MAX || strspn(id, letters) != len || call->state_id != NULL)
        return 0;
    call->state_id = strdup(id);
    return call->state_id == NULL ? -ENOMEM : 0;
}

int gigachat_call_read(struct gigachat_call *call, const cJSON *message, const char *text,
                       size_t len, const char *path)
{
    const cJSON *function = json_get(message, "function_call");
    int rc = read_state_id(call, json_string(message, "functions_state_id"));

    if (rc < 0 || function == NULL || cJSON_IsNull(function))
        return rc;
    if (!cJSON_IsObject(function))
        return -EBADMSG;
    rc = read_name(call, json_get(function, "name"));
    if (rc == 0)
        rc = read_arguments(call, json_get(function, "arguments"), text, len, path);
    return rc == -EMSGSIZE ? -EBADMSG : rc;
}

/* The state id where there is one; else the answer's own id, which is as unique. */
static void format_id(const struct gigachat_call *call, const struct answer_identity *identity,
                      char id[GIGACHAT_CALL_ID_BYTES])
{
    const char *own = identity->id;

    if (strncmp(own, ID_PREFIX, sizeof(ID_PREFIX) - 1) == 0)
        own += sizeof(ID_PREFIX) - 1;
    snprintf(id, GIGACHAT_CALL_ID_BYTES, "call_%s", call->state_id != NULL ? call->state_id : own);
}

int gigachat_call_finish(struct gigachat_call *call, const struct answer_identity *identity,
                         char id[GIGACHAT_CALL_ID_BYTES], struct openai_call *out, struct error *e)
{
    static const char broken[] = "The model called a function with arguments that are not valid.";
    struct buf *arguments = &call->arguments;
    struct buf tidy;

    if (arguments->len == 0)
        buf_str(arguments, "{}"); /* a function without parameters */
    if (arguments->err < 0)
        return error_set(e, -ENOMEM, NULL, NULL);
    if (json_check(arguments->data, arguments->len, &JSON_LIMITS_DEFAULT, NULL, NULL) < 0)
        return error_set(e, XR_EUPSTREAM, NULL, broken);
    buf_init(&tidy, ARGUMENTS_MAX);
    if (json_minify(&tidy, arguments->data, arguments->len) < 0) {
        buf_clear(&tidy);
        return error_set(e, -ENOMEM, NULL, NULL);
    }
    buf_clear(arguments);
    *arguments = tidy;
    if (arguments->data[0] != '{')
        return error_set(e, XR_EUPSTREAM, NULL, broken);
    format_id(call, identity, id);
    out->id = id;
    out->name = call->name;
    out->arguments = arguments->data;
    out->arguments_len = arguments->len;
    return 0;
}

/* Their numbers are int32; what is not is ignored as if absent. */
static bool read_count(const cJSON *usage, const char *name, int64_t *out)
{
    int64_t value;

    if (!json_is_integer(json_get(usage, name), &value) || value < 0 || value > INT32_MAX)
        return false;
    *out = value;
    return true;
}

bool gigachat_read_usage(const struct provider_config *p, const cJSON *usage,
                         struct token_usage *out)
{
    int64_t input, output;
    int64_t cached = 0;

    if (!read_count(usage, "prompt_tokens", &input) ||
        !read_count(usage, "completion_tokens", &output))
        return false;
    if (!read_count(usage, "precached_prompt_tokens", &cached))
        cached = 0;
    if (p->cached_tokens != NULL && strcmp(p->cached_tokens, "excluded") == 0)
        input += cached;
    out->input = input;
    out->cached = cached < input ? cached : input;
    out->output = output;
    return true;
}

const char *gigachat_finish_reason(const char *reason, bool has_call, bool legacy)
{
    if (strcmp(reason, "error") == 0)
        return NULL;
    if (strcmp(reason, "length") == 0)
        return "length";
    if (strcmp(reason, "blacklist") == 0)
        return "content_filter";
    if (strcmp(reason, "stop") != 0 && strcmp(reason, "function_call") != 0)
        log_event(LOG_INFO, "unknown_finish_reason", "",
                  "gigachat: unknown finish_reason \"%.40s\" taken for \"stop\"", reason);
    if (!has_call)
        return "stop";
    return legacy ? "function_call" : "tool_calls";
}

int gigachat_check_error(const cJSON *root, struct error *e)
{
    const cJSON *nested = json_get(root, "error");
    const cJSON *error = cJSON_IsObject(nested) ? nested : root;
    const char *message = json_string(error, "message");
    int64_t status;

    if (json_get(root, "choices") != NULL || (message == NULL && nested == NULL))
        return 0;
    if (json_get_i64(error, "status", &status) < 0 && json_get_i64(error, "code", &status) < 0)
        status = 500;
    if (status < 300 || status > 599)
        status = 500;
    return gigachat_set_error((unsigned)status, message, e);
}
