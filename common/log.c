#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/json.h"
#include "common/utf8.h"

#define ROLE_BYTES 24
#define MESSAGE_MAX 1024
#define FIELDS_MAX 2048 /* more would leave no room for the message */

struct stream {
    int fd;
    bool may_block; /* not O_NONBLOCK: ask before writing */
};

static struct {
    char role[ROLE_BYTES];
    int slot;
    pid_t pid;
    struct stream error;
    struct stream access;
    bool for_people; /* the error log is a terminal */
    atomic_int level;
    _Atomic uint64_t dropped;
    char pending[LOG_LINE_MAX]; /* whole lines of the access log, until log_flush() */
    size_t pending_len;
    uint64_t pending_lines;
    int64_t pending_since_ms; /* 0 = nobody has asked yet */
} logger = {
    .role = "xrouter",
    .slot = -1,
    .error = {STDERR_FILENO, true},
    .access = {STDERR_FILENO, true},
    .level = LOG_INFO,
};

static const char *const level_names[] = {"debug", "info", "warn", "error"};

static void count_dropped(uint64_t lines)
{
    atomic_fetch_add_explicit(&logger.dropped, lines, memory_order_relaxed);
}

static struct stream stream_of(int fd)
{
    int flags = fd < 0 ? 0 : fcntl(fd, F_GETFL);

    return (struct stream){fd, flags == -1 || (flags & O_NONBLOCK) == 0};
}

/* One write or none: a pipe takes up to PIPE_BUF bytes whole. The mode of somebody else's
 * descriptor (the shell's terminal) is not ours to change, so one that may block is asked first. */
static bool write_whole(const struct stream *stream, const char *text, size_t len)
{
    struct pollfd room = {.fd = stream->fd, .events = POLLOUT};
    ssize_t n;

    if (stream->fd < 0)
        return true; /* this stream is off */
    if (stream->may_block && poll(&room, 1, 0) != 1)
        return false;
    do
        n = write(stream->fd, text, len);
    while (n == -1 && errno == EINTR);
    return n == (ssize_t)len;
}

static void flush_access(void)
{
    if (logger.pending_len == 0)
        return;
    if (!write_whole(&logger.access, logger.pending, logger.pending_len))
        count_dropped(logger.pending_lines);
    logger.pending_len = 0;
    logger.pending_lines = 0;
    logger.pending_since_ms = 0;
}

/* The line lies in fixed memory of LOG_LINE_MAX bytes, which leaves room for the newline. */
static void write_error_line(struct buf *line)
{
    line->data[line->len] = '\n';
    if (!write_whole(&logger.error, line->data, line->len + 1))
        count_dropped(1);
}

/* Formats the message; what is cut ends between two characters. */
static size_t format_message(char out[MESSAGE_MAX], const char *format, va_list args)
{
    int n = vsnprintf(out, MESSAGE_MAX, format, args);

    if (n < 0)
        return 0;
    return n < MESSAGE_MAX ? (size_t)n : utf8_cut(out, MESSAGE_MAX - 1);
}

static void put_head(struct buf *line, enum log_level level, const char *event)
{
    char ts[CLOCK_TEXT_BYTES];

    clock_format(clock_now_at_ms(), ts);
    buf_byte(line, '{');
    json_put_field_text(line, "ts", ts);
    json_put_field_text(line, "level", log_level_name(level));
    json_put_field_text(line, "role", logger.role);
    if (logger.slot >= 0)
        json_put_field_i64(line, "slot", logger.slot);
    json_put_field_i64(line, "pid", logger.pid);
    json_put_field_text(line, "event", event);
}

/* Escaping may make a message six times as long: then half of it has to do. */
static void put_message(struct buf *line, const char *message, size_t len)
{
    size_t before = line->len;

    for (;;) {
        json_put_key(line, "message");
        json_put_string(line, message, len);
        buf_byte(line, '}');
        if (line->err == 0 || len == 0)
            return;
        line->err = 0;
        line->len = before;
        len /= 2;
    }
}

static void write_json(enum log_level level, const char *event, const char *fields,
                       const char *message, size_t len)
{
    char memory[LOG_LINE_MAX];
    struct buf line;

    buf_init_fixed(&line, memory, sizeof(memory));
    /* no malloc: it may be what failed */
    put_head(&line, level, event);
    if (fields[0] != '\0' && strlen(fields) <= FIELDS_MAX) {
        buf_byte(&line, ',');
        buf_str(&line, fields);
    } else if (fields[0] != '\0') {
        json_put_field_bool(&line, "fields_dropped", true);
    }
    put_message(&line, message, len);
    if (line.err != 0)
        count_dropped(1);
    else
        write_error_line(&line);
}

/* No byte that a terminal could take for a command: neither C0, DEL, C1 nor invalid UTF-8. */
static void put_printable(struct buf *line, const char *text, size_t len)
{
    for (size_t at = 0; at < len;) {
        unsigned char c = (unsigned char)text[at];
        size_t width = utf8_width(text + at, len - at);
        bool is_c1 = width == 2 && c == 0xc2 && (unsigned char)text[at + 1] < 0xa0;

        if (width == 0 || is_c1 || c < 0x20 || c == 0x7f) {
            buf_printf(line, "\\x%02x", c);
            at++;
        } else {
            buf_append(line, text + at, width);
            at += width;
        }
    }
}

static void write_for_people(enum log_level level, const char *event, const char *fields,
                             const char *message, size_t len)
{
    char memory[LOG_LINE_MAX];
    char ts[CLOCK_TEXT_BYTES];
    struct buf line;

    buf_init_fixed(&line, memory, sizeof(memory));
    clock_format(clock_now_at_ms(), ts);
    buf_printf(&line, "%.12s %-5s %s", ts + 11, log_level_name(level), logger.role);
    if (logger.slot >= 0)
        buf_printf(&line, " %d", logger.slot);
    buf_str(&line, ": ");
    if (len > 0)
        put_printable(&line, message, len);
    else
        buf_str(&line, event);
    if (fields[0] != '\0' && strlen(fields) <= LOG_LINE_MAX / 4) {
        buf_str(&line, " (");
        put_printable(&line, fields, strlen(fields));
        buf_byte(&line, ')');
    }
    /* What did not fit is missing at the end; a person is better served by the beginning. */
    write_error_line(&line);
}

void log_init(const char *role, int slot, enum log_level level)
{
    snprintf(logger.role, sizeof(logger.role), "%s", role);
    logger.slot = slot;
    logger.pid = getpid();
    logger.for_people = isatty(logger.error.fd) == 1;
    log_set_level(level);
}

void log_to(int error_fd, int access_fd)
{
    flush_access(); /* the lines belong to the old stream */
    logger.error = stream_of(error_fd);
    logger.access = stream_of(access_fd);
    logger.for_people = error_fd >= 0 && isatty(error_fd) == 1;
}

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&logger.level, (int)level, memory_order_relaxed);
}

bool log_is_on(enum log_level level)
{
    return (int)level >= atomic_load_explicit(&logger.level, memory_order_relaxed);
}

int log_level_parse(const char *text, enum log_level *out)
{
    for (size_t i = 0; i < sizeof(level_names) / sizeof(level_names[0]); i++) {
        if (strcmp(text, level_names[i]) == 0) {
            *out = (enum log_level)i;
            return 0;
        }
    }
    return -EINVAL;
}

const char *log_level_name(enum log_level level)
{
    return level_names[level];
}

uint64_t log_dropped(void)
{
    return atomic_load_explicit(&logger.dropped, memory_order_relaxed);
}

static void write_event(enum log_level level, const char *event, const char *fields,
                        const char *format, va_list args)
{
    char message[MESSAGE_MAX];
    int saved_errno = errno;
    size_t len = format_message(message, format, args);

    if (logger.for_people)
        write_for_people(level, event, fields, message, len);
    else
        write_json(level, event, fields, message, len);
    errno = saved_errno;
}

void log_event(enum log_level level, const char *event, const char *fields, const char *format, ...)
{
    va_list args;

    if (!log_is_on(level))
        return;
    va_start(args, format);
    write_event(level, event, fields, format, args);
    va_end(args);
}

void log_request_event(enum log_level level, const char *event, const char *request_id,
                       const char *format, ...)
{
    char memory[FIELDS_MAX];
    struct buf fields;
    const char *text;
    va_list args;

    if (!log_is_on(level))
        return;
    buf_init_fixed(&fields, memory, sizeof(memory));
    buf_str(&fields, "\"request_id\":");
    json_put_text(&fields, request_id);
    text = buf_text(&fields);
    va_start(args, format);
    write_event(level, event, text != NULL ? text : "", format, args);
    va_end(args);
}

void log_access(const struct buf *object)
{
    if (logger.access.fd < 0)
        return; /* switched off */
    if (object->err != 0 || object->len + 1 > LOG_LINE_MAX) {
        count_dropped(1);
        return;
    }
    if (logger.pending_len + object->len + 1 > LOG_LINE_MAX)
        flush_access();
    memcpy(logger.pending + logger.pending_len, object->data, object->len);
    logger.pending_len += object->len;
    logger.pending[logger.pending_len++] = '\n';
    logger.pending_lines++;
}

void log_flush(void)
{
    flush_access();
}

int64_t log_flush_due(int64_t now_ms)
{
    if (logger.pending_len == 0)
        return -1;
    if (logger.pending_since_ms == 0)
        logger.pending_since_ms = now_ms;
    if (now_ms - logger.pending_since_ms < LOG_DELAY_MS)
        return logger.pending_since_ms + LOG_DELAY_MS - now_ms;
    flush_access();
    return -1;
}
