/* GET /v1/models and /v1/balance. */
#include "providers/gigachat.h"

#include <string.h>

#include "common/json.h"
#include "providers/api_head.h"

static int encode_get(const struct provider_config *p, const char *endpoint,
                      const struct upstream_call *call, struct upstream_request *out,
                      struct error *e)
{
    int rc = gigachat_head_begin(&out->head, "GET", p->base_url, endpoint, e);

    if (rc < 0)
        return rc;
    gigachat_put_authorization(&out->head, p, call->token);
    http1_put_header(&out->head, "Accept", "application/json");
    http1_put_header(&out->head, "X-Request-ID", call->request_id);
    return api_head_end(out, e);
}

int gigachat_encode_models(const struct provider_config *p, const struct upstream_call *call,
                           struct upstream_request *out, struct error *e)
{
    return encode_get(p, "/models", call, out, e);
}

int gigachat_encode_balance(const struct provider_config *p, const struct upstream_call *call,
                            struct upstream_request *out, struct error *e)
{
    return encode_get(p, "/balance", call, out, e);
}

static bool read_balance(const cJSON *item, struct account_balance *out)
{
    const char *model = json_string(item, "usage");

    if (model == NULL || strlen(model) >= sizeof(out->model) ||
        json_get_i64(item, "value", &out->tokens) < 0)
        return false;
    memcpy(out->model, model, strlen(model) + 1);
    return true;
}

int gigachat_decode_balance(const char *body, size_t len, struct account_balances *out,
                            struct error *e)
{
    cJSON *root = json_parse(body, len, &JSON_LIMITS_DEFAULT, NULL, NULL);
    const cJSON *list = json_get(root, "balance");
    bool is_list = cJSON_IsArray(list);
    const cJSON *item;

    memset(out, 0, sizeof(*out));
    cJSON_ArrayForEach(item, list)
    {
        if (out->count < BALANCES_MAX && read_balance(item, &out->of[out->count]))
            out->count++;
    }
    cJSON_Delete(root);
    if (is_list)
        return 0;
    return error_set(e, XR_EUPSTREAM, NULL, "The provider told a balance that is none.");
}
