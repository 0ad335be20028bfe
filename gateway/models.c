#include "gateway/models.h"

#include <string.h>

#include "common/clock.h"
#include "common/json.h"
#include "common/money.h"
#include "providers/chat_request.h"
#include "providers/parameters.h"

#define PRICE_UNIT "credits per 1M tokens; request: credits each"

static const struct provider_config *provider_at(const struct config *config,
                                                 const struct model_config *m, size_t candidate)
{
    return &config->providers[m->candidates[candidate].provider_index];
}

static bool is_of_embeddings(const struct model_config *m)
{
    return strcmp(m->kind, "embeddings") == 0;
}

static bool is_supported(const struct config *config, const struct model_config *m,
                         const char *parameter)
{
    if (is_of_embeddings(m))
        return false; /* they are a chat's */
    for (size_t i = 0; i < m->candidate_count; i++)
        if (candidate_supports(provider_at(config, m, i), &m->candidates[i], parameter))
            return true;
    return false;
}

static bool takes_images(const struct config *config, const struct model_config *m)
{
    if (is_of_embeddings(m))
        return false;
    for (size_t i = 0; i < m->candidate_count; i++)
        if (candidate_takes_images(provider_at(config, m, i), &m->candidates[i]))
            return true;
    return false;
}

static void put_parameters(struct buf *out, const struct config *config,
                           const struct model_config *m)
{
    bool is_first = true;

    json_put_key(out, "supported_parameters");
    buf_byte(out, '[');
    for (size_t i = 0; PARAMETERS[i] != NULL; i++) {
        if (!is_supported(config, m, PARAMETERS[i]))
            continue;
        buf_str(out, is_first ? "" : ",");
        json_put_text(out, PARAMETERS[i]);
        is_first = false;
    }
    buf_byte(out, ']');
}

static void put_amount(struct buf *out, const char *name, int64_t nano)
{
    char text[MONEY_TEXT_BYTES];

    money_format(nano, text);
    json_put_field_text(out, name, text);
}

/* The first candidate's: others may have prices of their own. */
static void put_pricing(struct buf *out, const struct config *config, const struct model_config *m)
{
    const struct price price = candidate_price_at(m, &m->candidates[0], clock_now_at_ms());

    json_put_key(out, "pricing");
    buf_byte(out, '{');
    json_put_field_text(out, "unit", PRICE_UNIT);
    json_put_field_text(out, "currency", config->currency);
    put_amount(out, "prompt", price.input_nano);
    put_amount(out, "completion", price.output_nano);
    put_amount(out, "request", price.request_nano);
    put_amount(out, "input_cache_read", price.cached_input_nano);
    buf_byte(out, '}');
}

static void put_architecture(struct buf *out, const struct config *config,
                             const struct model_config *m)
{
    json_put_key(out, "architecture");
    buf_str(out, takes_images(config, m) ? "{\"input_modalities\":[\"text\",\"image\"]"
                                         : "{\"input_modalities\":[\"text\"]");
    buf_str(out, is_of_embeddings(m) ? ",\"output_modalities\":[\"embeddings\"]"
                                     : ",\"output_modalities\":[\"text\"]");
    json_put_field_text(out, "tokenizer", m->tokenizer);
    buf_byte(out, '}');
}

static uint32_t context_of(const struct model_config *m, size_t candidate)
{
    uint32_t own = m->candidates[candidate].context_tokens;

    return own > 0 ? own : m->context_tokens;
}

/* Of all candidates: a prompt may be as long as that. */
static uint32_t longest_context(const struct model_config *m)
{
    uint32_t longest = 0;

    for (size_t i = 0; i < m->candidate_count; i++)
        if (context_of(m, i) > longest)
            longest = context_of(m, i);
    return longest;
}

static void put_model(struct buf *out, const struct config *config, const struct model_config *m)
{
    buf_byte(out, '{');
    json_put_field_text(out, "id", m->id);
    json_put_field_text(out, "object", "model");
    json_put_field_i64(out, "created", 0);
    json_put_field_text(out, "owned_by", provider_at(config, m, 0)->name);
    json_put_field_text(out, "name", m->id);
    json_put_field_u64(out, "context_length", longest_context(m));
    json_put_field_u64(out, "max_output_tokens", m->max_output_tokens);
    put_architecture(out, config, m);
    put_pricing(out, config, m);
    json_put_key(out, "top_provider");
    buf_byte(out, '{');
    json_put_field_u64(out, "context_length", context_of(m, 0));
    json_put_field_u64(out, "max_completion_tokens", m->max_output_tokens);
    buf_byte(out, '}');
    put_parameters(out, config, m);
    buf_byte(out, '}');
}

static bool is_listed(const struct http_request *r, const struct model_config *m)
{
    return m->candidate_count > 0 && key_may_use_model(&r->key, m->id);
}

void models_handle_list(void *arg, struct http_request *r)
{
    bool is_first = true;
    struct buf body;

    buf_init(&body, SIZE_MAX);
    buf_str(&body, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < r->config->model_count; i++) {
        const struct model_config *m = &r->config->models[i];

        if (!is_listed(r, m))
            continue;
        buf_str(&body, is_first ? "" : ",");
        put_model(&body, r->config, m);
        is_first = false;
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

/* The model that the rest of the address names; NULL after an answer: there is none for this key.
 */
static const struct model_config *find_model(struct http_request *r)
{
    const struct model_config *m = NULL;
    char name[CHAT_MODEL_BYTES];
    struct error e = {0};

    if (unescape(r->rest, name, sizeof(name)))
        m = config_model(r->config, name, strlen(name));
    if (m != NULL && is_listed(r, m))
        return m;
    error_set(&e, XR_EMODEL, "model",
              "There is no such model; GET /v1/models lists those that this key may use.");
    http_answer_error(r, &e);
    return NULL;
}

void models_handle_one(void *arg, struct http_request *r)
{
    const struct model_config *m = find_model(r);
    struct buf body;

    if (m == NULL)
        return;
    buf_init(&body, SIZE_MAX);
    put_model(&body, r->config, m);
    http_answer(r, 200, "application/json", &body);
}

void models_handle_parameters(void *arg, struct http_request *r)
{
    const struct model_config *m = find_model(r);
    struct buf body;

    if (m == NULL)
        return;
    buf_init(&body, SIZE_MAX);
    buf_str(&body, "{\"data\":{");
    json_put_field_text(&body, "model", m->id);
    put_parameters(&body, r->config, m);
    buf_str(&body, "}}");
    http_answer(r, 200, "application/json", &body);
}
