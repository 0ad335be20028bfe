#include "providers/anthropic.h"

#include <string.h>

#include "providers/error_text.h"

#define ERROR_BODY_MAX 65536 /* a longer one is no error object of theirs */

struct meaning {
    const char *type; /* the error's own word, which counts; NULL = only the status tells */
    unsigned status;  /* 0 = only the word tells */
    int number;
    const char *param;
    bool client_fault; /* the client's own mistake: it is told what the provider said */
    const char *text;  /* NULL = the error table's */
};
/* clang-format off */
static const struct meaning meanings[] = {
    {"invalid_request_error", 400, XR_EINVALID,      NULL,       true,  NULL},
    {"authentication_error",  401, XR_EUPSTREAMAUTH, NULL,       false, NULL},
    {"billing_error",         402, XR_EQUOTA,        NULL,       false, NULL},
    {"permission_error",      403, XR_EUPSTREAMAUTH, NULL,       false, NULL},
    {"not_found_error",       404, XR_EMODEL,        "model",    true,  NULL},
    {"request_too_large",     413, XR_ECONTEXT,      "messages", false, "The request is larger than the model's provider accepts."},
    {"rate_limit_error",      429, XR_EBUSY,         NULL,       false, "The provider's rate limit is reached."},
    {"timeout_error",         408, XR_ETIMEOUT,      NULL,       false, NULL},
    {"gateway_timeout_error", 504, XR_ETIMEOUT,      NULL,       false, NULL},
    {"overloaded_error",      529, XR_EUPSTREAM,     NULL,       false, "The provider is overloaded."},
    {NULL,                    422, XR_EINVALID,      NULL,       true,  NULL},
    {"api_error",             0,   XR_EUPSTREAM,     NULL,       false, NULL},
};
/* What an invalid_request_error is about, only its sentence says. */
static const struct {
    const char *part;
    struct meaning meaning;
} phrases[] = {
    {"prompt is too long",    {NULL, 0, XR_ECONTEXT, "messages", true,  NULL}},
    {"exceed context limit",  {NULL, 0, XR_ECONTEXT, "messages", true,  NULL}},
    {"credit balance is too", {NULL, 0, XR_EQUOTA,   NULL,       false, NULL}},
    {"API usage limits",      {NULL, 0, XR_EQUOTA,   NULL,       false, NULL}},
};
/* clang-format on */
static const struct meaning other = {NULL, 0, XR_EUPSTREAM, NULL, false, NULL};

static const struct meaning *find_meaning(unsigned status, const char *type, const char *message)
{
    const size_t count = sizeof(meanings) / sizeof(meanings[0]);
    const struct meaning *found = NULL;

    for (size_t i = 0; type != NULL && found == NULL && i < count; i++)
        if (meanings[i].type != NULL && strcmp(meanings[i].type, type) == 0)
            found = &meanings[i];
    for (size_t i = 0; status != 0 && found == NULL && i < count; i++)
        if (meanings[i].status == status)
            found = &meanings[i];
    if (found == NULL)
        return &other;
    for (size_t i = 0; found->number == XR_EINVALID && message != NULL &&
                       i < sizeof(phrases) / sizeof(phrases[0]);
         i++)
        if (strstr(message, phrases[i].part) != NULL)
            return &phrases[i].meaning;
    return found;
}

/* status is 0 where a 200 has begun. */
static int set_error(unsigned status, const cJSON *error, struct error *e)
{
    const char *message = json_string(error, "message");
    const struct meaning *m = find_meaning(status, json_string(error, "type"), message);
    const char *ours = m->text != NULL ? m->text : error_info(m->number)->text;
    char text[ERROR_TEXT_BYTES];

    if (m->client_fault && message != NULL && message[0] != '\0') {
        error_text_clean(message, text);
        return error_set(e, m->number, m->param, "The provider refused the request: %s", text);
    }
    if (m->client_fault || m->text != NULL || status == 0)
        return error_set(e, m->number, m->param, "%s", ours);
    return error_set(e, m->number, m->param, "%s (The provider's status was %u.)", ours, status);
}

int anthropic_set_error(const cJSON *error, struct error *e)
{
    return set_error(0, error, e);
}

int anthropic_map_error(unsigned status, const char *body, size_t len, bool *token_stale,
                        struct error *e)
{
    cJSON *root = NULL;
    int rc;

    *token_stale = false; /* a key does not become another by being fetched again */
    /* It may be a proxy's HTML page, or nothing. */
    if (len > 0 && len <= ERROR_BODY_MAX)
        root = json_parse(body, len, &JSON_LIMITS_DEFAULT, NULL, NULL);
    rc = set_error(status, json_get(root, "error"), e);
    cJSON_Delete(root);
    return rc;
}
