#include "providers/gigachat.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "providers/json_schema.h"

/* Parameters that only steer sampling or bookkeeping: dropped, and the client is told. */
struct dropped {
    const char *name;
    bool off_is_absent; /* 0 and false change nothing, so nothing is lost */
};
static const struct dropped dropped[] = {
    {"seed", false},
    {"presence_penalty", true},
    {"frequency_penalty", true},
    {"logit_bias", false},
    {"user", false},
    {"metadata", false},
    {"store", true},
    {"service_tier", false},
    {"prediction", false},
    {"prompt_cache_key", false},
    {"prompt_cache_retention", false},
    {"safety_identifier", false},
    {"verbosity", false},
    /* GigaChat's own, which only its operator may allow: */
    {"repetition_penalty", false},
    {"update_interval", false},
    {"profanity_check", false},
    {"flags", false},
    {"function_ranker", false},
    {"storage", false},
    {"additional_data", false},
};

static bool is_given(const cJSON *item)
{
    return item != NULL && !cJSON_IsNull(item);
}

static bool is_positive(const cJSON *item)
{
    return cJSON_IsNumber(item) && item->valuedouble > 0;
}

static bool is_zero(const cJSON *item)
{
    return cJSON_IsNumber(item) && !(item->valuedouble < 0 || item->valuedouble > 0);
}

static int unsupported(struct error *e, const char *param, const char *why)
{
    return error_set(e, XR_EUNSUPPORTED, param,
                     "'%s' is not supported by the model's provider: %s.", param, why);
}

static bool is_off(const struct dropped *d, const cJSON *item)
{
    if (cJSON_IsArray(item) || cJSON_IsObject(item))
        return item->child == NULL;
    if (cJSON_IsString(item))
        return item->valuestring[0] == '\0';
    return d->off_is_absent && (cJSON_IsFalse(item) || is_zero(item));
}

static const struct dropped *find_dropped(const char *name)
{
    for (size_t i = 0; i < sizeof(dropped) / sizeof(dropped[0]); i++)
        if (dropped[i].name[0] == name[0] && strcmp(dropped[i].name, name) == 0)
            return &dropped[i];
    return NULL;
}

static void note_dropped(const cJSON *root, struct buf *ignored)
{
    const cJSON *item;

    cJSON_ArrayForEach(item, root)
    {
        const struct dropped *d = find_dropped(item->string);

        if (d == NULL || !is_given(item) || is_off(d, item))
            continue;
        if (ignored->len > 0)
            buf_str(ignored, ", ");
        buf_str(ignored, d->name);
    }
}

static bool wants_audio(const cJSON *root)
{
    const cJSON *modalities = json_get(root, "modalities");
    const cJSON *item;

    cJSON_ArrayForEach(item, modalities)
    {
        if (strcmp(item->valuestring, "audio") == 0)
            return true;
    }
    return false;
}

/* What would change the answer's meaning is refused, never dropped. */
static int refuse_unsupported(const cJSON *root, struct error *e)
{
    const cJSON *n = json_get(root, "n");
    const char *choice = json_string(json_get(root, "tool_choice"), "type");

    if (is_given(n) && n->valuedouble > 1)
        return unsupported(e, "n", "it gives one answer");
    if (cJSON_IsTrue(json_get(root, "logprobs")))
        return unsupported(e, "logprobs", "it gives no probabilities");
    if (is_positive(json_get(root, "top_logprobs")))
        return unsupported(e, "top_logprobs", "it gives no probabilities");
    if (is_given(json_get(root, "audio")))
        return unsupported(e, "audio", "it answers in text");
    if (wants_audio(root))
        return unsupported(e, "modalities", "it answers in text");
    if (is_given(json_get(root, "web_search_options")))
        return unsupported(e, "web_search_options", "it does not search");
    if (choice != NULL && strcmp(choice, "function") != 0)
        return unsupported(e, "tool_choice", "only functions can be chosen");
    return 0;
}

/* 0 is out of range there; the most probable token at each step is what top_p 0 gives. */
static void put_sampling(const cJSON *root, struct buf *out)
{
    const cJSON *temperature = json_get(root, "temperature");
    const cJSON *top_p = json_get(root, "top_p");

    if (is_zero(temperature)) {
        buf_str(out, ",\"top_p\":0");
        return;
    }
    if (is_given(temperature)) {
        json_put_key(out, "temperature");
        json_put_tree(out, temperature);
    }
    if (is_given(top_p)) {
        json_put_key(out, "top_p");
        json_put_tree(out, top_p);
    }
}

static void put_reasoning_effort(const cJSON *root, struct buf *out)
{
    static const char *const efforts[][2] = {
        {"minimal", "low"}, {"low", "low"},    {"medium", "medium"},
        {"high", "high"},   {"xhigh", "high"}, {"max", "high"},
    };
    const char *effort = json_string(root, "reasoning_effort");

    for (size_t i = 0; effort != NULL && i < sizeof(efforts) / sizeof(efforts[0]); i++)
        if (strcmp(efforts[i][0], effort) == 0)
            json_put_field_text(out, "reasoning_effort", efforts[i][1]);
}

/* A schema that GigaChat would not hold the answer to. */
static int refuse_weak_schema(const cJSON *schema, bool strict, struct error *e)
{
    const cJSON *properties = json_get(schema, "properties");

    if (schema->child == NULL)
        return unsupported(e, "response_format",
                           "it needs a schema that says something about the answer");
    /* Without it any JSON may come, strict or not. */
    if (strict && properties != NULL && properties->child != NULL &&
        !cJSON_IsArray(json_get(schema, "required")))
        return unsupported(e, "response_format",
                           "a strict schema there names its 'required' properties");
    return 0;
}

bool gigachat_schema_by_function(const struct provider_config *p, const struct model_request *req)
{
    const cJSON *message;

    if (!req->wants_json_schema || req->tools != NULL || req->functions != NULL)
        return false;
    if (p->structured_output != NULL && strcmp(p->structured_output, "function") == 0)
        return true;
    cJSON_ArrayForEach(message, req->messages)
    {
        const char *role = json_string(message, "role");

        if (strcmp(role, "tool") == 0 || strcmp(role, "function") == 0)
            return true;
    }
    return false;
}

/* OpenAI's json_schema.schema stands one level higher here; its bytes stay the client's. */
static int put_response_format(const struct model_request *req, struct buf *out, struct error *e)
{
    const cJSON *format = json_get(req->root, "response_format");
    const char *type = json_string(format, "type");
    const cJSON *described = json_get(format, "json_schema");
    const char *schema;
    size_t schema_len;
    bool strict = false, has_strict;
    int rc;

    if (type == NULL || strcmp(type, "text") == 0)
        return 0;
    if (strcmp(type, "json_object") == 0)
        return unsupported(e, "response_format",
                           "it needs a schema, type \"json_object\" has none");
    if (!cJSON_IsObject(json_get(described, "schema")) ||
        json_slice(req->text, req->len, "response_format.json_schema.schema", &schema,
                   &schema_len) < 0)
        return error_set(e, XR_EINVALID, "response_format.json_schema.schema",
                         "'response_format.json_schema.schema': expected an object, found "
                         "nothing.");
    has_strict = json_get_bool(described, "strict", &strict) == 0;
    rc = refuse_weak_schema(json_get(described, "schema"), strict, e);
    if (rc < 0)
        return rc;
    buf_str(out, ",\"response_format\":{\"type\":\"json_schema\",\"schema\":");
    json_minify(out, schema, schema_len);
    if (has_strict)
        json_put_field_bool(out, "strict", strict);
    buf_byte(out, '}');
    return 0;
}

static int put_parameters(const cJSON *function, const char *param, struct buf *out,
                          struct error *e)
{
    const cJSON *parameters = json_get(function, "parameters");
    const char *why = "";
    int rc = json_schema_simplify(is_given(parameters) ? parameters : NULL, out, &why);

    if (rc == -EINVAL || rc == -E2BIG)
        return error_set(e, XR_EINVALID, param,
                         "'%s': expected a schema that can be written out, but %s.", param, why);
    return rc;
}

static int put_function(const cJSON *function, const char *param, struct buf *out, struct error *e)
{
    const char *description = json_string(function, "description");
    int rc;

    buf_str(out, "{\"name\":");
    gigachat_put_function_name(out, json_string(function, "name"));
    buf_str(out, ",\"description\":"); /* clients of theirs insist on one */
    json_put_text(out, description == NULL ? "" : description);
    buf_str(out, ",\"parameters\":");
    rc = put_parameters(function, param, out, e);
    buf_byte(out, '}');
    return rc;
}

/* Which function to call: *forced is its name, or NULL for "auto". False: none, offer nothing. */
static bool read_choice(const struct model_request *req, const char **forced)
{
    const cJSON *choice = json_get(req->root, req->tools != NULL ? "tool_choice" : "function_call");
    const cJSON *function = json_get(choice, "function");
    const cJSON *first = req->tools == NULL ? NULL : req->tools->child;
    const char *word = cJSON_GetStringValue(choice);

    *forced = NULL;
    if (req->tools == NULL && req->functions == NULL)
        return false;
    if (cJSON_IsObject(choice))
        *forced = json_string(function != NULL ? function : choice, "name");
    if (word == NULL)
        return true;
    /* There is no "call any": with one function forcing it is the same, with several it stays
     * "auto". */
    if (strcmp(word, "required") == 0 && first != NULL && first->next == NULL)
        *forced = json_string(json_get(first, "function"), "name");
    return strcmp(word, "none") != 0;
}

static int put_schema_function(const struct model_request *req, struct buf *out, struct error *e)
{
    static const char param[] = "response_format.json_schema.schema";
    const cJSON *described = json_get(json_get(req->root, "response_format"), "json_schema");
    const char *name = json_string(described, "name");
    const char *description = json_string(described, "description");
    const char *why = "";
    int rc;

    if (!cJSON_IsObject(json_get(described, "schema")))
        return error_set(e, XR_EINVALID, param, "'%s': expected an object, found nothing.", param);
    buf_str(out, ",\"functions\":[{\"name\":");
    gigachat_put_function_name(out, name);
    buf_str(out, ",\"description\":");
    json_put_text(out, description == NULL ? "Gives the answer." : description);
    buf_str(out, ",\"parameters\":");
    rc = json_schema_simplify(json_get(described, "schema"), out, &why);
    if (rc == -EINVAL || rc == -E2BIG)
        return error_set(e, XR_EINVALID, param,
                         "'%s': expected a schema that can be written out, but %s.", param, why);
    buf_str(out, "}],\"function_call\":{\"name\":");
    gigachat_put_function_name(out, name);
    buf_byte(out, '}');
    return rc;
}

static int put_functions(const struct model_request *req, struct buf *out, struct error *e)
{
    const cJSON *list = req->tools != NULL ? req->tools : req->functions;
    const char *forced;
    const cJSON *item;
    size_t index = 0;

    if (!read_choice(req, &forced)) {
        if (list == NULL && gigachat_has_document(req))
            buf_str(out, ",\"function_call\":\"auto\""); /* the server's own, which reads it */
        return 0;
    }
    buf_str(out, ",\"functions\":[");
    cJSON_ArrayForEach(item, list)
    {
        const cJSON *function = req->tools != NULL ? json_get(item, "function") : item;
        char param[64];
        int rc;

        if (function == NULL ||
            (req->tools != NULL && strcmp(json_string(item, "type"), "function") != 0))
            return unsupported(e, "tools", "only functions can be tools");
        snprintf(param, sizeof(param),
                 req->tools != NULL ? "tools[%zu].function.parameters"
                                    : "functions[%zu].parameters",
                 index);
        if (index++ > 0)
            buf_byte(out, ',');
        rc = put_function(function, param, out, e);
        if (rc < 0)
            return rc;
    }
    /* Always said: what its absence means has changed over the years. */
    buf_str(out, "],\"function_call\":");
    if (forced == NULL)
        return buf_str(out, "\"auto\"");
    buf_str(out, "{\"name\":");
    gigachat_put_function_name(out, forced);
    return buf_byte(out, '}');
}

static int put_body(const struct provider_config *p, const char *upstream_model,
                    const struct model_request *req, const struct file_ids *files, struct buf *out,
                    struct error *e)
{
    int rc;

    buf_str(out, "{\"model\":");
    json_put_text(out, upstream_model);
    buf_str(out, ",\"messages\":");
    rc = gigachat_encode_history(req->messages, files, out, e);
    if (rc == 0 && gigachat_schema_by_function(p, req)) {
        rc = put_schema_function(req, out, e);
    } else if (rc == 0) {
        rc = put_functions(req, out, e);
        if (rc == 0)
            rc = put_response_format(req, out, e);
    }
    if (rc < 0)
        return rc;
    put_sampling(req->root, out);
    if (req->max_tokens > 0)
        json_put_field_i64(out, "max_tokens", req->max_tokens);
    put_reasoning_effort(req->root, out);
    if (req->stream)
        json_put_field_bool(out, "stream", true);
    return buf_byte(out, '}');
}

int gigachat_encode_body(const struct provider_config *p, const char *upstream_model,
                         const struct model_request *req, const struct file_ids *files,
                         struct buf *out, struct buf *ignored, struct error *e)
{
    int rc = refuse_unsupported(req->root, e);

    if (rc == 0)
        rc = put_body(p, upstream_model, req, files, out, e);
    if (rc == 0 || out->err < 0)
        rc = out->err;
    if (rc == -EMSGSIZE)
        return error_set(e, XR_ETOOLARGE, NULL, NULL);
    if (rc == -ENOMEM)
        return error_set(e, -ENOMEM, NULL, NULL);
    if (rc == 0)
        note_dropped(req->root, ignored);
    return rc;
}
