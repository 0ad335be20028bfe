#include "common/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "common/utf8.h"

#define X(name, status, type, code, domain, retry, text) \
    {name, status, type, code, DOMAIN_##domain, retry, text},
static const struct error_info error_infos[] = {XR_ERRORS(X)};
#undef X

#define ERROR_COUNT (sizeof(error_infos) / sizeof(error_infos[0]))

/* Makes text that may come from outside fit to print; cut says that its end is missing. */
static void tidy(char *text, bool cut)
{
    size_t len = strlen(text);

    if (cut)
        text[utf8_cut(text, len)] = '\0';
    for (char *c = text; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
}

static const char *message_of(const struct error *e)
{
    return e->message[0] != '\0' ? e->message : error_info(e->number)->text;
}

int error_set(struct error *e, int number, const char *param, const char *format, ...)
{
    va_list args;
    int n;

    if (e == NULL)
        return number;
    e->number = number;
    n = snprintf(e->param, sizeof(e->param), "%s", param == NULL ? "" : param);
    tidy(e->param, n >= (int)sizeof(e->param));
    e->message[0] = '\0';
    if (format == NULL)
        return number;
    va_start(args, format);
    n = vsnprintf(e->message, sizeof(e->message), format, args);
    va_end(args);
    tidy(e->message, n >= (int)sizeof(e->message));
    return number;
}

const struct error_info *error_info(int number)
{
    if (number > XR_ERROR_BASE && number < XR_ERROR_END)
        return &error_infos[number - XR_ERROR_BASE - 1];
    return &error_infos[XR_EINTERNAL - XR_ERROR_BASE - 1];
}

const struct error_info *error_at(size_t index)
{
    return &error_infos[index];
}

size_t error_count(void)
{
    return ERROR_COUNT;
}

const char *fault_domain_name(enum fault_domain domain)
{
    switch (domain) {
    case DOMAIN_CLIENT:
        return "client";
    case DOMAIN_POLICY:
        return "policy";
    case DOMAIN_PROVIDER:
        return "provider";
    case DOMAIN_GATEWAY:
        return "gateway";
    case DOMAIN_OTHER:
        return "other";
    }
    return "other";
}

void error_encode(const struct error *e, struct buf *out)
{
    const struct error_info *info = error_info(e->number);

    buf_str(out, "{\"error\":{");
    json_put_field_text(out, "message", message_of(e));
    json_put_field_text(out, "type", info->type);
    json_put_field_text(out, "param", e->param[0] == '\0' ? NULL : e->param);
    json_put_field_text(out, "code", info->code);
    buf_str(out, "}}");
}
