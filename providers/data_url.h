/* data_url.h - RFC 2397's URLs, which carry the bytes themselves: how OpenAI's requests hold images
 * and files. */
#ifndef XROUTER_PROVIDERS_DATA_URL_H
#define XROUTER_PROVIDERS_DATA_URL_H

#include <stdbool.h>

#define DATA_URL_TYPE_BYTES 96

struct data_url {
    char type[DATA_URL_TYPE_BYTES]; /* in small letters, without its parameters */
    const char *base64;             /* not empty, not checked; inside the URL */
};

/* data:TYPE[;NAME=VALUE...];base64,BYTES. False: it is something else. */
bool data_url_read(const char *url, struct data_url *out);

#endif
