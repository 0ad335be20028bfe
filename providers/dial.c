#include "providers/dial.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/error.h"

/* What curl_easy_recv gives at once over TLS; libcurl holds such a buffer only while it connects.
 */
#define TLS_READ_BYTES 16384L
#define PLAIN_READ_BYTES 1024L
#define URL_BYTES 300
#define RESOLVE_BYTES (256 + 16 + ADDRESSES_PER_HOST * (ADDRESS_TEXT_BYTES + 3))

struct option {
    CURLoption name;
    long value;
};

static const struct option OPTIONS[] = {
    {CURLOPT_CONNECT_ONLY, 1},
    {CURLOPT_NOSIGNAL, 1},
    {CURLOPT_FOLLOWLOCATION, 0},
    {CURLOPT_TCP_NODELAY, 1},
    {CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1}, /* else ALPN would choose h2 */
    {CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2}, /* or newer */
    /* A handle serves one connection: a session kept in it would never be used again. */
    {CURLOPT_SSL_SESSIONID_CACHE, 0},
};

static CURLcode set_files(CURL *easy, const struct dial_files *files)
{
    CURLcode rc = CURLE_OK;

    if (*files->ca != '\0') {
        rc = curl_easy_setopt(easy, CURLOPT_CAINFO, files->ca);
        if (rc == CURLE_OK)
            rc = curl_easy_setopt(easy, CURLOPT_CAPATH, NULL); /* this file alone */
    }
    if (rc == CURLE_OK && *files->client_cert != '\0')
        rc = curl_easy_setopt(easy, CURLOPT_SSLCERT, files->client_cert);
    if (rc == CURLE_OK && *files->client_key != '\0')
        rc = curl_easy_setopt(easy, CURLOPT_SSLKEY, files->client_key);
    return rc;
}

static CURLcode set_options(CURL *easy, const struct dial *dial, void *arg)
{
    char url[URL_BYTES];
    CURLcode rc = CURLE_OK;

    snprintf(url, sizeof(url), "%s://%s/", dial->tls ? "https" : "http", dial->authority);
    for (size_t i = 0; rc == CURLE_OK && i < sizeof(OPTIONS) / sizeof(OPTIONS[0]); i++)
        rc = curl_easy_setopt(easy, OPTIONS[i].name, OPTIONS[i].value);
    if (rc == CURLE_OK)
        rc = curl_easy_setopt(easy, CURLOPT_URL, url);
    if (rc == CURLE_OK)
        rc = curl_easy_setopt(easy, CURLOPT_PRIVATE, arg);
    if (rc == CURLE_OK)
        rc = curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    if (rc == CURLE_OK)
        rc = curl_easy_setopt(easy, CURLOPT_NOPROXY, "*"); /* none from the environment */
    if (rc == CURLE_OK)
        rc = curl_easy_setopt(easy, CURLOPT_BUFFERSIZE,
                              dial->tls ? TLS_READ_BYTES : PLAIN_READ_BYTES);
    if (rc == CURLE_OK)
        rc = curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)dial->connect_ms);
    if (rc == CURLE_OK && dial->tls)
        rc = set_files(easy, &dial->files);
    return rc;
}

CURL *dial_new(const struct dial *dial, void *arg)
{
    CURL *easy = curl_easy_init();

    if (easy != NULL && set_options(easy, dial, arg) != CURLE_OK) {
        curl_easy_cleanup(easy);
        return NULL;
    }
    return easy;
}

int dial_set_addresses(CURL *easy, const struct dial *dial, const struct address_list *addresses,
                       struct curl_slist **list)
{
    char text[RESOLVE_BYTES];
    int at = snprintf(text, sizeof(text), "%s:%u:", dial->host, (unsigned)dial->port);

    for (size_t i = 0; i < addresses->count && at > 0 && (size_t)at < sizeof(text); i++) {
        const char *address = addresses->text[i];
        bool is_v6 = strchr(address, ':') != NULL;

        at += snprintf(text + at, sizeof(text) - (size_t)at, "%s%s%s%s", i == 0 ? "" : ",",
                       is_v6 ? "[" : "", address, is_v6 ? "]" : "");
    }
    assert(at > 0 && (size_t)at < sizeof(text)); /* sized for the longest list */
    *list = curl_slist_append(NULL, text);
    if (*list == NULL)
        return -ENOMEM;
    return curl_easy_setopt(easy, CURLOPT_RESOLVE, *list) == CURLE_OK ? 0 : -ENOMEM;
}

int dial_explain(CURLcode code, const char **reason)
{
    switch ((int)code) {
    case CURLE_OUT_OF_MEMORY:
        *reason = "out of memory";
        return -ENOMEM;
    case CURLE_OPERATION_TIMEDOUT:
        *reason = "no connection in time";
        return XR_ETIMEOUT;
    case CURLE_COULDNT_CONNECT:
        *reason = "it cannot be connected to";
        return XR_EUPSTREAM;
    case CURLE_PEER_FAILED_VERIFICATION:
        *reason = "its certificate is not trusted";
        return XR_EUPSTREAM;
    case CURLE_SSL_CACERT_BADFILE:
        *reason = "its CA bundle cannot be read";
        return XR_EUPSTREAM;
    case CURLE_SSL_CERTPROBLEM:
        *reason = "our certificate for it cannot be used";
        return XR_EUPSTREAM;
    case CURLE_SSL_CONNECT_ERROR:
        *reason = "the TLS handshake did not succeed";
        return XR_EUPSTREAM;
    default:
        *reason = "the connection could not be made";
        return XR_EUPSTREAM;
    }
}
