/* The conversation so far. GigaChat checks its shape: one system message, first; one function call
 * a message, its result right behind it, as JSON. */
#include "providers/gigachat.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "common/json.h"

enum role { ROLE_NONE, ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT };

struct history {
    struct buf *out;
    struct error *e;
    struct buf text;    /* of the message being put together */
    enum role role;     /* of that message; NONE = nothing is waiting */
    struct buf scratch; /* a function's result */
    bool has_begun;     /* past the leading system messages */
    const struct file_ids *files;
    bool takes_files;   /* the message that is read is a user's */
    size_t files_named; /* of them, in messages that are written */
    size_t files_in;    /* in the message being put together */
};

static const char *role_name(enum role role)
{
    switch (role) {
    case ROLE_SYSTEM:
        return "system";
    case ROLE_USER:
        return "user";
    case ROLE_ASSISTANT:
    case ROLE_NONE:
        break;
    }
    return "assistant";
}

static void begin_message(struct history *h, const char *role)
{
    if (h->out->len > 0 && h->out->data[h->out->len - 1] == '}')
        buf_byte(h->out, ',');
    buf_str(h->out, "{\"role\":\"");
    buf_str(h->out, role);
    buf_str(h->out, "\",\"content\":");
}

static void put_attachments(struct history *h)
{
    if (h->files_in == 0)
        return;
    json_put_key(h->out, "attachments");
    for (size_t i = 0; i < h->files_in; i++) {
        buf_byte(h->out, i == 0 ? '[' : ',');
        json_put_text(h->out, h->files->id[h->files_named++]);
    }
    buf_byte(h->out, ']');
    h->files_in = 0;
}

static void flush(struct history *h)
{
    if (h->role == ROLE_NONE)
        return;
    begin_message(h, role_name(h->role));
    json_put_string(h->out, h->text.len == 0 ? "" : h->text.data, h->text.len);
    put_attachments(h);
    buf_byte(h->out, '}');
    buf_reset(&h->text);
    h->role = ROLE_NONE;
}

static int refuse_part(struct history *h, size_t message, size_t part, const char *type)
{
    char param[64];

    snprintf(param, sizeof(param), "messages[%zu].content[%zu]", message, part);
    return error_set(h->e, XR_EUNSUPPORTED, param,
                     "'%s': the model's provider takes no parts of type \"%s\" here.", param, type);
}

static size_t count_files(const cJSON *message)
{
    const cJSON *part;
    size_t count = 0;

    cJSON_ArrayForEach(part, json_get(message, "content"))
    {
        count += gigachat_is_file_part(part);
    }
    return count;
}

/* Appends a content as one text: its parts on lines of their own. */
static int append_content(struct history *h, const cJSON *message, size_t index, struct buf *out)
{
    const cJSON *content = json_get(message, "content");
    const char *refusal = json_string(message, "refusal");
    const cJSON *part;
    size_t at = 0;

    if (cJSON_IsString(content))
        buf_str(out, content->valuestring);
    else if (!cJSON_IsArray(content) && refusal != NULL)
        buf_str(out, refusal);
    cJSON_ArrayForEach(part, content)
    {
        const char *type = json_string(part, "type");
        const char *text = json_string(part, type);

        if (h->takes_files && gigachat_is_file_part(part)) {
            h->files_in++;
            continue;
        }
        if (text == NULL)
            return refuse_part(h, index, at, type);
        if (at++ > 0)
            buf_byte(out, '\n');
        buf_str(out, text);
    }
    return 0;
}

/* Neighbours of one role become one message: the server would join them too, but not every
 * version of it. */
static int add_text(struct history *h, enum role role, const cJSON *message, size_t index)
{
    size_t files, start;

    h->takes_files = strcmp(json_string(message, "role"), "user") == 0;
    files = h->takes_files ? count_files(message) : 0;

    /* Two of them together could have more images than a message may. */
    if (h->role != role || (files > 0 && h->files_in > 0))
        flush(h);
    if (files > 0 && (h->files == NULL || h->files_named + h->files_in + files > h->files->count))
        return error_set(h->e, XR_EINTERNAL, NULL, "A file of the request was not uploaded.");
    start = h->text.len;
    if (start > 0)
        buf_byte(&h->text, '\n');
    h->role = role;
    if (append_content(h, message, index, &h->text) < 0)
        return XR_EUNSUPPORTED;
    h->takes_files = false;
    if (start > 0 && h->text.len == start + 1)
        h->text.len = start; /* nothing was added: no line for it */
    return 0;
}

static bool is_object_text(const char *text, size_t len)
{
    size_t at = 0;

    while (at < len && strchr(" \t\r\n", text[at]) != NULL)
        at++;
    return at < len && text[at] == '{';
}

/* The arguments of a call, which OpenAI keeps as text and GigaChat as an object. */
static int put_arguments(struct history *h, const char *text, const char *param)
{
    size_t len = strlen(text);
    const char *why = "it is no object";

    if (len == 0) {
        buf_str(h->out, "{}"); /* how models call a function without parameters */
        return 0;
    }
    if (json_check(text, len, &JSON_LIMITS_DEFAULT, NULL, &why) < 0 || !is_object_text(text, len))
        return error_set(h->e, XR_EINVALID, param,
                         "'%s': expected the text of a JSON object, but %s.", param, why);
    json_minify(h->out, text, len);
    return 0;
}

/* call is the object with name and arguments; text the assistant's words to it, NULL = none. */
static int put_call(struct history *h, const cJSON *call, const struct buf *text, const char *param)
{
    begin_message(h, "assistant");
    if (text == NULL || text->len == 0)
        buf_str(h->out, "\"\"");
    else
        json_put_string(h->out, text->data, text->len);
    buf_str(h->out, ",\"function_call\":{\"name\":");
    gigachat_put_function_name(h->out, json_string(call, "name"));
    buf_str(h->out, ",\"arguments\":");
    if (put_arguments(h, json_string(call, "arguments"), param) < 0)
        return XR_EINVALID;
    buf_str(h->out, "}}");
    return 0;
}

/* A result must be the text of a JSON object: anything else is wrapped into one. */
static int put_result(struct history *h, const cJSON *call, const cJSON *message, size_t index)
{
    struct buf text;
    struct buf *json = &h->scratch;
    int rc;

    buf_init(&text, SIZE_MAX / 2);
    rc = append_content(h, message, index, &text);
    buf_reset(json);
    if (rc < 0) {
        /* nothing to write */
    } else if (text.len == 0) {
        buf_str(json, "{}");
    } else if (json_check(text.data, text.len, &JSON_LIMITS_DEFAULT, NULL, NULL) < 0) {
        buf_str(json, "{\"result\":");
        json_put_string(json, text.data, text.len);
        buf_byte(json, '}');
    } else if (is_object_text(text.data, text.len)) {
        json_minify(json, text.data, text.len);
    } else {
        buf_str(json, "{\"result\":");
        json_minify(json, text.data, text.len);
        buf_byte(json, '}');
    }
    begin_message(h, "function");
    json_put_string(h->out, json->len == 0 ? "" : json->data, json->len);
    buf_str(h->out, ",\"name\":");
    gigachat_put_function_name(h->out, json_string(call, "name"));
    buf_byte(h->out, '}');
    if (rc == 0)
        rc = text.err < 0 ? text.err : json->err;
    buf_clear(&text);
    return rc;
}

/* The message with the result of that call, among the tool messages that follow. Results of calls
 * with the same id are taken in order. */
static const cJSON *find_result(const cJSON *assistant, const char *id, size_t nth, size_t *offset)
{
    *offset = 1;
    for (const cJSON *m = assistant->next; m != NULL; m = m->next, (*offset)++) {
        const char *answered = json_string(m, "tool_call_id");

        if (answered == NULL)
            break;
        if (strcmp(answered, id) == 0 && nth-- == 0)
            return m;
    }
    return NULL;
}

/* How many earlier calls of the message have the same id. */
static size_t count_twins(const cJSON *calls, const cJSON *call)
{
    size_t n = 0;

    for (const cJSON *c = calls->child; c != call; c = c->next)
        n += strcmp(json_string(c, "id"), json_string(call, "id")) == 0;
    return n;
}

/* Several calls become pairs of call and result, one after the other. */
static int add_tool_calls(struct history *h, const cJSON *message, size_t index)
{
    const cJSON *calls = json_get(message, "tool_calls");
    const cJSON *call;
    size_t at = 0;
    char param[96];
    struct buf *text = &h->text;

    flush(h);
    if (append_content(h, message, index, text) < 0)
        return XR_EUNSUPPORTED;
    cJSON_ArrayForEach(call, calls)
    {
        const cJSON *function = json_get(call, "function");
        const cJSON *result;
        size_t offset;
        int rc;

        snprintf(param, sizeof(param), "messages[%zu].tool_calls[%zu].function.arguments", index,
                 at++);
        if (function == NULL)
            return error_set(h->e, XR_EUNSUPPORTED, "messages",
                             "'messages': the model's provider takes no calls of custom tools.");
        rc = put_call(h, function, text, param);
        text = NULL;
        result = find_result(message, json_string(call, "id"), count_twins(calls, call), &offset);
        if (rc == 0 && result != NULL)
            rc = put_result(h, function, result, index + offset);
        if (rc < 0)
            return rc;
    }
    buf_reset(&h->text);
    return 0;
}

static int add_function_call(struct history *h, const cJSON *message, size_t index)
{
    const cJSON *call = json_get(message, "function_call");
    char param[96];
    int rc;

    flush(h);
    snprintf(param, sizeof(param), "messages[%zu].function_call.arguments", index);
    rc = append_content(h, message, index, &h->text);
    if (rc == 0)
        rc = put_call(h, call, &h->text, param);
    buf_reset(&h->text);
    if (rc == 0 && message->next != NULL)
        rc = put_result(h, call, message->next, index + 1);
    return rc;
}

static int add_assistant(struct history *h, const cJSON *message, size_t index)
{
    const cJSON *calls = json_get(message, "tool_calls");

    if (cJSON_IsArray(calls) && calls->child != NULL)
        return add_tool_calls(h, message, index);
    if (cJSON_IsObject(json_get(message, "function_call")))
        return add_function_call(h, message, index);
    return add_text(h, ROLE_ASSISTANT, message, index);
}

static int add_message(struct history *h, const cJSON *message, size_t index)
{
    const char *role = json_string(message, "role");
    bool is_system = strcmp(role, "system") == 0 || strcmp(role, "developer") == 0;

    if (strcmp(role, "tool") == 0 || strcmp(role, "function") == 0)
        return 0; /* written with its call */
    if (is_system && !h->has_begun)
        return add_text(h, ROLE_SYSTEM, message, index);
    h->has_begun = true;
    if (strcmp(role, "assistant") == 0)
        return add_assistant(h, message, index);
    return add_text(h, ROLE_USER, message, index); /* a later system message too */
}

int gigachat_encode_history(const cJSON *messages, const struct file_ids *files, struct buf *out,
                            struct error *e)
{
    struct history h = {.out = out, .e = e, .files = files};
    const cJSON *message;
    size_t index = 0;
    int rc = 0;

    buf_init(&h.text, SIZE_MAX / 2);
    buf_init(&h.scratch, SIZE_MAX / 2);
    buf_byte(out, '[');
    cJSON_ArrayForEach(message, messages)
    {
        rc = add_message(&h, message, index++);
        if (rc == 0 && h.text.err < 0)
            rc = h.text.err;
        if (rc < 0)
            break;
    }
    if (rc == 0)
        flush(&h);
    buf_byte(out, ']');
    buf_clear(&h.text);
    buf_clear(&h.scratch);
    return rc;
}
