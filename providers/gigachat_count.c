/* POST /v1/tokens/count: texts alone, without what a chat puts around them. */
#include "providers/gigachat.h"

#include "common/json.h"
#include "providers/api_head.h"

int gigachat_encode_count(const struct provider_config *p, const char *upstream_model,
                          const cJSON *input, const struct upstream_call *call,
                          struct upstream_request *out, struct error *e)
{
    int rc = gigachat_head_begin(&out->head, "POST", p->base_url, "/tokens/count", e);

    if (rc < 0)
        return rc;
    gigachat_put_authorization(&out->head, p, call->token);
    http1_put_header(&out->head, "Content-Type", "application/json");
    http1_put_header(&out->head, "Accept", "application/json");
    http1_put_header(&out->head, "X-Request-ID", call->request_id);
    buf_byte(&out->body, '{');
    json_put_field_text(&out->body, "model", upstream_model);
    json_put_key(&out->body, "input");
    if (cJSON_IsString(input))
        buf_byte(&out->body, '[');
    json_put_tree(&out->body, input);
    buf_str(&out->body, cJSON_IsString(input) ? "]}" : "}");
    return api_head_end(out, e);
}

int gigachat_decode_count(const char *body, size_t len, size_t texts, int64_t *tokens,
                          struct error *e)
{
    cJSON *root = json_parse(body, len, &JSON_LIMITS_DEFAULT, NULL, NULL);
    const cJSON *item;
    size_t found = 0;

    *tokens = 0;
    for (item = cJSON_IsArray(root) ? root->child : NULL; item != NULL; item = item->next) {
        int64_t count;

        if (json_get_i64(item, "tokens", &count) < 0 || count < 0 || count > INT32_MAX)
            break;
        *tokens += count;
        found++;
    }
    cJSON_Delete(root);
    if (found == texts)
        return 0;
    return error_set(e, XR_EUPSTREAM, NULL, "The provider counted what could not be understood.");
}
