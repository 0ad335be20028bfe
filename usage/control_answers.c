#include "usage/control_ops.h"

#include <errno.h>
#include <string.h>

#include "common/json.h"
#include "common/secret.h"
#include "usage/answers.h"

static int get_digest(const cJSON *json, const char *name, uint8_t out[USAGE_DIGEST_BYTES])
{
    const char *text = json_string(json, name);

    if (text == NULL || strlen(text) != 2 * USAGE_DIGEST_BYTES)
        return -EINVAL;
    return hex_decode(text, 2 * USAGE_DIGEST_BYTES, out);
}

/* {"digest","request"}: the two digests of usage/idempotency.h, in hex. */
static void answer_get(struct control_request *r)
{
    struct idempotency_key key;
    struct buf json;
    int rc;

    if (get_digest(r->json, "digest", key.key) < 0 ||
        get_digest(r->json, "request", key.request) < 0) {
        control_fail(r->out, "invalid_request", "digest, request: must be 32 hex digits");
        return;
    }
    control_json_init(&json);
    rc = answers_get(r->context->keystore->ledger, &key, &json);
    if (rc == 0) {
        control_put_frame(r->out, &json);
        return;
    }
    buf_clear(&json);
    if (rc == -ENOENT)
        control_fail(r->out, "answer_not_found", "no answer is stored for that key and request");
    else
        control_fail_errno(r->out, rc);
}

const struct control_op CONTROL_ANSWER_OPS[] = {
    {"answer.get", answer_get},
    {NULL, NULL},
};
