#include "gateway/ctl/ctl.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/counters.h"
#include "common/json.h"
#include "gateway/processes.h"
#include "router/status.h"
#include "usage/calibration.h"

#define STAT_BYTES_MAX (64UL * 1024 * 1024)
#define WATCH_MS 1000

/* As many models and providers as a configuration may ask for. */
static const struct json_limits stat_limits = {.depth = 16, .elements = 10000000};

static void put_process(struct buf *out, struct process_row *row, int64_t now_ms)
{
    uint32_t pid = atomic_load(&row->pid);
    uint32_t state = atomic_load(&row->state);
    int64_t heartbeat_ms = atomic_load(&row->heartbeat_ms);

    if (pid == 0 && state == PROCESS_NONE)
        return;
    if (pid != 0 && kill((pid_t)pid, 0) == -1 && errno == ESRCH)
        state = PROCESS_DEAD; /* whoever had to note it is dead too */
    if (out->len > 0 && out->data[out->len - 1] != '[')
        buf_byte(out, ',');
    buf_byte(out, '{');
    json_put_field_text(out, "role", process_role_name((enum process_role)row->role));
    json_put_field_u64(out, "slot", row->slot);
    json_put_field_u64(out, "pid", pid);
    json_put_field_text(out, "state", process_state_name((enum process_state)state));
    if (heartbeat_ms != 0)
        json_put_field_i64(out, "heartbeat_age_ms", now_ms - heartbeat_ms);
    else
        json_put_field_text(out, "heartbeat_age_ms", NULL);
    buf_byte(out, '}');
}

static void put_listener(struct buf *out, const char *name, const char *address, size_t size)
{
    char text[64];
    size_t len = strnlen(address, size < sizeof(text) ? size : sizeof(text) - 1);

    memcpy(text, address, len);
    text[len] = '\0';
    json_put_field_text(out, name, len > 0 ? text : NULL);
}

/* A dead instance's uptime ended with its master's last heartbeat. */
static int64_t uptime_s(const struct ctl_segment *s, int64_t now_ms)
{
    struct process_row *master =
        process_row_at(s->processes, process_slot(s->processes, ROLE_MASTER));
    int64_t end_ms = s->running ? now_ms : atomic_load(&master->heartbeat_ms);
    int64_t start_ms = atomic_load(&processes_instance(s->processes)->started_ms);

    return end_ms > start_ms ? (end_ms - start_ms) / 1000 : 0;
}

static void put_stat(const struct ctl_segment *s, const struct model_gauges *ratios,
                     struct buf *out)
{
    const struct instance_row *instance = processes_instance(s->processes);
    int64_t now_ms = clock_monotonic_ms();
    char version[sizeof(instance->version)];

    snprintf(version, sizeof(version), "%.*s", (int)sizeof(version) - 1, instance->version);
    buf_byte(out, '{');
    json_put_field_bool(out, "running", s->running);
    json_put_field_text(out, "version", version);
    json_put_field_text(out, "instance", s->instance);
    json_put_field_i64(out, "uptime_s", uptime_s(s, now_ms));
    json_put_key(out, "listeners");
    buf_byte(out, '{');
    put_listener(out, "http", instance->http, sizeof(instance->http));
    put_listener(out, "https", instance->https, sizeof(instance->https));
    put_listener(out, "ops", instance->ops, sizeof(instance->ops));
    buf_byte(out, '}');
    json_put_key(out, "processes");
    buf_byte(out, '[');
    for (size_t slot = 0; slot < processes_count(s->processes); slot++)
        put_process(out, process_row_at(s->processes, slot), now_ms);
    buf_byte(out, ']');
    counters_render_json(s->counters, ratios, out);
    status_render_json(s->shm, s->counters, out);
    buf_byte(out, '}');
}

static enum ctl_exit read_stat(const struct ctl *ctl, struct buf *out)
{
    struct ctl_segment s;
    enum ctl_exit status = ctl_segment_open(ctl, &s);
    struct model_gauges ratios;

    if (status != CTL_OK)
        return status;
    ratios = calibration_gauges(calibration_region_get(s.shm));
    if (ctl->options.prom) {
        counters_render_prometheus(s.counters, &ratios, out);
        status_render_prometheus(s.shm, s.counters, out);
    } else {
        put_stat(&s, &ratios, out);
    }
    ctl_segment_close(&s);
    return CTL_OK;
}

/* The same as a tree; NULL with *status. */
static cJSON *read_tree(const struct ctl *ctl, enum ctl_exit *status)
{
    const char *why = "out of memory";
    cJSON *tree = NULL;
    struct buf text;

    buf_init(&text, STAT_BYTES_MAX);
    *status = read_stat(ctl, &text);
    if (*status == CTL_OK && text.err == 0)
        tree = json_parse(text.data, text.len, &stat_limits, NULL, &why);
    if (*status == CTL_OK && tree == NULL)
        *status = ctl_refuse("%s", why);
    buf_clear(&text);
    return tree;
}

/* Cuts the picture to the terminal's height: a picture that scrolls cannot be redrawn in place. */
static void fit_to_screen(struct buf *picture)
{
    struct winsize size;
    size_t lines = 0;

    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == -1 || size.ws_row < 2)
        return;
    for (size_t i = 0; i < picture->len; i++) {
        if (picture->data[i] != '\n' || ++lines < (size_t)size.ws_row - 1)
            continue;
        picture->len = i + 1;
        return;
    }
}

/* Goes home and overwrites line by line: clearing the screen first would flicker. */
static enum ctl_exit draw(struct buf *picture, bool is_terminal)
{
    enum ctl_exit status;
    struct buf out;

    if (!is_terminal)
        return ctl_print_line(picture);
    fit_to_screen(picture);
    buf_init(&out, 2 * STAT_BYTES_MAX);
    buf_str(&out, "\x1b[H");
    for (size_t i = 0; i < picture->len; i++) {
        if (picture->data[i] == '\n')
            buf_str(&out, "\x1b[K");
        buf_byte(&out, picture->data[i]);
    }
    buf_str(&out, "\x1b[J");
    status = ctl_print(&out);
    buf_clear(&out);
    return status;
}

/* Attaches anew for each picture: a server that was started again has another segment. */
static enum ctl_exit watch(const struct ctl *ctl)
{
    const struct timespec pause = {.tv_sec = WATCH_MS / 1000};
    bool is_terminal = isatty(STDOUT_FILENO) == 1;
    enum ctl_exit status;
    cJSON *before = read_tree(ctl, &status);
    int64_t before_ms = clock_monotonic_ms();

    if (is_terminal && before != NULL)
        fputs("\x1b[2J", stdout);
    while (before != NULL) {
        struct buf picture;
        int64_t now_ms;
        cJSON *now;

        nanosleep(&pause, NULL);
        now = read_tree(ctl, &status);
        if (now == NULL)
            break;
        now_ms = clock_monotonic_ms();
        buf_init(&picture, STAT_BYTES_MAX);
        ctl_stat_view(now, before, now_ms - before_ms, ctl->options.filter, &picture);
        status = draw(&picture, is_terminal);
        buf_clear(&picture);
        cJSON_Delete(before);
        before = status == CTL_OK ? now : NULL;
        before_ms = now_ms;
        if (before == NULL)
            cJSON_Delete(now);
    }
    cJSON_Delete(before);
    return status;
}

static enum ctl_exit print_view(const struct ctl *ctl)
{
    enum ctl_exit status;
    cJSON *stat = read_tree(ctl, &status);
    struct buf out;

    if (stat == NULL)
        return status;
    buf_init(&out, STAT_BYTES_MAX);
    ctl_stat_view(stat, NULL, 0, ctl->options.filter, &out);
    status = ctl_print(&out);
    buf_clear(&out);
    cJSON_Delete(stat);
    return status;
}

static enum ctl_exit print_text(const struct ctl *ctl)
{
    enum ctl_exit status;
    struct buf out;

    buf_init(&out, STAT_BYTES_MAX);
    status = read_stat(ctl, &out);
    if (status == CTL_OK)
        status = ctl->options.prom ? ctl_print(&out) : ctl_print_line(&out);
    buf_clear(&out);
    return status;
}

enum ctl_exit ctl_stat(struct ctl *ctl)
{
    const struct ctl_options *o = &ctl->options;

    if (o->json + o->watch + o->prom > 1)
        return ctl_usage_error("--json, --watch and --prom exclude each other");
    if (o->filter != NULL && (o->json || o->prom))
        return ctl_usage_error("--filter is for people's tables: not with --json or --prom");
    if (o->watch)
        return watch(ctl);
    return o->json || o->prom ? print_text(ctl) : print_view(ctl);
}
