#include "common/config_parse.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/utf8.h"

#define PATH_BYTES sizeof(((struct config_error *)NULL)->path)

/* Makes what came from the file fit for a terminal: no control characters, no half character at
 * the end where it was cut. */
static void clean(char *text)
{
    size_t len = strlen(text);

    while (len > 0) {
        size_t width = utf8_width(text, len);

        if (width == 0) {
            *text = '\0';
            return;
        }
        if (iscntrl((unsigned char)*text))
            *text = '?';
        text += width;
        len -= width;
    }
}

static void fill_error(const struct config_parser *p, const char *path, const char *format,
                       va_list args)
{
    struct config_error *e = p->e;

    e->line = 0;
    e->column = 0;
    snprintf(e->path, sizeof(e->path), "%s", path);
    vsnprintf(e->text, sizeof(e->text), format, args);
    clean(e->path);
    clean(e->text);
}

static void locate(const struct config_parser *p, size_t offset)
{
    node_position(p->source->text, p->source->len, offset, &p->e->line, &p->e->column);
}

int config_fail(const struct config_parser *p, const struct node *at, const char *format, ...)
{
    char path[PATH_BYTES];
    va_list args;

    node_path(at, path, sizeof(path));
    va_start(args, format);
    fill_error(p, path, format, args);
    va_end(args);
    locate(p, at->offset);
    return -EINVAL;
}

int config_fail_name(const struct config_parser *p, const struct node *at, const char *format, ...)
{
    char path[PATH_BYTES];
    va_list args;

    node_path(at, path, sizeof(path));
    va_start(args, format);
    fill_error(p, path, format, args);
    va_end(args);
    locate(p, at->key_offset);
    return -EINVAL;
}

int config_fail_path(const struct config_parser *p, const char *path, const char *format, ...)
{
    const struct node *at = node_find(p->root, path);
    va_list args;

    va_start(args, format);
    fill_error(p, path, format, args);
    va_end(args);
    if (at != NULL)
        locate(p, at->offset);
    return -EINVAL;
}

int config_fail_memory(const struct config_parser *p)
{
    memset(p->e, 0, sizeof(*p->e));
    snprintf(p->e->text, sizeof(p->e->text), "out of memory");
    return -ENOMEM;
}

int config_fail_syntax(const struct config_parser *p, size_t offset, const char *why)
{
    memset(p->e, 0, sizeof(*p->e));
    snprintf(p->e->text, sizeof(p->e->text), "%s", why);
    locate(p, offset);
    return -EINVAL;
}
