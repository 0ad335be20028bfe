#include "providers/openai.h"

#include <string.h>

#include "providers/error_text.h"

#define ERROR_BODY_MAX 65536 /* a longer one is no error object of theirs */

/* What a provider says went wrong, wherever in its answer it says so. */
struct complaint {
    const cJSON *error;  /* the object with the details, NULL = there is none */
    const char *message; /* NULL = none */
    const char *code, *type, *param;
};

struct meaning {
    unsigned status;
    int number;
    const char *param;
    bool client_fault; /* the client's own mistake: it is told what the provider said */
};
static const struct meaning by_status[] = {
    {400, XR_EINVALID, NULL, true},       {401, XR_EUPSTREAMAUTH, NULL, false},
    {402, XR_EQUOTA, NULL, false},        {403, XR_EUPSTREAMAUTH, NULL, false},
    {404, XR_EMODEL, "model", true},      {408, XR_ETIMEOUT, NULL, false},
    {413, XR_ECONTEXT, "messages", true}, {422, XR_EINVALID, NULL, true},
    {429, XR_EBUSY, NULL, false},         {498, XR_EBUSY, NULL, false},
    {501, XR_EUNSUPPORTED, NULL, true},   {504, XR_ETIMEOUT, NULL, false},
    {524, XR_ETIMEOUT, NULL, false}, /* a proxy's that waited in vain */
};
static const struct meaning other_status = {0, XR_EUPSTREAM, NULL, false};

/* A code or type that says more than the status. */
struct word {
    const char *text;
    struct meaning meaning;
};
static const struct word words[] = {
    {"insufficient_quota", {0, XR_EQUOTA, NULL, false}},
    {"credit_balance_exhausted", {0, XR_EQUOTA, NULL, false}},
    {"organization_spend_limit_exceeded", {0, XR_EQUOTA, NULL, false}},
    {"project_spend_limit_exceeded", {0, XR_EQUOTA, NULL, false}},
    {"billing_hard_limit_reached", {0, XR_EQUOTA, NULL, false}},
    {"context_length_exceeded", {0, XR_ECONTEXT, "messages", true}},
    {"exceed_context_size_error", {0, XR_ECONTEXT, "messages", true}},
    {"invalid_api_key", {0, XR_EUPSTREAMAUTH, NULL, false}},
    /* A project without access to the model; the message would name the project. */
    {"model_not_found", {0, XR_EMODEL, "model", false}},
    /* The model wrote a call that is no JSON: another try often works. */
    {"tool_use_failed", {0, XR_EUPSTREAM, NULL, false}},
};

/* Statuses inside a 200, where no HTTP status can tell. */
struct type_status {
    const char *text;
    unsigned status;
};
static const struct type_status type_statuses[] = {
    {"invalid_request_error", 400},
    {"BadRequestError", 400},
    {"authentication_error", 401},
    {"permission_error", 403},
    {"not_found_error", 404},
    {"rate_limit_error", 429},
    {"rate_limit_exceeded", 429},
    {"RESOURCE_EXHAUSTED", 429},
    {"rate_limited", 429},
    {"INVALID_ARGUMENT", 400},
    {"exceed_context_size_error", 400},
};

static bool is_nonempty(const char *text)
{
    return text != NULL && text[0] != '\0';
}

/* The first text of a validation report: [{"loc":[...],"msg":"...","type":"..."}]. */
static const char *detail_text(const cJSON *detail)
{
    const cJSON *first = cJSON_IsArray(detail) ? detail->child : detail;

    if (cJSON_IsString(first))
        return first->valuestring;
    return json_string(first, "msg");
}

static const char *message_text(const cJSON *object)
{
    const cJSON *message = json_get(object, "message");

    if (cJSON_IsString(message))
        return message->valuestring;
    if (cJSON_IsObject(message))
        return detail_text(json_get(message, "detail"));
    return detail_text(json_get(object, "detail"));
}

/* {"error":{...}}, {"error":"text"}, the same members flat, or the first of a list of those. */
static void read_complaint(const cJSON *root, struct complaint *c)
{
    const cJSON *error;

    memset(c, 0, sizeof(*c));
    if (root != NULL && cJSON_IsArray(root))
        root = root->child;
    error = json_get(root, "error");
    if (cJSON_IsString(error)) {
        c->message = error->valuestring;
        error = root;
    } else {
        error = cJSON_IsObject(error) ? error : root;
        c->message = message_text(error);
    }
    c->error = error;
    c->code = json_string(error, "code");
    c->type = json_string(error, "type");
    if (c->type == NULL)
        c->type = json_string(error, "status"); /* Google's */
    c->param = json_string(error, "param");
}

static const struct meaning *meaning_of_word(const char *text)
{
    for (size_t i = 0; text != NULL && i < sizeof(words) / sizeof(words[0]); i++)
        if (strcmp(words[i].text, text) == 0)
            return &words[i].meaning;
    return NULL;
}

/* What some say in their message alone, with status 400. */
static const struct word phrases[] = {
    {"maximum context length", {0, XR_ECONTEXT, "messages", true}}, /* vLLM, Mistral */
    {"API key not valid", {0, XR_EUPSTREAMAUTH, NULL, false}},      /* Gemini */
};

static const struct meaning *meaning_of_phrase(const char *text)
{
    for (size_t i = 0; text != NULL && i < sizeof(phrases) / sizeof(phrases[0]); i++)
        if (strstr(text, phrases[i].text) != NULL)
            return &phrases[i].meaning;
    return NULL;
}

static const struct meaning *find_meaning(unsigned status, const struct complaint *c)
{
    static const struct meaning moderated = {0, XR_EINVALID, "messages", true};
    const struct meaning *m = NULL;

    if (status >= 400 && status < 500) {
        m = meaning_of_word(c->code);
        if (m == NULL)
            m = meaning_of_word(c->type);
    }
    if (m == NULL && status == 400)
        m = meaning_of_phrase(c->message);
    if (m != NULL)
        return m;
    /* OpenRouter's 403 for a prompt that a moderator has refused. */
    if (status == 403 && json_get(json_get(c->error, "metadata"), "reasons") != NULL)
        return &moderated;
    for (size_t i = 0; i < sizeof(by_status) / sizeof(by_status[0]); i++)
        if (by_status[i].status == status)
            return &by_status[i];
    return &other_status;
}

static int set_error(unsigned status, const struct complaint *c, struct error *e)
{
    const struct meaning *m = find_meaning(status, c);
    const char *param = m->param;
    char text[ERROR_TEXT_BYTES], name[ERROR_TEXT_BYTES];

    if (m->client_fault && is_nonempty(c->param)) {
        error_text_clean(c->param, name);
        param = name;
    }
    if (m->client_fault && is_nonempty(c->message)) {
        error_text_clean(c->message, text);
        return error_set(e, m->number, param, "The provider refused the request: %s", text);
    }
    if (m->client_fault || m->number == XR_EMODEL || m->number == XR_EBUSY || status == 0)
        return error_set(e, m->number, param, NULL);
    return error_set(e, m->number, param, "%s (The provider's status was %u.)",
                     error_info(m->number)->text, status);
}

int openai_map_error(unsigned status, const char *body, size_t len, bool *token_stale,
                     struct error *e)
{
    struct complaint c;
    cJSON *root = NULL;
    int rc;

    *token_stale = false; /* a key does not become another by being fetched again */
    /* It may be a proxy's HTML page, or nothing. */
    if (len > 0 && len <= ERROR_BODY_MAX)
        root = json_parse(body, len, &JSON_LIMITS_DEFAULT, NULL, NULL);
    read_complaint(root, &c);
    rc = set_error(status, &c, e);
    cJSON_Delete(root);
    return rc;
}

/* The status of an error that came without one: its code as a number, or what its words imply. */
static unsigned implied_status(const struct complaint *c)
{
    int64_t number;

    if (json_get_i64(c->error, "code", &number) == 0 && number >= 400 && number <= 599)
        return (unsigned)number;
    for (size_t i = 0; i < sizeof(type_statuses) / sizeof(type_statuses[0]); i++)
        if ((c->type != NULL && strcmp(type_statuses[i].text, c->type) == 0) ||
            (c->code != NULL && strcmp(type_statuses[i].text, c->code) == 0))
            return type_statuses[i].status;
    if (meaning_of_word(c->code) != NULL || meaning_of_word(c->type) != NULL)
        return 400;
    return 0;
}

static bool is_error(const cJSON *item)
{
    return cJSON_IsObject(item) || (cJSON_IsString(item) && item->valuestring[0] != '\0');
}

int openai_check_error(const cJSON *root, struct error *e)
{
    const cJSON *object = cJSON_IsArray(root) ? root->child : root;
    const char *kind = json_string(object, "object");
    struct complaint c;

    if (is_error(json_get(json_get(object, "x_groq"), "error")))
        return error_set(e, XR_EUPSTREAM, NULL, "The provider ended its answer with an error.");
    if (!is_error(json_get(object, "error")) &&
        (kind == NULL || strcmp(kind, "error") != 0 || json_get(object, "choices") != NULL))
        return 0;
    read_complaint(object, &c);
    return set_error(implied_status(&c), &c, e);
}
