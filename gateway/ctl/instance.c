#include "gateway/ctl/ctl.h"

#include <stdio.h>

#include "common/frame.h"
#include "common/json.h"
#include "common/log.h"

struct order {
    const struct ctl *ctl;
    const char *said; /* for people, once it is done */
};

static enum ctl_exit on_done(void *arg, const struct ctl_answer *answer)
{
    const struct order *order = arg;
    const cJSON *result = json_get(answer->tree, "result");
    const char *restart =
        json_string(cJSON_IsObject(result) ? result : answer->tree, "restart_needed");

    if (order->ctl->options.json)
        return ctl_print_member(answer, cJSON_IsObject(result) ? "result" : NULL);
    if (restart != NULL && restart[0] != '\0')
        printf("%s; these count only after a restart: %s\n", order->said, restart);
    else
        printf("%s\n", order->said);
    return CTL_OK;
}

static void begin_request(struct buf *request, const char *op)
{
    buf_init(request, FRAME_MAX);
    buf_byte(request, '{');
    json_put_field_text(request, "op", op);
}

/* Ends the request, sends it and frees it. */
static enum ctl_exit ask_master(const struct ctl *ctl, struct buf *request, const char *said)
{
    struct order order = {.ctl = ctl, .said = said};
    enum ctl_exit status;

    buf_byte(request, '}');
    status = ctl_call(
        ctl, &(struct ctl_call){
                 .server = CTL_MASTER, .request = request, .on_answer = on_done, .arg = &order});
    buf_clear(request);
    return status;
}

enum ctl_exit ctl_reload(struct ctl *ctl)
{
    struct buf request;

    begin_request(&request, "reload");
    return ask_master(ctl, &request, "reloaded");
}

enum ctl_exit ctl_drain(struct ctl *ctl)
{
    struct buf request;

    begin_request(&request, "drain");
    if (ctl->options.timeout_ms >= 0)
        json_put_field_i64(&request, "timeout_ms", ctl->options.timeout_ms);
    else
        json_put_field_text(&request, "timeout_ms", NULL);
    return ask_master(ctl, &request, "draining");
}

enum ctl_exit ctl_stop(struct ctl *ctl)
{
    struct buf request;

    begin_request(&request, "stop");
    return ask_master(ctl, &request, "stopping");
}

enum ctl_exit ctl_log_level(struct ctl *ctl)
{
    enum log_level level;
    struct buf request;

    if (log_level_parse(ctl->args[0], &level) < 0)
        return ctl_usage_error("\"%s\" is none of debug, info, warn, error", ctl->args[0]);
    begin_request(&request, "log-level");
    json_put_field_text(&request, "level", log_level_name(level));
    return ask_master(ctl, &request, "done");
}

enum ctl_exit ctl_kill(struct ctl *ctl)
{
    char id_text[CTL_REQUEST_ID_BYTES];
    struct buf request;

    if (ctl_request_id_parse(ctl->args[0], id_text) < 0)
        return ctl_usage_error("\"%s\" is no request id: see `xrouterctl requests`", ctl->args[0]);
    begin_request(&request, "kill");
    json_put_field_text(&request, "id", id_text);
    return ask_master(ctl, &request, "killed");
}
