#include "providers/chat_request.h"

#include <string.h>

#include "common/json.h"
#include "providers/chat_check.h"

/* NULL unless it is there with something in it: an empty list offers what an absent one does. */
static const cJSON *get_filled(const cJSON *root, const char *name)
{
    const cJSON *array = json_get(root, name);

    return array != NULL && array->child != NULL ? array : NULL;
}

static bool is_true(const cJSON *object, const char *name)
{
    return cJSON_IsTrue(json_get(object, name));
}

static void read_stop(struct model_request *r)
{
    const cJSON *stop = json_get(r->root, "stop");
    const cJSON *item;

    if (cJSON_IsString(stop))
        r->stop[r->stop_count++] = stop->valuestring;
    cJSON_ArrayForEach(item, stop)
    {
        if (r->stop_count < CHAT_STOP_MAX)
            r->stop[r->stop_count++] = item->valuestring;
    }
}

static void read_max_tokens(struct model_request *r)
{
    if (json_get_i64(r->root, "max_completion_tokens", &r->max_tokens) < 0 &&
        json_get_i64(r->root, "max_tokens", &r->max_tokens) < 0)
        r->max_tokens = 0;
}

static void count_images(struct model_request *r)
{
    const cJSON *message, *part;

    cJSON_ArrayForEach(message, r->messages)
    {
        const cJSON *content = json_get(message, "content");

        if (!cJSON_IsArray(content))
            continue;
        cJSON_ArrayForEach(part, content)
        {
            const char *type = json_string(part, "type");

            r->image_count += type != NULL && strcmp(type, "image_url") == 0;
        }
    }
}

static bool wants_json_schema(const cJSON *root)
{
    const char *type = json_string(json_get(root, "response_format"), "type");

    return type != NULL && strcmp(type, "json_schema") == 0;
}

int chat_request_parse(const char *text, size_t len, struct model_request *out, struct error *e)
{
    static const struct place messages = {.name = "messages"};
    int rc;

    rc = model_request_open(out, text, len, e);
    if (rc < 0)
        return rc;
    rc = chat_check_fields(out->root, e);
    if (rc == 0)
        rc = chat_check_calls(json_get(out->root, "messages"), &messages, e);
    if (rc == 0)
        rc = model_request_read_route(out, e);
    if (rc < 0) {
        model_request_clear(out);
        return rc;
    }
    out->stream = is_true(out->root, "stream");
    out->include_usage =
        out->stream && is_true(json_get(out->root, "stream_options"), "include_usage");
    out->messages = json_get(out->root, "messages");
    out->tools = get_filled(out->root, "tools");
    out->functions = get_filled(out->root, "functions");
    out->legacy_functions = out->functions != NULL;
    read_max_tokens(out);
    read_stop(out);
    count_images(out);
    out->wants_json_schema = wants_json_schema(out->root);
    return 0;
}
