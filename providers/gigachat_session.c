#include "providers/gigachat.h"

#include <errno.h>
#include <string.h>

#include "common/json.h"
#include "common/secret.h"

#define BEGINNING_BYTES 2000

/* The messages a conversation begins with, its first question included: later turns have them too.
 * Trees, not the client's bytes: white space is free to change. */
static void put_beginning(const cJSON *messages, struct buf *out)
{
    const cJSON *message;

    cJSON_ArrayForEach(message, messages)
    {
        const char *role = json_string(message, "role");
        const cJSON *content = json_get(message, "content");

        json_put_text(out, role);
        if (content != NULL)
            json_put_tree(out, content);
        if (strcmp(role, "user") == 0)
            return;
    }
}

int gigachat_put_session(const char *upstream_model, const struct model_request *req,
                         struct buf *head, struct error *e)
{
    uint8_t digest[DIGEST_BYTES];
    struct buf text;
    int rc;

    if (req->key_id == 0)
        return 0;
    buf_init(&text, UPSTREAM_BODY_MAX);
    (void)buf_room(&text, BEGINNING_BYTES); /* in one go; a longer one grows */
    buf_u64(&text, req->key_id);
    json_put_text(&text, upstream_model);
    put_beginning(req->messages, &text);
    rc = text.err < 0 ? text.err : secret_sha256(text.data, text.len, digest);
    buf_clear(&text);
    if (rc < 0)
        return error_set(e, rc == -EMSGSIZE ? XR_ETOOLARGE : -ENOMEM, NULL, NULL);
    gigachat_put_uuid(head, "X-Session-ID", digest, 8); /* 8: made of whatever its maker likes */
    return 0;
}
