/* dial.h - the libcurl handle of one connection to be made: its options, the host's addresses, and
 * what its outcome means. */
#ifndef XROUTER_PROVIDERS_DIAL_H
#define XROUTER_PROVIDERS_DIAL_H

#include <curl/curl.h>
#include <stdbool.h>
#include <stdint.h>

#include "providers/addresses.h"

/* The PEM files of one provider's connections; "" = none. */
struct dial_files {
    const char *ca;          /* "" = the system's */
    const char *client_cert; /* ours, for a provider that knows us by it */
    const char *client_key;
};

struct dial {
    bool tls;
    uint16_t port;
    const char *host;      /* as in struct url_parts */
    const char *authority; /* likewise */
    struct dial_files files;
    int64_t connect_ms;
};

/* A handle that connects and no more, with arg as its CURLINFO_PRIVATE. NULL when out of memory. */
CURL *dial_new(const struct dial *dial, void *arg);

/* Tells the handle the host's addresses, so that nothing is looked up. *list is the caller's, freed
 * with curl_slist_free_all() once the handle is connected or gone. 0 or -ENOMEM. */
int dial_set_addresses(CURL *easy, const struct dial *dial, const struct address_list *addresses,
                       struct curl_slist **list);

/* A failed outcome: XR_EUPSTREAM, XR_ETIMEOUT or -ENOMEM, and a literal for people, without names.
 */
int dial_explain(CURLcode code, const char **reason);

#endif
