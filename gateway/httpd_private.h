/* httpd_private.h - what httpd.c (connections) and http_request.c (requests) share. */
#ifndef XROUTER_GATEWAY_HTTPD_PRIVATE_H
#define XROUTER_GATEWAY_HTTPD_PRIVATE_H

#include <microhttpd.h>

#include "gateway/httpd.h"
#include "gateway/visitors.h"

/* One libmicrohttpd daemon without a listener, and the connections it was given. */
struct mhd_daemon {
    struct event_source src; /* its epoll descriptor */
    struct httpd *httpd;
    struct MHD_Daemon *mhd;
    struct mhd_daemon *next;
    int epoll_fd;
    enum listener listener;
    unsigned clients;
    bool retired;  /* gets no new connections: its certificate is an old one */
    bool readable; /* notes since the last run */
    bool resumed;
    bool worked;         /* one of our callbacks ran during the last run */
    int64_t next_run_ms; /* -1 = no need by time */
    int64_t backoff_ms;
};

struct client {
    struct event_source src; /* EPOLLRDHUP of its socket, in the worker's loop */
    struct timer timer;
    int64_t deadline_ms; /* monotonic; the timer may fire earlier and look again */
    struct mhd_daemon *daemon;
    struct MHD_Connection *connection;
    struct http_request *request; /* the one being served, NULL = idle */
    struct client *next, *prev;
    int fd;
    struct visitor *visitor;
    bool gone; /* the peer closed its side */
    char peer[46];
};

struct accept_source {
    struct event_source src;
    struct httpd *httpd;
    enum listener listener;
    int fd;
    bool watched;
};

struct httpd {
    struct httpd_setup setup;
    struct config *config;
    struct mhd_daemon *daemons;
    struct client *clients; /* all open connections */
    struct visitors *visitors;
    struct accept_source accept[LISTENER_COUNT];
    struct timer accept_timer; /* after EMFILE or at the connection limit */
    size_t client_count;
    size_t open_requests;
    bool draining;
};

/* The client's next deadline; the timer is touched only when it must fire earlier. */
void client_set_deadline(struct client *c, int64_t delay_ms);
void client_shutdown(struct client *c);

/* libmicrohttpd's callbacks about requests. */
void *on_request_begin(void *arg, const char *target, struct MHD_Connection *connection);
enum MHD_Result on_request(void *arg, struct MHD_Connection *connection, const char *url,
                           const char *method, const char *version, const char *upload,
                           size_t *upload_len, void **context);
void on_request_completed(void *arg, struct MHD_Connection *connection, void **context,
                          enum MHD_RequestTerminationCode why);
/* The client is gone or out of time: tells the handler once and ends the connection. */
void request_client_gone(struct http_request *r);

#endif
