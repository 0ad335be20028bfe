#include "gateway/ask.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/container.h"
#include "common/frame.h"
#include "common/json.h"
#include "usage/control.h"

#define HEADER_BYTES 4
#define IN_MAX_BYTES (FRAME_MAX + HEADER_BYTES)
#define READ_CHUNK 16384

struct ask {
    struct event_source source;
    struct timer timer;
    struct asker *asker;
    struct ask *next, *prev; /* the asker's list */
    bool is_listed;
    int fd;
    struct buf in, out;
    size_t received; /* bytes in all, dropped frames too */
    cJSON *parts;    /* NULL = none */
    ask_answer_fn on_answer;
    void *arg;
};

struct asker {
    struct loop *loop;
    struct sockaddr_un address;
    struct ask *open;
    size_t count;
};

static void unlist(struct asker *a, struct ask *ask)
{
    if (ask->prev != NULL)
        ask->prev->next = ask->next;
    else
        a->open = ask->next;
    if (ask->next != NULL)
        ask->next->prev = ask->prev;
    a->count--;
}

static void ask_free(struct ask *ask)
{
    struct asker *a = ask->asker;

    if (ask->is_listed)
        unlist(a, ask);
    loop_timer_cancel(a->loop, &ask->timer);
    if (ask->fd >= 0) {
        loop_remove(a->loop, ask->fd, &ask->source);
        close(ask->fd);
    }
    cJSON_Delete(ask->parts);
    buf_clear(&ask->in);
    buf_clear(&ask->out);
    free(ask);
}

/* The ask dies before its owner hears of it: who is told may start another in its place. */
static void finish(struct ask *ask, struct ask_answer *answer)
{
    ask_answer_fn on_answer = ask->on_answer;
    void *arg = ask->arg;
    struct buf in = ask->in; /* the answer's bytes stay for the callback */
    cJSON *parts = ask->parts;

    ask->parts = NULL;
    buf_init(&ask->in, 0);
    ask_free(ask);
    answer->parts = parts;
    on_answer(arg, answer);
    cJSON_Delete(parts);
    buf_clear(&in);
}

static void fail(struct ask *ask, int rc)
{
    struct ask_answer answer = {.rc = rc};

    finish(ask, &answer);
}

/* 0 or -errno. */
static int send_request(struct ask *ask)
{
    while (ask->out.len > 0) {
        ssize_t n = send(ask->fd, ask->out.data, ask->out.len, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n == -1 && errno == EINTR)
            continue;
        if (n == -1)
            return errno == EAGAIN ? 0 : -errno;
        buf_drop(&ask->out, (size_t)n);
    }
    return 0;
}

/* 0 or -errno; *closed: nothing follows what has come. */
static int receive(struct ask *ask, bool *closed)
{
    for (;;) {
        size_t left = IN_MAX_BYTES - ask->received;
        size_t want = left < READ_CHUNK ? left : READ_CHUNK;
        char *room;
        ssize_t n;

        if (want == 0)
            return 0; /* a whole frame, or too much: take_frames() tells */
        room = buf_room(&ask->in, want);
        if (room == NULL)
            return ask->in.err;
        n = recv(ask->fd, room, want, MSG_DONTWAIT);
        if (n > 0) {
            buf_commit(&ask->in, (size_t)n);
            ask->received += (size_t)n;
            continue;
        }
        if (n == -1 && errno == EINTR)
            continue;
        if (n == -1 && errno != EAGAIN)
            return -errno;
        *closed = n == 0;
        return 0;
    }
}

/* 0 or -ENOMEM; frame is taken over. */
static int keep_part(struct ask *ask, cJSON *frame)
{
    if (ask->parts == NULL)
        ask->parts = cJSON_CreateArray();
    if (ask->parts != NULL && cJSON_AddItemToArray(ask->parts, frame))
        return 0;
    cJSON_Delete(frame);
    return -ENOMEM;
}

static void answer_with(struct ask *ask, cJSON *json, const char *text, size_t len)
{
    struct ask_answer answer = {.json = json, .text = text, .len = len};
    const cJSON *error = json_get(json, "error");

    if (cJSON_IsObject(error)) {
        answer.error_code = json_string(error, "code");
        if (answer.error_code == NULL)
            answer.error_code = "";
    }
    finish(ask, &answer);
    cJSON_Delete(json);
}

/* 1 when the ask is answered and gone, 0 when more must come, -errno. */
static int take_frames(struct ask *ask)
{
    const char *text;
    size_t len;
    int rc;

    while ((rc = frame_peek(&ask->in, &text, &len)) == 1) {
        cJSON *json = json_parse(text, len, &JSON_LIMITS_DEFAULT, NULL, NULL);
        bool done = false;

        if (!cJSON_IsObject(json) || json_get_bool(json, "done", &done) == -EINVAL) {
            cJSON_Delete(json);
            return -EPROTO;
        }
        if (done) {
            answer_with(ask, json, text, len);
            return 1;
        }
        rc = keep_part(ask, json);
        if (rc < 0)
            return rc;
        frame_drop(&ask->in);
    }
    return rc == 0 && ask->received == IN_MAX_BYTES ? -EPROTO : rc;
}

static void on_event(struct event_source *src, uint32_t events)
{
    struct ask *ask = container_of(src, struct ask, source);
    bool was_sending = ask->out.len > 0;
    bool closed = false;
    int rc = send_request(ask);

    if (rc == 0)
        rc = receive(ask, &closed);
    if (rc == 0)
        rc = take_frames(ask);
    if (rc == 1)
        return;
    if (rc == 0 && closed)
        rc = -ECONNRESET;
    if (rc == 0 && was_sending && ask->out.len == 0)
        rc = loop_modify(ask->asker->loop, ask->fd, EPOLLIN, &ask->source);
    if (rc < 0)
        fail(ask, rc == -EPIPE ? -ECONNRESET : rc);
}

static void on_timer(struct timer *t)
{
    fail(container_of(t, struct ask, timer), -ETIMEDOUT);
}

static void list(struct asker *a, struct ask *ask)
{
    ask->next = a->open;
    if (ask->next != NULL)
        ask->next->prev = ask;
    a->open = ask;
    ask->is_listed = true;
    a->count++;
}

/* Connecting to a Unix socket is done or refused at once. The request's first bytes go out with it;
 * the rest, if the socket is full, when it has room. */
static int open_ask(struct ask *ask, int64_t timeout_ms)
{
    const struct sockaddr_un *address = &ask->asker->address;
    struct loop *loop = ask->asker->loop;
    int rc = loop_timer_set(loop, &ask->timer, timeout_ms);

    if (rc < 0)
        return rc;
    ask->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (ask->fd == -1 || connect(ask->fd, (const struct sockaddr *)address, sizeof(*address)) == -1)
        return -errno;
    rc = send_request(ask);
    if (rc < 0)
        return rc == -EPIPE ? -ECONNREFUSED : rc;
    return loop_add(loop, ask->fd, EPOLLIN | (ask->out.len > 0 ? (uint32_t)EPOLLOUT : 0),
                    &ask->source);
}

int asker_new(struct loop *loop, const char *path, struct asker **out)
{
    size_t len = strlen(path);
    struct asker *a;

    *out = NULL;
    if (len >= sizeof(a->address.sun_path))
        return -ENAMETOOLONG;
    a = calloc(1, sizeof(*a));
    if (a == NULL)
        return -ENOMEM;
    a->loop = loop;
    a->address.sun_family = AF_UNIX;
    memcpy(a->address.sun_path, path, len + 1);
    *out = a;
    return 0;
}

void asker_free(struct asker *a)
{
    if (a == NULL)
        return;
    for (struct ask *ask = a->open, *next; ask != NULL; ask = next) {
        next = ask->next;
        ask_free(ask);
    }
    free(a);
}

int ask_start(struct asker *a, const char *json, size_t len, int64_t timeout_ms,
              ask_answer_fn on_answer, void *arg, struct ask **out)
{
    struct ask *ask;
    int rc;

    *out = NULL;
    if (a->count >= CONTROL_ASKS_MAX)
        return -EBUSY;
    ask = calloc(1, sizeof(*ask));
    if (ask == NULL)
        return -ENOMEM;
    ask->source.on_event = on_event;
    ask->timer.on_timer = on_timer;
    ask->asker = a;
    ask->fd = -1;
    ask->on_answer = on_answer;
    ask->arg = arg;
    buf_init(&ask->in, IN_MAX_BYTES);
    buf_init(&ask->out, HEADER_BYTES + FRAME_MAX);
    rc = frame_put(&ask->out, json, len);
    if (rc == 0)
        rc = open_ask(ask, timeout_ms);
    if (rc < 0) {
        ask_free(ask);
        return rc;
    }
    list(a, ask);
    *out = ask;
    return 0;
}

void ask_cancel(struct ask *ask)
{
    if (ask != NULL)
        ask_free(ask);
}
