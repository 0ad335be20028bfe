#include "tests/sim/oauth.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/clock.h"
#include "common/json.h"
#include "tests/sim/sim.h"

#define TOKEN_SLOTS 4096 /* 64 * 64: a slot's number is two characters of its token */
#define TOKEN_BYTES 1233 /* makes the answer as long as the real one, 1,279 bytes */
#define TOKEN_HEAD "eyJ"
#define TOKEN_HEAD_BYTES 3
#define KEY_BYTES_MAX 1024

static const char base64url[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

struct token {
    struct sim_client *client; /* NULL: free or killed */
    int64_t expires_at_ms;
    char text[TOKEN_BYTES];
};

struct token_store {
    uint32_t next; /* the oldest token's slot is taken next */
    int64_t second_began_ms;
    uint32_t in_second;
    struct token tokens[TOKEN_SLOTS];
};

struct token_store *tokens_new(void)
{
    return calloc(1, sizeof(struct token_store));
}

void tokens_free(struct token_store *store)
{
    free(store);
}

void tokens_expire(struct token_store *store)
{
    for (size_t i = 0; i < TOKEN_SLOTS; i++)
        store->tokens[i].expires_at_ms = 0;
}

static int digit_value(char c)
{
    const char *found = c == '\0' ? NULL : strchr(base64url, c);

    return found == NULL ? -1 : (int)(found - base64url);
}

enum token_state tokens_lookup(const struct token_store *store, struct span authorization,
                               int64_t now_at_ms, struct sim_client **client)
{
    const char *text = authorization.data;
    const struct token *token;
    int high, low;

    *client = NULL;
    if (authorization.len != TOKEN_BYTES + 7 || strncasecmp(text, "Bearer ", 7) != 0)
        return TOKEN_UNKNOWN;
    text += 7;
    high = digit_value(text[TOKEN_HEAD_BYTES]);
    low = digit_value(text[TOKEN_HEAD_BYTES + 1]);
    if (high < 0 || low < 0)
        return TOKEN_UNKNOWN;
    token = &store->tokens[high * 64 + low];
    if (token->client == NULL || memcmp(token->text, text, TOKEN_BYTES) != 0)
        return TOKEN_UNKNOWN;
    if (now_at_ms >= token->expires_at_ms)
        return TOKEN_EXPIRED;
    *client = token->client;
    return TOKEN_VALID;
}

static const struct token *issue(struct sim *sim, struct sim_client *client, int64_t now_at_ms)
{
    struct token_store *store = sim->tokens;
    uint32_t slot = store->next++ % TOKEN_SLOTS;
    struct token *token = &store->tokens[slot];

    for (size_t i = 0; sim->config.single_token && i < TOKEN_SLOTS; i++) {
        if (store->tokens[i].client == client)
            store->tokens[i].client = NULL;
    }
    random_text(&sim->random, token->text, TOKEN_BYTES);
    memcpy(token->text, TOKEN_HEAD, TOKEN_HEAD_BYTES);
    token->text[TOKEN_HEAD_BYTES] = base64url[slot / 64];
    token->text[TOKEN_HEAD_BYTES + 1] = base64url[slot % 64];
    token->client = client;
    token->expires_at_ms = now_at_ms + sim->config.token_ttl_ms;
    sim->stats.tokens_issued++;
    return token;
}

static bool is_uuid(struct span text)
{
    if (text.len != UUID_BYTES - 1)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;

        if (dash ? text.data[i] != '-' : strchr("0123456789abcdefABCDEF", text.data[i]) == NULL)
            return false;
    }
    return true;
}

/* The id:secret inside "Basic ...", NUL-terminated; NULL when it is not base64 of such a pair. */
static const char *decode_key(struct span authorization, unsigned char out[KEY_BYTES_MAX])
{
    const char *text = authorization.data;
    size_t len = authorization.len;
    int n;

    if (len < 6 || strncasecmp(text, "Basic ", 6) != 0)
        return NULL;
    text += 6;
    len -= 6;
    if (len == 0 || len % 4 != 0 || len / 4 * 3 >= KEY_BYTES_MAX)
        return NULL;
    n = EVP_DecodeBlock(out, (const unsigned char *)text, (int)len);
    if (n < 3)
        return NULL;
    n -= text[len - 1] == '=';
    n -= text[len - 2] == '=';
    out[n] = '\0';
    if (strlen((char *)out) != (size_t)n || strchr((char *)out, ':') == NULL)
        return NULL;
    return (const char *)out;
}

static struct sim_client *client_by_key(const struct sim_config *config, const char *key)
{
    for (size_t i = 0; i < config->client_count; i++) {
        struct sim_client *client = &config->clients[i];
        size_t len = strlen(client->id);

        if (strncmp(key, client->id, len) == 0 && key[len] == ':' &&
            strcmp(key + len + 1, client->secret) == 0)
            return client;
    }
    return NULL;
}

/* The value of scope in the form; data is NULL when there is none. */
static struct span form_scope(const struct http_request *request)
{
    const char *form_type = "application/x-www-form-urlencoded";
    struct span left = request->body;

    if (request->content_type.len < strlen(form_type) ||
        strncasecmp(request->content_type.data, form_type, strlen(form_type)) != 0)
        return (struct span){0};
    while (left.len > 0) {
        const char *end = memchr(left.data, '&', left.len);
        size_t n = end == NULL ? left.len : (size_t)(end - left.data);

        if (n > 6 && memcmp(left.data, "scope=", 6) == 0)
            return (struct span){left.data + 6, n - 6};
        n += end == NULL ? 0 : 1;
        left = (struct span){left.data + n, left.len - n};
    }
    return (struct span){0};
}

static unsigned scope_bit(struct span scope)
{
    for (unsigned i = 0; i < SCOPE_COUNT; i++) {
        if (span_equals(scope, SIM_SCOPE_NAMES[i]))
            return 1U << i;
    }
    return 0;
}

static bool is_over_rate(struct sim *sim)
{
    struct token_store *store = sim->tokens;
    int64_t now_ms = loop_now_ms(sim->loop);

    if (now_ms - store->second_began_ms >= 1000) {
        store->second_began_ms = now_ms;
        store->in_second = 0;
    }
    return ++store->in_second > sim->config.oauth_rps && sim->config.oauth_rps > 0;
}

static int64_t reported_expiry(const struct conn *conn, int64_t expires_at_ms, int64_t now_at_ms)
{
    if (plan_has(&conn->plan, PLAN(EXPIRED_CLOCK)))
        return conn->plan.expired_clock == CLOCK_PAST ? now_at_ms - 1000 : expires_at_ms / 1000;
    return conn->sim->config.expires_unit == EXPIRES_S ? expires_at_ms / 1000 : expires_at_ms;
}

static void reply_token(struct conn *conn, struct sim_client *client)
{
    struct sim *sim = conn->sim;
    struct buf *body = sim_scratch(&sim->body);
    int64_t now_at_ms = clock_now_at_ms();
    const struct token *token = issue(sim, client, now_at_ms);
    bool is_tok = sim->config.token_shape == TOKEN_SHAPE_TOK;

    buf_byte(body, '{');
    json_put_key(body, is_tok ? "tok" : "access_token");
    json_put_string(body, token->text, TOKEN_BYTES);
    json_put_field_i64(body, is_tok ? "exp" : "expires_at",
                       reported_expiry(conn, token->expires_at_ms, now_at_ms));
    buf_byte(body, '}');
    http_reply(conn, 200, HTTP_TYPE_JSON,
               "Cache-Control: no-cache, no-store, max-age=0, must-revalidate\r\n", body->data,
               body->len);
}

void oauth_reply_error(struct conn *conn, int status, int code, const char *message)
{
    struct buf *body = sim_scratch(&conn->sim->body);

    buf_byte(body, '{');
    if (code > 0)
        json_put_field_i64(body, "code", code);
    json_put_field_text(body, "message", message);
    buf_byte(body, '}');
    http_reply(conn, status, HTTP_TYPE_JSON, "", body->data, body->len);
}

void oauth_answer(struct conn *conn)
{
    const struct sim_config *config = &conn->sim->config;
    unsigned char key_text[KEY_BYTES_MAX];
    const char *key = decode_key(conn->request.authorization, key_text);
    struct span scope = form_scope(&conn->request);
    struct sim_client *client = key == NULL ? NULL : client_by_key(config, key);
    int bad_key_status = config->bad_authorization_status == BAD_AUTHORIZATION_400 ? 400 : 401;

    if (!is_uuid(conn->request.rquid))
        oauth_reply_error(conn, 400, 0, "RqUID is missing or not a UUID");
    else if (key == NULL)
        oauth_reply_error(conn, bad_key_status, 4, "Can't decode 'Authorization' header");
    else if (client == NULL)
        oauth_reply_error(conn, 401, 6, "credentials doesn't match db data");
    else if (scope.data == NULL)
        oauth_reply_error(conn, 400, 5, "scope is empty");
    else if (scope_bit(scope) == 0)
        oauth_reply_error(conn, 400, 1, "scope data format invalid");
    else if ((client->scopes & scope_bit(scope)) == 0)
        oauth_reply_error(conn, 400, 7, "scope from db not fully includes consumed scope");
    else if (is_over_rate(conn->sim))
        oauth_reply_error(conn, 429, 0, "Too many requests");
    else
        reply_token(conn, client);
}
