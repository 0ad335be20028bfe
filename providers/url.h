/* url.h - the http and https URLs of the config, taken apart. */
#ifndef XROUTER_PROVIDERS_URL_H
#define XROUTER_PROVIDERS_URL_H

#include <stdbool.h>
#include <stdint.h>

struct url_parts {
    bool tls;
    char host[256]; /* lower case, without brackets */
    uint16_t port;
    const char *path;    /* "" or from its '/'; inside the URL */
    char authority[272]; /* for the Host header: the port only if it is not the scheme's own */
};

/* Takes a URL with a name or an address, no user, no fragment, every byte printable ASCII. Names
 * are letters, digits, '-', '_' and dots, with no dot at the end (libcurl would look for another
 * text than ours in its table of addresses, and ask a resolver). Returns 0 or -EINVAL. */
int url_split(const char *url, struct url_parts *out);

/* Whether the host needs no look-up. */
bool url_host_is_numeric(const char *host);

#endif
