#define _GNU_SOURCE 1 /* memfd_create, F_ADD_SEALS */
#include "gateway/reload.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/log.h"
#include "gateway/instance.h"
#include "gateway/notify.h"

#define CONFIG_TEXT_MAX ((size_t)64 * 1024 * 1024)

static const char *file_of(const struct config *config)
{
    return config->file[0] == '\0' ? NULL : config->file;
}

/* Gives next the values of now for every option that a reload does not change. They are swapped
 * with those of a copy of now, so that each stays owned once. */
static int keep_restart_options(struct config *next, const struct config *now)
{
    struct config_error error;
    struct config *copy = NULL;
    struct buf text;
    int rc;

    buf_init(&text, CONFIG_TEXT_MAX);
    rc = config_encode(now, true, &text);
    if (rc == 0)
        rc = config_decode(text.data, text.len, &copy, &error);
    buf_wipe(&text);
    if (copy == NULL)
        return rc;
#define SWAP_yes(field)
#define SWAP_no(field)                               \
    {                                                \
        __typeof__(next->field) value = next->field; \
        next->field = copy->field;                   \
        copy->field = value;                         \
    }
#define X(type, field, path, standard, min, max, reload, unit, help) SWAP_##reload(field)
    CONFIG_OPTIONS(X)
#undef X
    config_unref(copy);
    return 0;
}

static int write_all(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);

        if (n == -1 && errno == EINTR)
            continue;
        if (n == -1)
            return -errno;
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

/* fd of memory that nobody can change any more, or -errno. */
static int seal_config(const struct config *config)
{
    struct buf text;
    int fd, rc;

    buf_init(&text, CONFIG_TEXT_MAX);
    rc = config_encode(config, true, &text);
    fd = rc < 0 ? -1 : memfd_create("xrouter-config", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (rc == 0)
        rc = fd == -1 ? -errno : write_all(fd, text.data, text.len);
    if (rc == 0 &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) == -1)
        rc = -errno;
    buf_wipe(&text);
    if (rc == 0)
        return fd;
    if (fd != -1)
        close(fd);
    return rc;
}

static int load(const struct master *m, struct config **out, struct buf *why)
{
    struct config_error error = {0};
    int rc = config_load(file_of(m->config), out, &error);

    if (rc < 0)
        config_error_format(&error, m->config->file, why);
    return rc;
}

/* Everything that can fail, before anything changes. fd or -errno. */
static int prepare(struct master *m, struct config *next, struct buf *restart, struct buf *why)
{
    size_t told = why->len;
    int rc;

    config_restart_needed(m->config, next, restart);
    rc = keep_restart_options(next, m->config);
    next->generation = m->config->generation + 1;
    if (rc == 0)
        rc = instance_register(&m->instance, next, why);
    if (rc == 0)
        rc = seal_config(next);
    if (rc < 0 && why->len == told)
        buf_printf(why, "the new configuration cannot be handed over: %s", strerror(-rc));
    return rc;
}

static void take_over(struct master *m, struct config *next, int fd)
{
    enum log_level level;

    children_set_config(m->children, next);
    children_tell_all(m->children, CONTROL_CONFIG, 0, fd);
    config_unref(m->config);
    m->config = next;
    m->log_level = -1;
    if (log_level_parse(next->log_level, &level) == 0)
        log_set_level(level);
    counter_inc(&master_counters(m)->reloads_total);
}

int master_reload(struct master *m, struct buf *restart, struct buf *why)
{
    struct config *next = NULL;
    int fd, rc;

    (void)notify_send("RELOADING=1"); /* telling systemd is a courtesy here */
    rc = load(m, &next, why);
    fd = rc < 0 ? rc : prepare(m, next, restart, why);
    if (fd < 0) {
        config_unref(next);
        counter_inc(&master_counters(m)->reload_failures_total);
        log_event(LOG_ERROR, "reload_refused", "", "the configuration stays as it was: %s",
                  buf_text(why) == NULL ? "" : buf_text(why));
        (void)notify_send("READY=1\nSTATUS=Serving; the last reload was refused");
        return fd;
    }
    take_over(m, next, fd);
    close(fd);
    if (restart->len > 0)
        log_event(LOG_WARN, "reloaded", "",
                  "configuration %llu is in force, but these options need a restart: %s",
                  (unsigned long long)next->generation, buf_text(restart));
    else
        log_event(LOG_INFO, "reloaded", "", "configuration %llu is in force",
                  (unsigned long long)next->generation);
    (void)notify_send("READY=1\nSTATUS=Serving");
    return 0;
}
