#include "gateway/ctl/ctl.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/utf8.h"

#define TABLE_BYTES_MAX (64 * 1024 * 1024)
#define COLUMN_GAP 2

static void complain(const char *format, va_list args)
{
    fputs("xrouterctl: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
}

void ctl_complain(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    complain(format, args);
    va_end(args);
}

enum ctl_exit ctl_usage_error(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    complain(format, args);
    va_end(args);
    return CTL_USAGE;
}

enum ctl_exit ctl_refuse(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    complain(format, args);
    va_end(args);
    return CTL_REFUSED;
}

enum ctl_exit ctl_print(const struct buf *text)
{
    if (text->err != 0)
        return ctl_refuse("%s", strerror(-text->err));
    if (fwrite(text->data, 1, text->len, stdout) != text->len || fflush(stdout) != 0)
        return ctl_refuse("standard output: %s", strerror(errno));
    return CTL_OK;
}

enum ctl_exit ctl_print_line(struct buf *text)
{
    buf_byte(text, '\n');
    return ctl_print(text);
}

static size_t count_characters(const char *text)
{
    size_t n = 0;

    for (; *text != '\0'; text++)
        n += utf8_is_continuation(*text) ? 0 : 1;
    return n;
}

void ctl_table_init(struct ctl_table *t, const char *alignment)
{
    t->alignment = alignment;
    t->columns = strlen(alignment);
    assert(t->columns <= CTL_COLUMNS_MAX);
    buf_init(&t->cells, TABLE_BYTES_MAX);
}

void ctl_table_clear(struct ctl_table *t)
{
    buf_clear(&t->cells);
}

void ctl_table_cell(struct ctl_table *t, const char *text)
{
    if (text == NULL || text[0] == '\0')
        text = "-";
    for (; *text != '\0'; text++) {
        bool is_control = (unsigned char)*text < 0x20 || *text == 0x7f;

        buf_byte(&t->cells, is_control ? '?' : *text);
    }
    buf_byte(&t->cells, '\0');
}

void ctl_table_cell_i64(struct ctl_table *t, int64_t value)
{
    buf_i64(&t->cells, value);
    buf_byte(&t->cells, '\0');
}

void ctl_table_heading(struct ctl_table *t, const char *names)
{
    for (; *names != '\0'; names++)
        buf_byte(&t->cells, *names == '|' ? '\0' : *names);
    buf_byte(&t->cells, '\0');
}

static void put_spaces(struct buf *out, size_t count)
{
    while (count-- > 0)
        buf_byte(out, ' ');
}

void ctl_table_render(struct ctl_table *t, struct buf *out)
{
    size_t widths[CTL_COLUMNS_MAX] = {0};
    const char *end = t->cells.data + t->cells.len;
    size_t column = 0;

    if (t->cells.err != 0) {
        out->err = out->err != 0 ? out->err : t->cells.err;
        return;
    }
    for (const char *cell = t->cells.data; cell < end; cell += strlen(cell) + 1) {
        size_t width = count_characters(cell);

        widths[column] = width > widths[column] ? width : widths[column];
        column = (column + 1) % t->columns;
    }
    assert(column == 0);
    for (const char *cell = t->cells.data; cell < end; cell += strlen(cell) + 1) {
        size_t padding = widths[column] - count_characters(cell);
        bool is_last = column + 1 == t->columns;

        if (t->alignment[column] == 'r')
            put_spaces(out, padding);
        buf_str(out, cell);
        if (t->alignment[column] == 'l' && !is_last)
            put_spaces(out, padding);
        if (is_last)
            buf_byte(out, '\n');
        else
            put_spaces(out, COLUMN_GAP);
        column = (column + 1) % t->columns;
    }
}
