#include "providers/gigachat.h"

#include <errno.h>

#include "common/json.h"

static bool is_given(const struct model_request *req, const char *name)
{
    const cJSON *value = json_get(req->root, name);

    return value != NULL && !cJSON_IsNull(value);
}

int gigachat_encode_embeddings(const char *upstream_model, const struct model_request *req,
                               struct buf *out, struct buf *ignored, struct error *e)
{
    struct json_span input = {NULL, 0};

    if (req->input_tokens > 0)
        return error_set(e, XR_EUNSUPPORTED, "input",
                         "'input': this model's provider takes texts, no token ids.");
    if (is_given(req, "dimensions"))
        return error_set(e, XR_EUNSUPPORTED, "dimensions",
                         "'dimensions' is not supported by the model's provider.");
    if (is_given(req, "user"))
        buf_str(ignored, "user");
    if (json_slice(req->text, req->len, "input", &input.at, &input.len) < 0)
        return error_set(e, XR_EINTERNAL, NULL, NULL); /* the parser has seen it */
    buf_byte(out, '{');
    json_put_field_text(out, "model", upstream_model);
    json_put_key(out, "input");
    buf_append(out, input.at, input.len);
    buf_byte(out, '}');
    if (out->err == -EMSGSIZE)
        return error_set(e, XR_ETOOLARGE, NULL, NULL);
    return out->err < 0 ? error_set(e, out->err, NULL, NULL) : 0;
}
