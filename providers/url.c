#include "providers/url.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "common/buf.h"

static bool is_name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool is_name(const char *host)
{
    size_t len = strlen(host);

    if (len == 0 || host[0] == '.' || host[len - 1] == '.' || strstr(host, "..") != NULL)
        return false;
    for (size_t i = 0; i < len; i++)
        if (!is_name_char(host[i]))
            return false;
    return true;
}

static const char *split_scheme(const char *url, struct url_parts *out)
{
    out->tls = strncasecmp(url, "https://", 8) == 0;
    if (out->tls)
        return url + 8;
    return strncasecmp(url, "http://", 7) == 0 ? url + 7 : NULL;
}

/* Copies the host out; returns what follows it, NULL if it is none. */
static const char *split_host(const char *text, struct url_parts *out)
{
    bool is_bracketed = *text == '[';
    size_t len;

    if (is_bracketed)
        text++;
    len = strcspn(text, is_bracketed ? "]" : ":/?#@[]");
    if (len == 0 || len >= sizeof(out->host))
        return NULL;
    for (size_t i = 0; i < len; i++)
        out->host[i] = lower(text[i]);
    out->host[len] = '\0';
    text += len;
    if (is_bracketed) {
        struct in6_addr address;

        return *text == ']' && inet_pton(AF_INET6, out->host, &address) == 1 ? text + 1 : NULL;
    }
    return is_name(out->host) ? text : NULL;
}

static const char *split_port(const char *text, struct url_parts *out)
{
    unsigned port = 0;

    out->port = out->tls ? 443 : 80;
    if (*text != ':')
        return text;
    text++;
    if (*text < '0' || *text > '9')
        return NULL;
    for (; *text >= '0' && *text <= '9'; text++) {
        port = port * 10 + (unsigned)(*text - '0');
        if (port > UINT16_MAX)
            return NULL;
    }
    out->port = (uint16_t)port;
    return port == 0 ? NULL : text;
}

static int put_authority(struct url_parts *out)
{
    bool is_bracketed = strchr(out->host, ':') != NULL;
    struct buf text;

    buf_init_fixed(&text, out->authority, sizeof(out->authority));
    buf_str(&text, is_bracketed ? "[" : "");
    buf_str(&text, out->host);
    buf_str(&text, is_bracketed ? "]" : "");
    if (out->port != (out->tls ? 443 : 80)) {
        buf_byte(&text, ':');
        buf_u64(&text, out->port);
    }
    return buf_text(&text) != NULL ? 0 : -EINVAL;
}

int url_split(const char *url, struct url_parts *out)
{
    const char *p = split_scheme(url, out);

    if (p != NULL)
        p = split_host(p, out);
    if (p != NULL)
        p = split_port(p, out);
    if (p == NULL || (*p != '\0' && *p != '/'))
        return -EINVAL;
    out->path = p;
    for (; *p != '\0'; p++)
        if (*p <= ' ' || *p > '~' || *p == '#')
            return -EINVAL;
    return put_authority(out);
}

bool url_host_is_numeric(const char *host)
{
    unsigned char address[sizeof(struct in6_addr)];

    return inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;
}
