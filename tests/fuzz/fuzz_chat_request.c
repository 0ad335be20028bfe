/* Any bytes as a client's request: parsed or refused, and what is parsed is encoded into JSON. */
#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "providers/chat_request.h"
#include "providers/provider.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char base_url[] = "http://127.0.0.1:1", auth[] = "oauth";
    const struct provider_config p = {.base_url = base_url, .auth = auth};
    struct upstream_request out;
    struct model_request req;
    struct buf ignored;
    struct error e = {0};
    int rc = chat_request_parse((const char *)data, size, &req, &e);

    if (rc != 0) {
        assert(e.number == rc);
        return 0;
    }
    req.key_id = 1;
    upstream_request_init(&out);
    buf_init(&ignored, 4096);
    rc = provider_ops_find("gigachat")
             ->encode_chat(&p, "model", &req,
                           &(struct upstream_call){.token = "token", .request_id = "id"}, &out,
                           &ignored, &e);
    if (rc == 0)
        assert(json_check(out.body.data, out.body.len, &JSON_LIMITS_DEFAULT, NULL, NULL) !=
               -EINVAL);
    else
        assert(e.number == rc);
    buf_clear(&ignored);
    upstream_request_clear(&out);
    model_request_clear(&req);
    return 0;
}
