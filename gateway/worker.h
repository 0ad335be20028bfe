/* worker.h - what a request worker owns; handlers get it as their context. */
#ifndef XROUTER_GATEWAY_WORKER_H
#define XROUTER_GATEWAY_WORKER_H

#include "gateway/child.h"
#include "gateway/counting.h"
#include "gateway/httpd.h"
#include "gateway/settlement.h"
#include "router/dispatch.h"
#include "router/inquiry.h"
#include "usage/sender.h"

struct asker; /* gateway/ask.h */
struct chat;  /* gateway/chat.h */

struct worker {
    const struct child_setup *setup;
    struct child *child;
    struct loop *loop;
    struct config *config; /* for new requests; referenced */
    struct counters *counters;
    struct httpd *httpd;
    struct upstreams *upstreams;
    struct token_source *tokens;
    struct engine engine;
    struct dispatcher dispatcher;
    struct inquirer *inquirer;
    struct outbox *outbox;
    struct settlements settlements;
    struct usage_sender *sender;
    char *usage_socket;
    struct handover *handover; /* answers for Idempotency-Keys, on their way to the ledger */
    size_t collected_bytes;    /* of such answers, while their requests run */
    struct asker *asker;       /* what only the ledger knows */
    struct chat *chats;        /* all that are not completed */
    struct counting counting;  /* prompts */
    struct timer drain_timer;
    bool draining;
    bool stopping;   /* the drain's deadline has passed: what runs is cut */
    bool expired;    /* and the grace after it: who has not read the end by now never will */
    bool has_killed; /* a row may be marked: look */
};

#endif
