#include "providers/gigachat.h"

#include <string.h>

#include "common/secret.h"
#include "providers/api_head.h"
#include "providers/url.h"

#define UUID_TEXT_BYTES 37

/* Whether the path names a version already ("/api/v1"). */
static bool has_version(const char *path, size_t len)
{
    size_t digits = 0;

    while (digits < len && path[len - digits - 1] >= '0' && path[len - digits - 1] <= '9')
        digits++;
    return digits > 0 && len >= digits + 2 && path[len - digits - 1] == 'v' &&
           path[len - digits - 2] == '/';
}

static void put_request_line(struct buf *out, const char *method, const char *base_path,
                             const char *endpoint)
{
    size_t len = strlen(base_path);
    struct buf target;
    const char *text;

    while (len > 0 && base_path[len - 1] == '/')
        len--;
    buf_init(&target, HTTP1_HEAD_MAX);
    buf_append(&target, base_path, len);
    if (endpoint[0] != '\0' && !has_version(base_path, len))
        buf_str(&target, "/v1");
    buf_str(&target, endpoint);
    if (target.len == 0)
        buf_byte(&target, '/');
    text = buf_text(&target);
    if (text == NULL)
        out->err = target.err;
    else
        http1_put_request_line(out, method, text);
    buf_clear(&target);
}

int gigachat_head_begin(struct buf *head, const char *method, const char *base_url,
                        const char *endpoint, struct error *e)
{
    struct url_parts url;

    if (url_split(base_url, &url) < 0)
        return error_set(e, XR_EUPSTREAMAUTH, NULL, "The provider's %s is not valid.",
                         endpoint[0] == '\0' ? "auth_url" : "base_url");
    put_request_line(head, method, url.path, endpoint);
    http1_put_header(head, "Host", url.authority);
    http1_put_header(head, "User-Agent", API_USER_AGENT); /* without one the API says 403 */
    return 0;
}

void gigachat_put_uuid(struct buf *head, const char *name, const uint8_t bytes[UUID_BYTES],
                       unsigned version)
{
    uint8_t b[UUID_BYTES];
    static const size_t GROUPS[] = {8, 4, 4, 4, 12};
    char hex[2 * UUID_BYTES + 1];
    char text[UUID_TEXT_BYTES], *at = text;
    const char *from = hex;

    memcpy(b, bytes, sizeof(b));
    b[6] = (uint8_t)((b[6] & 0x0f) | (version << 4));
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80); /* the variant of RFC 9562 */
    hex_encode(b, sizeof(b), hex);
    for (size_t i = 0; i < sizeof(GROUPS) / sizeof(GROUPS[0]); i++) {
        memcpy(at, from, GROUPS[i]);
        from += GROUPS[i];
        at += GROUPS[i];
        *at++ = from < hex + sizeof(hex) - 1 ? '-' : '\0';
    }
    http1_put_header(head, name, text);
}
