#include "providers/gigachat.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

#include "common/json.h"
#include "common/utf8.h"

#define ERROR_BODY_MAX 65536 /* a longer one is no error object of theirs */
#define TEXT_MAX 300
#define SECRET_MIN 72 /* an unbroken run this long is a key or a token, not a word of a message */
#define MIXED_MIN 24  /* so is a shorter one of digits, capitals and small letters mixed */

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

static bool is_mixed(const char *run, size_t len)
{
    bool has_digit = false, has_upper = false, has_lower = false;

    for (size_t i = 0; i < len; i++) {
        has_digit = has_digit || isdigit((unsigned char)run[i]);
        has_upper = has_upper || isupper((unsigned char)run[i]);
        has_lower = has_lower || islower((unsigned char)run[i]);
    }
    return has_digit && has_upper && has_lower;
}

/* Whether what stands before it makes any text a credential. */
static bool follows_scheme(const char *text, const char *run)
{
    static const char *const schemes[] = {"Bearer ", "Basic "};

    for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
        size_t len = strlen(schemes[i]);

        if ((size_t)(run - text) >= len && strncasecmp(run - len, schemes[i], len) == 0)
            return true;
    }
    return false;
}

static bool is_secret_run(const char *text, const char *run, size_t len)
{
    return len >= SECRET_MIN || (len > 16 && strncmp(run, "eyJ", 3) == 0) ||
           (len >= MIXED_MIN && is_mixed(run, len)) || (len > 0 && follows_scheme(text, run));
}

/* Copies a message for the client: short, and without anything that looks like a credential. */
static void clean_text(const char *text, char out[TEXT_MAX + 1])
{
    const char *start = text;
    size_t len = 0;

    while (*text != '\0' && len < TEXT_MAX) {
        size_t run = run_of_key_letters(text);
        bool is_secret = is_secret_run(start, text, run);
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
