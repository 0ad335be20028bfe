#define _GNU_SOURCE 1 /* accept4 */
#include "gateway/control_socket.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/container.h"
#include "common/frame.h"
#include "common/json.h"
#include "common/log.h"

#define CLIENTS_MAX 16
#define REQUEST_MAX (64 * 1024)
#define REQUEST_MS 10000 /* a client's time to send a request, and to take the answer */
#define READ_CHUNK 4096
#define ACCEPT_AGAIN_MS 100 /* without a free descriptor */

struct control_client {
    struct control_socket *server;
    int fd; /* -1 = place is free */
    struct event_source source;
    struct timer timer;
    struct buf in, out;
};

struct control_socket {
    struct loop *loop;
    int fd;
    struct event_source source;
    struct timer accept_timer; /* set: the listener is not watched */
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
    control_request_fn on_request;
    void *arg;
    struct control_client clients[CLIENTS_MAX];
};

static void close_client(struct control_client *client)
{
    struct loop *loop = client->server->loop;

    loop_remove(loop, client->fd, &client->source);
    loop_timer_cancel(loop, &client->timer);
    close(client->fd);
    client->fd = -1;
    buf_clear(&client->in);
    buf_clear(&client->out);
}

/* Every answer is the last one of its request here: no order of the master takes several. */
static void answer(struct control_client *client, const char *text, size_t len)
{
    struct control_socket *s = client->server;
    struct buf result, message, frame;
    cJSON *request = json_parse(text, len, &JSON_LIMITS_DEFAULT, NULL, NULL);
    const char *code;

    buf_init(&result, FRAME_MAX / 2);
    buf_init(&message, REQUEST_MAX);
    buf_init(&frame, FRAME_MAX);
    if (json_string(request, "op") == NULL) {
        code = "bad_request";
        buf_str(&message, "a request is an object with \"op\"");
    } else {
        code = s->on_request(s->arg, request, &result, &message);
    }
    cJSON_Delete(request);
    buf_str(&frame, "{\"done\":true");
    if (code == NULL) {
        json_put_key(&frame, "result");
        buf_append(&frame, result.data, result.len);
    } else {
        json_put_key(&frame, "error");
        buf_byte(&frame, '{');
        json_put_field_text(&frame, "code", code);
        json_put_key(&frame, "message");
        json_put_string(&frame, message.data, message.len);
        buf_byte(&frame, '}');
    }
    buf_byte(&frame, '}');
    if (frame.err != 0 || result.err != 0 || message.err != 0)
        client->out.err = -ENOMEM; /* the client sees its connection closed */
    else
        (void)frame_put(&client->out, frame.data, frame.len); /* kept in out.err */
    buf_clear(&result);
    buf_clear(&message);
    buf_clear(&frame);
}

/* False when the client is gone (and closed by the caller). */
static bool send_answers(struct control_client *client)
{
    while (client->out.err == 0 && client->out.len > 0) {
        ssize_t n = send(client->fd, client->out.data, client->out.len, MSG_NOSIGNAL);

        if (n == -1 && errno == EINTR)
            continue;
        if (n == -1)
            return errno == EAGAIN;
        buf_drop(&client->out, (size_t)n);
    }
    return client->out.err == 0;
}

static bool receive(struct control_client *client)
{
    for (;;) {
        char *room = buf_room(&client->in, READ_CHUNK);
        ssize_t n;

        if (room == NULL)
            return false;
        n = recv(client->fd, room, READ_CHUNK, 0);
        if (n == -1 && errno == EINTR)
            continue;
        if (n == -1)
            return errno == EAGAIN;
        if (n == 0)
            return false;
        buf_commit(&client->in, (size_t)n);
    }
}

/* Idle is fine for ever: a client may wait for the end of the connection, which is ours too. */
static int watch(struct control_client *client)
{
    struct loop *loop = client->server->loop;
    bool waits_for_us = client->in.len == 0 && client->out.len == 0;

    if (waits_for_us)
        loop_timer_cancel(loop, &client->timer);
    else if (!timer_is_set(&client->timer) && loop_timer_set(loop, &client->timer, REQUEST_MS) < 0)
        return -ENOMEM;
    return loop_modify(loop, client->fd, EPOLLIN | (client->out.len > 0 ? EPOLLOUT : 0),
                       &client->source);
}

static bool serve(struct control_client *client)
{
    const char *text;
    size_t len;
    int rc;

    if (!receive(client))
        return false;
    while ((rc = frame_peek(&client->in, &text, &len)) == 1) {
        answer(client, text, len);
        frame_drop(&client->in);
    }
    return rc == 0 && send_answers(client) && watch(client) == 0;
}

static void on_client_event(struct event_source *src, uint32_t events)
{
    struct control_client *client = container_of(src, struct control_client, source);

    if (!serve(client))
        close_client(client);
}

static void on_client_timer(struct timer *t)
{
    close_client(container_of(t, struct control_client, timer));
}

static struct control_client *free_place(struct control_socket *s)
{
    for (size_t i = 0; i < CLIENTS_MAX; i++)
        if (s->clients[i].fd == -1)
            return &s->clients[i];
    return NULL;
}

static void accept_one(struct control_socket *s, int fd)
{
    struct control_client *client = free_place(s);

    if (client == NULL || unix_peer_check(fd) < 0) {
        log_event(LOG_WARN, "control_refused", "", "a client of master.sock was refused: %s",
                  client == NULL ? "too many" : "another user's");
        close(fd);
        return;
    }
    client->fd = fd;
    buf_init(&client->in, REQUEST_MAX);
    buf_init(&client->out, (size_t)2 * FRAME_MAX);
    if (loop_timer_set(s->loop, &client->timer, REQUEST_MS) < 0 ||
        loop_add(s->loop, fd, EPOLLIN, &client->source) < 0) {
        log_event(LOG_ERROR, "control_refused", "", "a client of master.sock cannot be watched");
        close_client(client);
    }
}

static void on_listener_event(struct event_source *src, uint32_t events)
{
    struct control_socket *s = container_of(src, struct control_socket, source);
    int fd;

    while ((fd = accept4(s->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) != -1)
        accept_one(s, fd);
    if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
        return;
    /* Its client stays in the queue and would be reported again in each turn. */
    log_event(LOG_WARN, "control_refused", "", "a client of master.sock has to wait: %s",
              strerror(errno));
    if (loop_timer_set(s->loop, &s->accept_timer, ACCEPT_AGAIN_MS) == 0)
        (void)loop_modify(s->loop, s->fd, 0, &s->source); /* failing costs turns, no client */
}

static void on_accept_timer(struct timer *t)
{
    struct control_socket *s = container_of(t, struct control_socket, accept_timer);

    if (loop_modify(s->loop, s->fd, EPOLLIN, &s->source) < 0)
        log_event(LOG_ERROR, "control_failed", "", "master.sock cannot be watched any more");
}

int control_socket_open(struct loop *loop, const char *path, control_request_fn on_request,
                        void *arg, struct control_socket **out)
{
    struct control_socket *s = calloc(1, sizeof(*s));
    int rc;

    *out = NULL;
    if (s == NULL)
        return -ENOMEM;
    s->loop = loop;
    s->on_request = on_request;
    s->arg = arg;
    s->source.on_event = on_listener_event;
    s->accept_timer.on_timer = on_accept_timer;
    for (size_t i = 0; i < CLIENTS_MAX; i++) {
        s->clients[i].server = s;
        s->clients[i].fd = -1;
        s->clients[i].source.on_event = on_client_event;
        s->clients[i].timer.on_timer = on_client_timer;
    }
    snprintf(s->path, sizeof(s->path), "%s", path); /* unix_listen() refuses what does not fit */
    rc = unix_listen(path, SOCK_STREAM, 0660);
    if (rc < 0) {
        free(s);
        return rc;
    }
    s->fd = rc;
    rc = loop_add(loop, s->fd, EPOLLIN, &s->source);
    if (rc < 0) {
        control_socket_close(s);
        return rc;
    }
    *out = s;
    return 0;
}

void control_socket_close(struct control_socket *s)
{
    if (s == NULL)
        return;
    for (size_t i = 0; i < CLIENTS_MAX; i++)
        if (s->clients[i].fd != -1)
            close_client(&s->clients[i]);
    loop_timer_cancel(s->loop, &s->accept_timer);
    loop_remove(s->loop, s->fd, &s->source);
    close(s->fd);
    unlink(s->path);
    free(s);
}

void control_socket_forget(struct control_socket *s)
{
    if (s == NULL)
        return;
    for (size_t i = 0; i < CLIENTS_MAX; i++)
        if (s->clients[i].fd != -1)
            close(s->clients[i].fd);
    close(s->fd);
}
