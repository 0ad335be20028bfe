/* Any bytes as a client's embeddings request, as a completion request, and as a provider's vectors:
 * the first byte chooses. What is parsed is encoded into JSON, and so is what is decoded. */
#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "common/json.h"
#include "providers/completion_answer.h"
#include "providers/completion_request.h"
#include "providers/embeddings.h"
#include "providers/embeddings_request.h"
#include "tests/unit/meter_double.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char base_url[] = "http://127.0.0.1:1", word[] = "openai", oauth[] = "oauth";
static const struct provider_config provider = {
    .base_url = base_url, .auth = oauth, .flavor = word, .credentials = word};

static void check_json(const struct buf *text)
{
    assert(json_check(text->data, text->len, &JSON_LIMITS_DEFAULT, NULL, NULL) != -EINVAL);
}

static void encode(const char *type, const struct model_request *req)
{
    const struct provider_ops *ops = provider_ops_find(type);
    bool is_chat = req->operation != OPERATION_EMBEDDINGS;
    struct upstream_request out;
    struct error e = {0};
    struct buf ignored;
    int rc;

    upstream_request_init(&out);
    buf_init(&ignored, 4096);
    rc = (is_chat ? ops->encode_chat : ops->encode_embeddings)(
        &provider, "model", req, &(struct upstream_call){.token = "token", .request_id = "id"},
        &out, &ignored, &e);
    if (rc == 0)
        check_json(&out.body);
    else
        assert(e.number == rc);
    buf_clear(&ignored);
    upstream_request_clear(&out);
}

static void parse(const char *text, size_t len, bool is_completion)
{
    struct model_request req;
    struct error e = {0};
    int rc = is_completion ? completion_request_parse(text, len, &req, &e)
                           : embeddings_request_parse(text, len, &req, &e);

    if (rc != 0) {
        assert(e.number == rc);
        return;
    }
    encode("gigachat", &req);
    encode("openai", &req);
    model_request_clear(&req);
}

static void decode(const char *text, size_t len, const char *request)
{
    static const struct answer_identity identity = {"cmpl-1", "model", 1};
    struct token_usage usage = {-1, 0, 0};
    struct meter_double meter;
    struct model_request req;
    struct error e = {0};
    struct buf out;
    bool final;
    int rc = embeddings_request_parse(request, strlen(request), &req, &e);

    assert(rc == 0);
    meter_double_init(&meter);
    buf_init(&out, (size_t)1 << 24);
    rc = embeddings_decode(&provider, &req, &identity, text, len, &out, &meter.meter, &usage,
                           &final, &e);
    if (rc == 0)
        check_json(&out);
    else
        assert(e.number == rc);
    buf_clear(&out);
    meter_double_clear(&meter);
    model_request_clear(&req);
}

static void turn(const char *text, size_t len)
{
    struct buf out;

    if (json_check(text, len, &JSON_LIMITS_DEFAULT, NULL, NULL) < 0 || text[0] != '{')
        return;
    buf_init(&out, (size_t)1 << 24);
    if (completion_answer_put(text, len, &out) == 0)
        check_json(&out);
    buf_clear(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data + 1;

    if (size < 2)
        return 0;
    switch ((uint8_t)(data[0] - '0') % 5) {
    case 0:
        parse(text, size - 1, false);
        break;
    case 1:
        parse(text, size - 1, true);
        break;
    case 2:
        decode(text, size - 1, "{\"input\":\"x\"}");
        break;
    case 3:
        decode(text, size - 1, "{\"input\":[\"x\",\"y\"],\"encoding_format\":\"base64\"}");
        break;
    default:
        turn(text, size - 1);
        break;
    }
    return 0;
}
