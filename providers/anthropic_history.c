/* The conversation so far. The API knows two roles, whose messages are lists of blocks; the results
 * of an answer's calls open the user's message behind it. */
#include "providers/anthropic.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define PARAM_BYTES 96
#define BLANKS " \t\r\n"

struct history {
    struct buf *out;
    struct error *e;
    struct anthropic_ids ids;
    const char *role;       /* of the message being written; NULL = none is open */
    const cJSON *assistant; /* whose calls are being answered, and where it stands; NULL = nobody */
    size_t assistant_index;
};

bool anthropic_is_blank(const char *text)
{
    return text[strspn(text, BLANKS)] == '\0';
}

/* A message begins with its first block, so there are none without. */
static void begin_block(struct history *h, const char *role)
{
    if (h->role != NULL && strcmp(h->role, role) == 0) {
        buf_byte(h->out, ',');
        return;
    }
    buf_str(h->out, h->role == NULL ? "{\"role\":\"" : "]},{\"role\":\"");
    buf_str(h->out, role);
    buf_str(h->out, "\",\"content\":[");
    h->role = role;
}

/* part is where a mark of the prompt cache may be, NULL = nowhere. */
static void put_text(struct buf *out, const char *text, size_t len, const cJSON *part)
{
    const cJSON *control = json_get(part, "cache_control");

    buf_str(out, "{\"type\":\"text\",\"text\":");
    json_put_string(out, text, len);
    if (cJSON_IsObject(control)) {
        json_put_key(out, "cache_control");
        json_put_tree(out, control);
    }
    buf_byte(out, '}');
}

static void add_text(struct history *h, const char *role, const char *text, const cJSON *part)
{
    if (anthropic_is_blank(text))
        return;
    begin_block(h, role);
    put_text(h->out, text, strlen(text), part);
}

static int add_part(struct history *h, const char *role, const cJSON *part, const char *param)
{
    const char *text = json_string(part, json_string(part, "type"));

    if (text != NULL) {
        add_text(h, role, text, part);
        return 0;
    }
    begin_block(h, role);
    return anthropic_put_media(part, param, h->out, h->e);
}

static int add_content(struct history *h, const char *role, const cJSON *message, size_t index)
{
    const cJSON *content = json_get(message, "content");
    const char *refusal = json_string(message, "refusal");
    const cJSON *part;
    size_t at = 0;

    if (cJSON_IsString(content))
        add_text(h, role, content->valuestring, NULL);
    else if (!cJSON_IsArray(content) && refusal != NULL)
        add_text(h, role, refusal, NULL);
    cJSON_ArrayForEach(part, content)
    {
        char param[PARAM_BYTES];
        int rc;

        snprintf(param, sizeof(param), "messages[%zu].content[%zu]", index, at++);
        rc = add_part(h, role, part, param);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* The text that the answer shall go on with: the API refuses white space at its end. */
static void add_last_words(struct history *h, const cJSON *message)
{
    const cJSON *content = json_get(message, "content");
    const cJSON *last = content;
    const cJSON *part;
    const char *text;
    size_t len;

    if (cJSON_IsArray(content)) {
        for (part = last = content->child; part != NULL; part = part->next) {
            text = json_string(part, json_string(part, "type"));
            if (text != NULL && !anthropic_is_blank(text))
                last = part;
        }
        for (part = content->child; part != last; part = part->next)
            add_text(h, "assistant", json_string(part, json_string(part, "type")), part);
        text = json_string(last, json_string(last, "type"));
    } else {
        text = cJSON_IsString(content) ? content->valuestring : json_string(message, "refusal");
    }
    if (text == NULL || anthropic_is_blank(text))
        return;
    for (len = strlen(text); strchr(BLANKS, text[len - 1]) != NULL;)
        len--;
    begin_block(h, "assistant");
    put_text(h->out, text, len, cJSON_IsArray(content) ? last : NULL);
}

static bool is_object_text(const char *text)
{
    return text[strspn(text, BLANKS)] == '{';
}

/* The arguments of a call, which OpenAI keeps as text and this API as an object. */
static int put_arguments(struct history *h, const char *text, const char *param)
{
    size_t len = strlen(text);
    const char *why = "it is no object";

    if (len == 0) { /* how models call a function without parameters */
        buf_str(h->out, "{}");
        return 0;
    }
    if (json_check(text, len, &JSON_LIMITS_DEFAULT, NULL, &why) < 0 || !is_object_text(text))
        return error_set(h->e, XR_EINVALID, param,
                         "'%s': expected the text of a JSON object, but %s.", param, why);
    json_minify(h->out, text, len);
    return 0;
}

/* function is the object with name and arguments. */
static int add_call(struct history *h, const cJSON *function, const char *id, size_t index,
                    size_t call, const char *param)
{
    int rc;

    begin_block(h, "assistant");
    buf_str(h->out, "{\"type\":\"tool_use\",\"id\":");
    anthropic_put_call_id(&h->ids, h->out, id, index, call);
    buf_str(h->out, ",\"name\":");
    anthropic_put_function_name(h->out, json_string(function, "name"));
    buf_str(h->out, ",\"input\":");
    rc = put_arguments(h, json_string(function, "arguments"), param);
    buf_byte(h->out, '}');
    return rc;
}

static int add_calls(struct history *h, const cJSON *message, size_t index)
{
    const cJSON *legacy = json_get(message, "function_call");
    const cJSON *call;
    char param[PARAM_BYTES];
    size_t at = 0;

    if (cJSON_IsObject(legacy)) {
        snprintf(param, sizeof(param), "messages[%zu].function_call.arguments", index);
        return add_call(h, legacy, NULL, index, 0, param);
    }
    cJSON_ArrayForEach(call, anthropic_calls(message))
    {
        const cJSON *function = json_get(call, "function");
        int rc;

        if (!cJSON_IsObject(function))
            return anthropic_unsupported(h->e, "messages", "it knows no calls of custom tools");
        snprintf(param, sizeof(param), "messages[%zu].tool_calls[%zu].function.arguments", index,
                 at);
        rc = add_call(h, function, json_string(call, "id"), index, at++, param);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static bool has_calls(const cJSON *message)
{
    const cJSON *calls = anthropic_calls(message);

    return (calls != NULL && calls->child != NULL) ||
           cJSON_IsObject(json_get(message, "function_call"));
}

static int add_assistant(struct history *h, const cJSON *message, size_t index)
{
    int rc;

    if (message->next == NULL) { /* it has no calls: their results would follow */
        add_last_words(h, message);
        return 0;
    }
    rc = add_content(h, "assistant", message, index);
    if (rc < 0 || !has_calls(message))
        return rc;
    h->assistant = message;
    h->assistant_index = index;
    return add_calls(h, message, index);
}

/* Which call of the assistant's message the result answers. Of calls with the same id each has a
 * result of its own, in order. */
static size_t find_call(const struct history *h, const cJSON *result, const char *id)
{
    const cJSON *call;
    size_t nth = 0;
    size_t at = 0;

    for (const cJSON *m = h->assistant->next; m != result; m = m->next)
        nth += strcmp(json_string(m, "tool_call_id"), id) == 0;
    cJSON_ArrayForEach(call, anthropic_calls(h->assistant))
    {
        if (strcmp(json_string(call, "id"), id) == 0 && nth-- == 0)
            break;
        at++;
    }
    return at;
}

static void put_result_parts(struct history *h, const cJSON *parts)
{
    const cJSON *part;
    bool any = false;

    cJSON_ArrayForEach(part, parts)
    {
        const char *text = json_string(part, "text");

        if (anthropic_is_blank(text))
            continue;
        buf_str(h->out, any ? "," : ",\"content\":[");
        put_text(h->out, text, strlen(text), part);
        any = true;
    }
    if (any)
        buf_byte(h->out, ']');
}

static int add_result(struct history *h, const cJSON *message, size_t index)
{
    const cJSON *content = json_get(message, "content");
    const char *id = json_string(message, "tool_call_id");
    char param[PARAM_BYTES];

    if (h->assistant == NULL) {
        snprintf(param, sizeof(param), "messages[%zu]", index);
        return error_set(h->e, XR_EINVALID, param,
                         "'%s': expected an assistant's call before its result.", param);
    }
    begin_block(h, "user");
    buf_str(h->out, "{\"type\":\"tool_result\",\"tool_use_id\":");
    anthropic_put_call_id(&h->ids, h->out, id, h->assistant_index,
                          id == NULL ? 0 : find_call(h, message, id));
    if (cJSON_IsArray(content))
        put_result_parts(h, content);
    else if (cJSON_IsString(content) && !anthropic_is_blank(content->valuestring))
        json_put_field_text(h->out, "content", content->valuestring);
    buf_byte(h->out, '}');
    return 0;
}

static bool is_system(const cJSON *message)
{
    const char *role = json_string(message, "role");

    return strcmp(role, "system") == 0 || strcmp(role, "developer") == 0;
}

/* Writes the leading system messages and returns the first one behind them. */
static const cJSON *put_system(struct buf *out, const cJSON *messages)
{
    const cJSON *message = messages->child;
    const cJSON *part;
    bool any = false;

    while (message != NULL && is_system(message))
        message = message->next;
    if (message == NULL) /* nothing else: the model needs something to answer to */
        return messages->child;
    for (const cJSON *m = messages->child; m != message; m = m->next) {
        const cJSON *content = json_get(m, "content");
        bool is_list = cJSON_IsArray(content);

        for (part = is_list ? content->child : content; part != NULL; part = part->next) {
            const char *text = is_list ? json_string(part, "text") : part->valuestring;

            if (!anthropic_is_blank(text)) {
                buf_str(out, any ? "," : ",\"system\":[");
                put_text(out, text, strlen(text), is_list ? part : NULL);
                any = true;
            }
            if (!is_list)
                break;
        }
    }
    if (any)
        buf_byte(out, ']');
    return message;
}

static int add_message(struct history *h, const cJSON *message, size_t index)
{
    const char *role = json_string(message, "role");

    if (strcmp(role, "tool") == 0 || strcmp(role, "function") == 0)
        return add_result(h, message, index);
    h->assistant = NULL;
    if (strcmp(role, "assistant") == 0)
        return add_assistant(h, message, index);
    return add_content(h, "user", message, index); /* a later system message too */
}

int anthropic_encode_history(const cJSON *messages, struct buf *out, struct error *e)
{
    struct history h = {.out = out, .e = e};
    const cJSON *first = put_system(out, messages);
    size_t index = 0;
    int rc = anthropic_ids_init(&h.ids, messages);

    if (rc < 0)
        return rc;
    buf_str(out, ",\"messages\":[");
    for (const cJSON *m = messages->child; rc == 0 && m != NULL; m = m->next, index++) {
        if (m == first)
            first = NULL; /* past the system's */
        if (first == NULL)
            rc = add_message(&h, m, index);
    }
    anthropic_ids_clear(&h.ids);
    if (rc == 0 && h.role == NULL)
        return error_set(e, XR_EINVALID, "messages",
                         "'messages': expected a message with more than white space in it.");
    buf_str(out, "]}]");
    return rc;
}
