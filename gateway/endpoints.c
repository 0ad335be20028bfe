#include "gateway/endpoints.h"

#include <string.h>

#include "common/json.h"
#include "gateway/account.h"
#include "gateway/chat.h"
#include "gateway/ops.h"
#include "gateway/token_count.h"

static void put_model(struct buf *out, const struct config *config, const struct model_config *m)
{
    const char *owner = config->providers[m->candidates[0].provider_index].name;

    buf_byte(out, '{');
    json_put_field_text(out, "id", m->id);
    json_put_field_text(out, "object", "model");
    json_put_field_i64(out, "created", 0);
    json_put_field_text(out, "owned_by", owner);
    json_put_field_u64(out, "context_length", m->context_tokens);
    buf_byte(out, '}');
}

static bool is_listed(const struct http_request *r, const struct model_config *m)
{
    return m->candidate_count > 0 && key_may_use_model(&r->key, m->id);
}

/* GET /v1/models: those that this key may use. */
static void handle_models(void *arg, struct http_request *r)
{
    struct buf body;

    buf_init(&body, SIZE_MAX);
    buf_str(&body, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < r->config->model_count; i++) {
        const struct model_config *m = &r->config->models[i];

        if (!is_listed(r, m))
            continue;
        if (body.len > 0 && body.data[body.len - 1] == '}')
            buf_byte(&body, ',');
        put_model(&body, r->config, m);
    }
    buf_str(&body, "]}");
    http_answer(r, 200, "application/json", &body);
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The path's last part up to the query, with %XX undone ("gigachat%2FGigaChat-2" is what SDKs
 * send). False when it does not fit or is not well-formed. */
static bool unescape(const char *text, char *out, size_t max)
{
    size_t n = 0;

    for (; *text != '\0' && *text != '?'; text++) {
        char c = *text;

        if (c == '%') {
            int high = hex_value(text[1]);
            int low = high < 0 ? -1 : hex_value(text[2]);

            if (low < 0 || (high == 0 && low == 0))
                return false;
            c = (char)(high * 16 + low);
            text += 2;
        }
        if (n + 1 >= max)
            return false;
        out[n++] = c;
    }
    out[n] = '\0';
    return true;
}

/* GET /v1/models/{id} */
static void handle_model(void *arg, struct http_request *r)
{
    char name[CHAT_MODEL_BYTES];
    const struct model_config *m = NULL;
    struct buf body;

    if (unescape(r->rest, name, sizeof(name)))
        m = config_model(r->config, name, strlen(name));
    if (m == NULL || !is_listed(r, m)) {
        struct error e = {0};

        error_set(&e, XR_EMODEL, "model",
                  "There is no such model; GET /v1/models lists those that this key may use.");
        http_answer_error(r, &e);
        return;
    }
    buf_init(&body, SIZE_MAX);
    put_model(&body, r->config, m);
    http_answer(r, 200, "application/json", &body);
}

/* method  path                    key    public handler */
const struct endpoint ENDPOINTS[] = {
    {"POST", "/v1/chat/completions", true, true, chat_handle},
    {"POST", "/v1/tokens/count", true, true, token_count_handle},
    {"GET", "/v1/models", true, true, handle_models},
    {"GET", "/v1/models/", true, true, handle_model},
    {"GET", "/v1/key", true, true, account_handle_key},
    {"GET", "/v1/usage", true, true, account_handle_usage},
    {"GET", "/v1/generation", true, true, account_handle_generation},
    {"GET", "/v1/providers/status", true, true, account_handle_providers},
    {"GET", "/health", false, false, ops_handle_health},
    {"GET", "/ready", false, false, ops_handle_ready},
    {"GET", "/metrics", false, false, ops_handle_metrics},
    {NULL, NULL, false, false, NULL},
};
