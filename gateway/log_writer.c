#define _GNU_SOURCE 1 /* tee, pipe2 */
#include "gateway/log_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/log.h"

#define BATCH_BYTES (64 * 1024)

enum { STREAM_ERROR, STREAM_ACCESS, STREAMS };

struct log_stream {
    int pipe;
    int copy[2]; /* of what is at the pipe's front */
    char *file;  /* "" = fallback_fd */
    int fallback_fd;
    int fd; /* where lines go */
};

struct log_writer {
    struct log_stream streams[STREAMS];
    char *batch;
    int wake; /* eventfd */
    atomic_bool reopen, finish, done;
    _Atomic uint64_t lost;
    pthread_t thread;
};

static int open_target(const struct log_stream *s)
{
    int fd;

    if (s->file[0] == '\0')
        return s->fallback_fd;
    fd = open(s->file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    return fd == -1 ? -errno : fd;
}

static int write_all(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);

        if (n >= 0) {
            data += n;
            len -= (size_t)n;
        } else if (errno == EAGAIN) {
            struct pollfd room = {.fd = fd, .events = POLLOUT};

            (void)poll(&room, 1, -1);
        } else if (errno != EINTR) {
            return -errno;
        }
    }
    return 0;
}

static uint64_t count_lines(const char *data, size_t len)
{
    uint64_t lines = 0;

    for (size_t i = 0; i < len; i++)
        lines += data[i] == '\n';
    return lines;
}

static void write_batch(struct log_writer *w, const struct log_stream *s, size_t len)
{
    if (write_all(s->fd, w->batch, len) < 0)
        atomic_fetch_add(&w->lost, count_lines(w->batch, len));
}

/* Reads up to len bytes into the batch; fewer only when the pipe has no more. */
static size_t read_batch(struct log_writer *w, int fd, size_t len)
{
    size_t have = 0;

    while (have < len) {
        ssize_t n = read(fd, w->batch + have, len - have);

        if (n <= 0 && errno != EINTR)
            break;
        if (n > 0)
            have += (size_t)n;
    }
    return have;
}

/* Bytes moved, 0 = the pipe is empty. */
static size_t move_batch(struct log_writer *w, struct log_stream *s)
{
    ssize_t n = tee(s->pipe, s->copy[1], BATCH_BYTES, SPLICE_F_NONBLOCK);
    size_t len;

    if (n == -1 && errno != EAGAIN && errno != EINTR) {
        /* Without the copy a kill could lose this batch; better that than never writing it. */
        len = read_batch(w, s->pipe, BATCH_BYTES);
        write_batch(w, s, len);
        return len;
    }
    if (n <= 0)
        return 0;
    len = read_batch(w, s->copy[0], (size_t)n);
    write_batch(w, s, len);
    return read_batch(w, s->pipe, len);
}

static void reopen_files(struct log_writer *w)
{
    for (size_t i = 0; i < STREAMS; i++) {
        struct log_stream *s = &w->streams[i];
        int fd = open_target(s);

        if (fd < 0) {
            log_event(LOG_ERROR, "log_reopen_failed", "", "%s cannot be opened again: %s", s->file,
                      strerror(-fd));
            continue;
        }
        if (s->fd != s->fallback_fd)
            close(s->fd);
        s->fd = fd;
    }
}

static void wait_for_lines(const struct log_writer *w)
{
    uint64_t count;
    struct pollfd fds[] = {
        {.fd = w->streams[STREAM_ERROR].pipe, .events = POLLIN},
        {.fd = w->streams[STREAM_ACCESS].pipe, .events = POLLIN},
        {.fd = w->wake, .events = POLLIN},
    };

    if (poll(fds, sizeof(fds) / sizeof(fds[0]), -1) > 0 && (fds[2].revents & POLLIN) != 0)
        while (read(w->wake, &count, sizeof(count)) == -1 && errno == EINTR)
            ;
}

static void *log_writer_main(void *arg)
{
    struct log_writer *w = arg;

    for (;;) {
        bool finish = atomic_load(&w->finish); /* before the last look at the pipes */
        size_t moved = 0;

        if (atomic_exchange(&w->reopen, false))
            reopen_files(w);
        for (size_t i = 0; i < STREAMS; i++)
            moved += move_batch(w, &w->streams[i]);
        if (moved > 0)
            continue;
        if (finish)
            break;
        wait_for_lines(w);
    }
    atomic_store(&w->done, true);
    return NULL;
}

static int open_stream(struct log_stream *s, int pipe_fd, const char *file, int fallback_fd)
{
    s->pipe = pipe_fd;
    s->fallback_fd = fallback_fd;
    s->file = strdup(file);
    if (s->file == NULL)
        return -ENOMEM;
    if (pipe2(s->copy, O_CLOEXEC) == -1)
        return -errno;
    s->fd = open_target(s);
    return s->fd < 0 ? s->fd : 0;
}

static void free_memory(struct log_writer *w)
{
    for (size_t i = 0; i < STREAMS; i++) {
        struct log_stream *s = &w->streams[i];

        for (size_t j = 0; j < 2; j++)
            if (s->copy[j] >= 0)
                close(s->copy[j]);
        if (s->fd >= 0 && s->fd != s->fallback_fd)
            close(s->fd);
        free(s->file);
    }
    if (w->wake >= 0)
        close(w->wake);
    free(w->batch);
    free(w);
}

struct log_writer *log_writer_new(int error_pipe, const char *error_file, int access_pipe,
                                  const char *access_file)
{
    struct log_writer *w = calloc(1, sizeof(*w));
    bool is_off = strcmp(access_file, "off") == 0;
    int rc;

    if (w == NULL)
        return NULL;
    for (size_t i = 0; i < STREAMS; i++)
        w->streams[i] = (struct log_stream){.pipe = -1, .copy = {-1, -1}, .fd = -1};
    w->batch = malloc(BATCH_BYTES);
    w->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    rc = w->batch == NULL ? -ENOMEM : w->wake == -1 ? -errno : 0;
    if (rc == 0)
        rc = open_stream(&w->streams[STREAM_ERROR], error_pipe, error_file, STDERR_FILENO);
    if (rc == 0)
        rc = open_stream(&w->streams[STREAM_ACCESS], access_pipe, is_off ? "" : access_file,
                         STDOUT_FILENO);
    if (rc == 0)
        rc = -pthread_create(&w->thread, NULL, log_writer_main, w);
    if (rc == 0)
        return w;
    free_memory(w);
    errno = -rc;
    return NULL;
}

static void wake(const struct log_writer *w)
{
    const uint64_t one = 1;

    /* EAGAIN: it has been woken often enough. */
    while (write(w->wake, &one, sizeof(one)) == -1 && errno == EINTR)
        ;
}

void log_writer_reopen(struct log_writer *w)
{
    atomic_store(&w->reopen, true);
    wake(w);
}

uint64_t log_writer_lost(const struct log_writer *w)
{
    return atomic_load(&w->lost);
}

void log_writer_finish(struct log_writer *w)
{
    atomic_store(&w->finish, true);
    wake(w);
}

bool log_writer_is_done(const struct log_writer *w)
{
    return atomic_load(&w->done);
}

void log_writer_free(struct log_writer *w)
{
    if (w == NULL || !log_writer_is_done(w))
        return;
    pthread_join(w->thread, NULL);
    free_memory(w);
}
