#include "gateway/ctl/ctl.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/frame.h"
#include "common/json.h"

#define WRITER_WAIT_MS 5000 /* it may be starting again just now */
#define ANSWER_MS 30000     /* a report over a long time takes its time */
#define RETRY_NS 20000000   /* 20 ms */

static const struct {
    const char *socket;
    const char *name;
    int64_t wait_ms; /* for somebody to listen */
} servers[] = {
    [CTL_MASTER] = {"master.sock", "the master", 0},
    [CTL_WRITER] = {"writer.sock", "the usage-writer", WRITER_WAIT_MS},
};

/* What an answer may hold: a list goes in frames, a report in one. */
static const struct json_limits answer_limits = {.depth = 16, .elements = FRAME_MAX};

struct connection {
    const struct ctl_call *call;
    char path[PATH_MAX];
    int64_t deadline_ms; /* until when a connection may be tried (again) */
    struct buf answer;
    bool has_answer; /* a frame came: no second try */
};

static bool is_nobody_there(int rc)
{
    return rc == -ENOENT || rc == -ECONNREFUSED || rc == -ENOTDIR;
}

static bool is_lost(int rc)
{
    return rc == -ECONNRESET || rc == -EPIPE;
}

static void pause_before_retry(void)
{
    const struct timespec pause = {.tv_nsec = RETRY_NS};

    nanosleep(&pause, NULL);
}

static int connect_patiently(const struct connection *c)
{
    for (;;) {
        int64_t left_ms = c->deadline_ms - clock_monotonic_ms();
        int fd = frame_connect(c->path, left_ms > 0 ? left_ms : 1);

        if (!is_nobody_there(fd) || left_ms <= 0)
            return fd;
        pause_before_retry();
    }
}

static enum ctl_exit handle_error(const cJSON *error)
{
    const char *message = json_string(error, "message");
    const char *code = json_string(error, "code");

    return ctl_refuse("%s", message != NULL ? message : code != NULL ? code : "refused");
}

/* One frame. *done tells whether it was the last. */
static enum ctl_exit handle_answer(struct connection *c, bool *done)
{
    struct ctl_answer answer = {.text = c->answer.data, .len = c->answer.len};
    cJSON *tree = json_parse(answer.text, answer.len, &answer_limits, NULL, NULL);
    const cJSON *error = json_get(tree, "error");
    enum ctl_exit status = CTL_OK;

    c->has_answer = true;
    *done = false;
    if (!cJSON_IsObject(tree) || json_get_bool(tree, "done", done) == -EINVAL)
        status = ctl_refuse("%s: an answer that makes no sense", servers[c->call->server].name);
    else if (cJSON_IsObject(error))
        status = handle_error(error);
    else if (c->call->on_answer != NULL) {
        answer.tree = tree;
        status = c->call->on_answer(c->call->arg, &answer);
    }
    cJSON_Delete(tree);
    return status;
}

/* Sends and reads on one connection. A negative *rc says why it broke off before an end. */
static enum ctl_exit converse(struct connection *c, int fd, int *rc)
{
    enum ctl_exit status = CTL_OK;
    bool done = false;

    *rc = frame_send(fd, c->call->request, ANSWER_MS);
    while (*rc == 0 && status == CTL_OK && !done) {
        *rc = frame_recv(fd, &c->answer, ANSWER_MS);
        if (*rc == 0)
            status = handle_answer(c, &done);
    }
    return status;
}

static enum ctl_exit explain(const struct connection *c, int rc)
{
    const char *name = servers[c->call->server].name;

    if (is_nobody_there(rc)) {
        ctl_complain("not running: nobody listens at %s", c->path);
        return CTL_NOT_RUNNING;
    }
    if (is_lost(rc) && c->has_answer)
        return ctl_refuse("%s ended in the middle of its answer", name);
    if (is_lost(rc) && !c->call->repeatable)
        return ctl_refuse("%s ended before it answered: it may have done what was asked", name);
    if (is_lost(rc))
        return ctl_refuse("%s ended before it answered", name);
    if (rc == -ETIMEDOUT)
        return ctl_refuse("%s does not answer", name);
    return ctl_refuse("%s: %s", c->path, strerror(-rc));
}

enum ctl_exit ctl_call(const struct ctl *ctl, const struct ctl_call *call)
{
    struct connection c = {.call = call};
    enum ctl_exit status = CTL_OK;
    int n, rc;

    if (call->request->err != 0)
        return ctl_refuse("%s", strerror(-call->request->err));
    n = snprintf(c.path, sizeof(c.path), "%s/%s", ctl->config->runtime_dir,
                 servers[call->server].socket);
    if (n < 0 || (size_t)n >= sizeof(c.path))
        return explain(&c, -ENAMETOOLONG);
    c.deadline_ms = clock_monotonic_ms() + servers[call->server].wait_ms;
    buf_init_secret(&c.answer, FRAME_MAX); /* a new key's text passes through */
    do {
        int fd = connect_patiently(&c);

        rc = fd;
        if (fd < 0)
            break;
        status = converse(&c, fd, &rc);
        close(fd);
    } while (is_lost(rc) && call->repeatable && !c.has_answer &&
             clock_monotonic_ms() < c.deadline_ms);
    if (rc < 0)
        status = explain(&c, rc);
    buf_clear(&c.answer);
    return status;
}

static void put_members(const struct ctl_answer *answer, struct buf *out)
{
    const cJSON *item;

    buf_byte(out, '{');
    cJSON_ArrayForEach(item, answer->tree)
    {
        if (strcmp(item->string, "done") == 0)
            continue;
        json_put_key(out, item->string);
        json_put_tree(out, item);
    }
    buf_byte(out, '}');
}

enum ctl_exit ctl_print_member(const struct ctl_answer *answer, const char *name)
{
    enum ctl_exit status;
    const char *value;
    struct buf out;
    size_t len;

    buf_init_secret(&out, FRAME_MAX + 2);
    if (name == NULL) {
        put_members(answer, &out);
    } else if (json_slice(answer->text, answer->len, name, &value, &len) == 0) {
        json_minify(&out, value, len);
    } else {
        buf_clear(&out);
        return ctl_refuse("an answer without \"%s\"", name);
    }
    status = ctl_print_line(&out);
    buf_clear(&out);
    return status;
}
