#include "providers/gigachat.h"

#include <stdbool.h>

#include "common/json.h"
#include "providers/error_text.h"

#define ERROR_BODY_MAX 65536 /* a longer one is no error object of theirs */

struct mapping {
    unsigned status;
    int number;
    const char *param;
    bool client_fault; /* the client's own mistake: it is told what the provider said */
};
static const struct mapping mappings[] = {
    {400, XR_EINVALID, NULL, true},       {401, XR_EUPSTREAMAUTH, NULL, false},
    {402, XR_EQUOTA, NULL, false},        {403, XR_EUPSTREAMAUTH, NULL, false},
    {404, XR_EMODEL, "model", true},      {408, XR_ETIMEOUT, NULL, false},
    {413, XR_ECONTEXT, "messages", true}, {422, XR_EINVALID, NULL, true},
    {429, XR_EBUSY, NULL, false},         {504, XR_ETIMEOUT, NULL, false},
};
static const struct mapping other = {0, XR_EUPSTREAM, NULL, false};

static const struct mapping *find_mapping(unsigned status)
{
    for (size_t i = 0; i < sizeof(mappings) / sizeof(mappings[0]); i++)
        if (mappings[i].status == status)
            return &mappings[i];
    return &other;
}

int gigachat_set_error(unsigned status, const char *text, struct error *e)
{
    const struct mapping *m = find_mapping(status);
    char clean[ERROR_TEXT_BYTES];

    if (m->client_fault && text != NULL && text[0] != '\0') {
        error_text_clean(text, clean);
        return error_set(e, m->number, m->param, "The provider refused the request: %s", clean);
    }
    if (m->client_fault || status == 429)
        return error_set(e, m->number, m->param, NULL);
    return error_set(e, m->number, m->param, "%s (The provider's status was %u.)",
                     error_info(m->number)->text, status);
}

int gigachat_map_error(unsigned status, const char *body, size_t len, bool *token_stale,
                       struct error *e)
{
    cJSON *root = NULL;
    int rc;

    *token_stale = status == 401;
    /* It may be a proxy's HTML page, or nothing. */
    if (len > 0 && len <= ERROR_BODY_MAX)
        root = json_parse(body, len, &JSON_LIMITS_DEFAULT, NULL, NULL);
    rc = gigachat_set_error(status, json_string(root, "message"), e);
    cJSON_Delete(root);
    return rc;
}
