#include "providers/gigachat.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "common/secret.h"
#include "providers/url.h"

#define USER_AGENT "xrouter/" XROUTER_VERSION /* without one the API says 403 */
#define TOKEN_LIFE_MS INT64_C(1800000)
#define SECONDS_BELOW INT64_C(1000000000000) /* an expiry under this is in seconds */
#define UUID_TEXT_BYTES 37

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

static int uuid4_format(char out[UUID_TEXT_BYTES])
{
    uint8_t b[16];
    char hex[33];
    int rc = secret_random(b, sizeof(b));

    if (rc < 0)
        return rc;
    b[6] = (uint8_t)((b[6] & 0x0f) | 0x40); /* version 4 */
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80); /* RFC 4122's variant */
    hex_encode(b, sizeof(b), hex);
    snprintf(out, UUID_TEXT_BYTES, "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16,
             hex + 20);
    return 0;
}

/* Whether the path names a version already ("/api/v1"). */
static bool has_version(const char *path, size_t len)
{
    size_t digits = 0;

    while (digits < len && path[len - digits - 1] >= '0' && path[len - digits - 1] <= '9')
        digits++;
    return digits > 0 && len >= digits + 2 && path[len - digits - 1] == 'v' &&
           path[len - digits - 2] == '/';
}

static void put_request_line(struct buf *out, const char *base_path, const char *endpoint)
{
    size_t len = strlen(base_path);
    struct buf target;
    const char *text;

    while (len > 0 && base_path[len - 1] == '/')
        len--;
    buf_init(&target, HTTP1_HEAD_MAX);
    buf_append(&target, base_path, len);
    if (endpoint[0] != '\0' && !has_version(base_path, len))
        buf_str(&target, "/v1");
    buf_str(&target, endpoint);
    if (target.len == 0)
        buf_byte(&target, '/');
    text = buf_text(&target);
    if (text == NULL)
        out->err = target.err;
    else
        http1_put_request_line(out, "POST", text);
    buf_clear(&target);
}

static void put_credential(struct buf *out, const char *scheme, const char *secret)
{
    struct buf value;
    const char *text;

    buf_init_secret(&value, HTTP1_HEAD_MAX);
    buf_str(&value, scheme);
    buf_byte(&value, ' ');
    buf_str(&value, secret);
    text = buf_text(&value);
    if (text == NULL)
        out->err = value.err;
    else
        http1_put_header(out, "Authorization", text);
    buf_clear(&value);
}

static void put_length(struct buf *out, size_t len)
{
    char text[24];

    snprintf(text, sizeof(text), "%zu", len);
    http1_put_header(out, "Content-Length", text);
    buf_str(out, "\r\n");
}

/* What could not be written: memory, or a configured value that no header can hold. */
static int check_request(const struct upstream_request *r, struct error *e)
{
    if (r->head.err == -ENOMEM || r->body.err == -ENOMEM)
        return error_set(e, -ENOMEM, NULL, NULL);
    if (r->head.err < 0)
        return error_set(e, XR_EUPSTREAMAUTH, NULL,
                         "The provider's address, credentials or access token cannot be sent.");
    return r->body.err < 0 ? error_set(e, XR_ETOOLARGE, NULL, NULL) : 0;
}

static int encode_token(const struct provider_config *p, struct upstream_request *out,
                        struct error *e)
{
    struct url_parts url;
    char uuid[UUID_TEXT_BYTES];
    struct buf *head = &out->head;

    if (p->credentials == NULL || p->credentials[0] == '\0')
        return error_set(e, XR_EUPSTREAMAUTH, NULL, "The provider's credentials are not set.");
    if (url_split(p->auth_url, &url) < 0)
        return error_set(e, XR_EUPSTREAMAUTH, NULL, "The provider's auth_url is not valid.");
    if (uuid4_format(uuid) < 0)
        return error_set(e, XR_EINTERNAL, NULL, NULL);
    buf_str(&out->body, "scope=");
    buf_str(&out->body, p->scope); /* one of three words of letters and '_' */
    put_request_line(head, url.path, "");
    http1_put_header(head, "Host", url.authority);
    put_credential(head, "Basic", p->credentials);
    http1_put_header(head, "RqUID", uuid);
    http1_put_header(head, "User-Agent", USER_AGENT);
    http1_put_header(head, "Content-Type", "application/x-www-form-urlencoded");
    http1_put_header(head, "Accept", "application/json");
    put_length(head, out->body.len);
    return check_request(out, e);
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

static int decode_token(unsigned status, const char *body, size_t len, int64_t now_at_ms,
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

static int encode_chat(const struct provider_config *p, const char *upstream_model,
                       const struct chat_request *req, const char *token, const char *request_id,
                       struct upstream_request *out, struct buf *ignored, struct error *e)
{
    struct url_parts url;
    struct buf *head = &out->head;
    int rc;

    if (url_split(p->base_url, &url) < 0)
        return error_set(e, XR_EUPSTREAMAUTH, NULL, "The provider's base_url is not valid.");
    rc = gigachat_encode_body(upstream_model, req, &out->body, ignored, e);
    if (rc < 0)
        return rc;
    put_request_line(head, url.path, "/chat/completions");
    http1_put_header(head, "Host", url.authority);
    put_credential(head, "Bearer", token);
    http1_put_header(head, "User-Agent", USER_AGENT);
    http1_put_header(head, "Content-Type", "application/json");
    http1_put_header(head, "Accept", req->stream ? "text/event-stream" : "application/json");
    if (req->stream)
        http1_put_header(head, "Cache-Control", "no-store");
    http1_put_header(head, "X-Request-ID", request_id);
    put_length(head, out->body.len);
    out->wants_stream = req->stream;
    return check_request(out, e);
}

const struct provider_ops gigachat_ops = {
    .name = "gigachat",
    .framing = FRAMING_SSE,
    .encode_token = encode_token,
    .decode_token = decode_token,
    .encode_chat = encode_chat,
    .stream_new = gigachat_stream_new,
    .stream_free = gigachat_stream_free,
    .decode_event = gigachat_decode_event,
    .decode_end = gigachat_decode_end,
    .decode_chat = gigachat_decode_chat,
    .map_error = gigachat_map_error,
};
