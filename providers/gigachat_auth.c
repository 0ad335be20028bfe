#include "providers/gigachat.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "common/base64.h"
#include "common/json.h"
#include "common/secret.h"
#include "providers/api_head.h"

#define TOKEN_LIFE_MS INT64_C(1800000)
#define SECONDS_BELOW INT64_C(1000000000000) /* an expiry under this is in seconds */

/* What the OAuth server's error codes mean for whoever runs the gateway. */
struct oauth_error {
    int64_t code;
    const char *meaning;
};
static const struct oauth_error oauth_errors[] = {
    {1, "the scope is malformed"},
    {4, "the authorization key is not base64 of client_id:client_secret"},
    {5, "the scope is missing"},
    {6, "the authorization key is unknown"},
    {7, "the scope does not belong to the authorization key"},
};

static bool has_auth(const struct provider_config *p, const char *kind)
{
    return strcmp(p->auth, kind) == 0;
}

bool gigachat_needs_token(const struct provider_config *p)
{
    return has_auth(p, "oauth") || has_auth(p, "password");
}

void gigachat_put_authorization(struct buf *head, const struct provider_config *p,
                                const char *token)
{
    if (!has_auth(p, "certificate"))
        api_head_put_secret(head, "Authorization", "Bearer",
                            token != NULL ? token : p->credentials);
}

/* The authorization key buys a token for one scope. */
static int put_oauth_request(const struct provider_config *p, struct upstream_request *out,
                             struct error *e)
{
    uint8_t id[UUID_BYTES];
    int rc;

    if (p->credentials == NULL || p->credentials[0] == '\0')
        return error_set(e, XR_EUPSTREAMAUTH, NULL, "The provider's credentials are not set.");
    if (secret_random(id, sizeof(id)) < 0)
        return error_set(e, XR_EINTERNAL, NULL, NULL);
    rc = gigachat_head_begin(&out->head, "POST", p->auth_url, "", e);
    if (rc < 0)
        return rc;
    api_head_put_secret(&out->head, "Authorization", "Basic", p->credentials);
    gigachat_put_uuid(&out->head, "RqUID", id, 4);
    http1_put_header(&out->head, "Content-Type", "application/x-www-form-urlencoded");
    buf_str(&out->body, "scope=");
    buf_str(&out->body, p->scope); /* one of three words of letters and '_' */
    return 0;
}

/* The API itself issues a token to a user. */
static int put_password_request(const struct provider_config *p, struct upstream_request *out,
                                struct error *e)
{
    int rc = gigachat_head_begin(&out->head, "POST", p->auth_url, "/token", e);
    struct buf pair, text;

    if (rc < 0)
        return rc;
    buf_init_secret(&pair, HTTP1_HEAD_MAX);
    buf_init_secret(&text, HTTP1_HEAD_MAX);
    buf_str(&pair, p->user);
    buf_byte(&pair, ':');
    buf_str(&pair, p->password);
    if (pair.err < 0 || base64_put(&text, pair.data, pair.len) < 0 || buf_text(&text) == NULL)
        out->head.err = pair.err < 0 ? pair.err : text.err;
    else
        api_head_put_secret(&out->head, "Authorization", "Basic", buf_text(&text));
    buf_clear(&pair);
    buf_clear(&text);
    return 0;
}

int gigachat_encode_token(const struct provider_config *p, struct upstream_request *out,
                          struct error *e)
{
    int rc =
        has_auth(p, "password") ? put_password_request(p, out, e) : put_oauth_request(p, out, e);

    if (rc < 0)
        return rc;
    http1_put_header(&out->head, "Accept", "application/json");
    return api_head_end(out, e);
}

static int refuse_token(unsigned status, const cJSON *root, struct error *e)
{
    int64_t code = 0;

    /* Everything else in the 400s will be refused again until the configuration changes. */
    if (status < 400 || status > 499 || status == 408 || status == 429)
        return error_set(e, XR_EUPSTREAM, NULL,
                         "The provider's token server failed. (Its status was %u.)", status);
    if (json_get_i64(root, "code", &code) < 0)
        code = 0;
    for (size_t i = 0; i < sizeof(oauth_errors) / sizeof(oauth_errors[0]); i++)
        if (oauth_errors[i].code == code)
            return error_set(e, XR_EUPSTREAMAUTH, NULL,
                             "The provider refused the gateway's credentials: %s.",
                             oauth_errors[i].meaning);
    return error_set(e, XR_EUPSTREAMAUTH, NULL,
                     "The provider refused the gateway's credentials. (Its status was %u.)",
                     status);
}

/* A token goes into a header: visible ASCII only. */
static bool is_token_text(const char *text)
{
    size_t len = 0;

    if (text == NULL)
        return false;
    for (; text[len] != '\0'; len++)
        if (text[len] <= ' ' || text[len] > '~')
            return false;
    return len > 0;
}

static int64_t read_expiry(const cJSON *root, const char *name, int64_t now_at_ms)
{
    int64_t at = 0;

    if (json_get_i64(root, name, &at) < 0)
        at = 0;
    if (at < SECONDS_BELOW)
        at = at < 0 ? 0 : at * 1000;
    /* Absent, or one of the two clocks is wrong: it has just been issued, so it lives its usual
     * life. Taking the past at its word would fetch tokens for ever. */
    return at > now_at_ms ? at : now_at_ms + TOKEN_LIFE_MS;
}

static int read_token(cJSON *root, int64_t now_at_ms, char **token, int64_t *expires_at_ms,
                      struct error *e)
{
    bool short_names = json_get(root, "access_token") == NULL;
    const cJSON *item = json_get(root, short_names ? "tok" : "access_token");
    const char *text = cJSON_GetStringValue(item);

    if (!is_token_text(text))
        return error_set(e, XR_EUPSTREAM, NULL, "The provider's token server sent no token.");
    *token = strdup(text);
    if (*token == NULL)
        return error_set(e, -ENOMEM, NULL, NULL);
    *expires_at_ms = read_expiry(root, short_names ? "exp" : "expires_at", now_at_ms);
    explicit_bzero(item->valuestring, strlen(item->valuestring));
    return 0;
}

int gigachat_decode_token(unsigned status, const char *body, size_t len, int64_t now_at_ms,
                          char **token, int64_t *expires_at_ms, struct error *e)
{
    cJSON *root = NULL;
    int rc;

    *token = NULL;
    *expires_at_ms = 0;
    if (len > 0)
        root = json_parse(body, len, &JSON_LIMITS_DEFAULT, NULL, NULL);
    if (status != 200)
        rc = refuse_token(status, root, e);
    else
        rc = read_token(root, now_at_ms, token, expires_at_ms, e);
    cJSON_Delete(root);
    return rc;
}
