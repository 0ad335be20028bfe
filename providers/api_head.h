/* api_head.h - the head of an API call: what every adapter writes alike. */
#ifndef XROUTER_PROVIDERS_API_HEAD_H
#define XROUTER_PROVIDERS_API_HEAD_H

#include "providers/provider.h"

#define API_USER_AGENT "xrouter/" XROUTER_VERSION

/* "{method} {the base URL's path}{endpoint}", Host and User-Agent. standard_path is what a base URL
 * without any path means ("/v1"). 0 or XR_EUPSTREAMAUTH (the URL is not valid). */
int api_head_begin(struct buf *head, const char *method, const char *base_url,
                   const char *standard_path, const char *endpoint, struct error *e);
/* A header whose value is scheme, a space and the secret; scheme "" = the secret alone. */
void api_head_put_secret(struct buf *head, const char *name, const char *scheme,
                         const char *secret);
/* Content-Length of the body, which is complete (a GET has none), and the empty line. Returns 0;
 * XR_EUPSTREAMAUTH (a configured value cannot be sent), XR_ETOOLARGE (the body), -ENOMEM. */
int api_head_end(struct upstream_request *r, struct error *e);

#endif
