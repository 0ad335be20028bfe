#include "providers/gigachat.h"

#include <ctype.h>
#include <string.h>

#include "common/json.h"
#include "common/utf8.h"

#define ERROR_BODY_MAX 65536 /* a longer one is no error object of theirs */
#define TEXT_MAX 300
#define SECRET_MIN 72 /* an unbroken run this long is a key or a token, not a word of a message */

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

static size_t run_of_key_letters(const char *text)
{
    size_t len = 0;

    while (isalnum((unsigned char)text[len]) || (text[len] != '\0' && strchr("_-+/=.", text[len])))
        len++;
    return len;
}

/* Copies a message for the client: short, and without anything that looks like a credential. */
static void clean_text(const char *text, char out[TEXT_MAX + 1])
{
    size_t len = 0;

    while (*text != '\0' && len < TEXT_MAX) {
        size_t run = run_of_key_letters(text);
        bool is_secret = run >= SECRET_MIN || (run > 16 && strncmp(text, "eyJ", 3) == 0);
        size_t copy = run == 0 ? 1 : run;
        const char *from = is_secret ? "***" : text;
        size_t n = is_secret ? 3 : copy;

        if (n > TEXT_MAX - len)
            n = TEXT_MAX - len;
        memcpy(out + len, from, n);
        len += n;
        text += copy;
    }
    if (*text != '\0')
        len = utf8_cut(out, len);
    out[len] = '\0';
}

int gigachat_set_error(unsigned status, const char *text, struct error *e)
{
    const struct mapping *m = find_mapping(status);
    char clean[TEXT_MAX + 1];

    if (m->client_fault && text != NULL && text[0] != '\0') {
        clean_text(text, clean);
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
