#include "providers/api_head.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "providers/url.h"

static void put_target(struct buf *head, const char *method, const char *path,
                       const char *standard_path, const char *endpoint)
{
    size_t len = strlen(path);
    struct buf target;
    const char *text;

    while (len > 0 && path[len - 1] == '/')
        len--;
    buf_init(&target, HTTP1_HEAD_MAX);
    if (len > 0)
        buf_append(&target, path, len);
    else
        buf_str(&target, standard_path);
    buf_str(&target, endpoint);
    text = buf_text(&target);
    if (text == NULL)
        head->err = target.err;
    else
        http1_put_request_line(head, method, text);
    buf_clear(&target);
}

int api_head_begin(struct buf *head, const char *method, const char *base_url,
                   const char *standard_path, const char *endpoint, struct error *e)
{
    struct url_parts url;

    if (url_split(base_url, &url) < 0)
        return error_set(e, XR_EUPSTREAMAUTH, NULL, "The provider's base_url is not valid.");
    put_target(head, method, url.path, standard_path, endpoint);
    http1_put_header(head, "Host", url.authority);
    http1_put_header(head, "User-Agent", API_USER_AGENT);
    return 0;
}

void api_head_put_secret(struct buf *head, const char *name, const char *scheme, const char *secret)
{
    struct buf value;
    const char *text;

    buf_init_secret(&value, HTTP1_HEAD_MAX);
    buf_str(&value, scheme);
    if (scheme[0] != '\0')
        buf_byte(&value, ' ');
    buf_str(&value, secret);
    text = buf_text(&value);
    if (text == NULL)
        head->err = value.err;
    else
        http1_put_header(head, name, text);
    buf_clear(&value);
}

int api_head_end(struct upstream_request *r, struct error *e)
{
    char length[24];

    if (r->head.len < 4 || memcmp(r->head.data, "GET ", 4) != 0) {
        snprintf(length, sizeof(length), "%zu", r->body.len);
        http1_put_header(&r->head, "Content-Length", length);
    }
    buf_str(&r->head, "\r\n");
    if (r->head.err == -ENOMEM || r->body.err == -ENOMEM)
        return error_set(e, -ENOMEM, NULL, NULL);
    if (r->head.err < 0)
        return error_set(e, XR_EUPSTREAMAUTH, NULL,
                         "The provider's address or credentials cannot be sent.");
    return r->body.err < 0 ? error_set(e, XR_ETOOLARGE, NULL, NULL) : 0;
}
