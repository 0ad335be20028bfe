/* connector.h - one libcurl multi handle in our event loop: the sockets it is connecting and what
 * became of them. A handle that was connected stays in it, as long as its connection is used. */
#ifndef XROUTER_PROVIDERS_CONNECTOR_H
#define XROUTER_PROVIDERS_CONNECTOR_H

#include <curl/curl.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/loop.h"

/* The outcome of one handle, called from the loop. It may add and remove handles, but not free the
 * connector. */
typedef void (*connector_outcome_fn)(CURL *easy, CURLcode result);

struct connector {
    struct connector *next; /* the owner's */
    size_t count;           /* handles inside */
    bool is_busy;           /* telling outcomes: must not be freed */
    struct loop *loop;      /* private from here */
    connector_outcome_fn on_outcome;
    CURLM *multi;
    struct timer timer; /* libcurl's */
};

struct connector *connector_new(struct loop *loop, connector_outcome_fn on_outcome); /* or NULL */
/* After all handles were removed. */
void connector_free(struct connector *connector);

/* 0 or -ENOMEM. The outcome comes later, never from inside. */
int connector_add(struct connector *connector, CURL *easy);
/* Closes the handle's connection; its outcome does not come any more. */
void connector_remove(struct connector *connector, CURL *easy);

#endif
