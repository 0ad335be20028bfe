/* config_text.h - what writes nested JSON from the option tables. Private to the config files. */
#ifndef XROUTER_COMMON_CONFIG_TEXT_H
#define XROUTER_COMMON_CONFIG_TEXT_H

#include "common/buf.h"
#include "common/config_table.h"

struct option_visitor {
    void (*on_option)(void *arg, const struct option *o, const char *name, struct buf *out);
    /* A section of the table; the objects and arrays around it are open. */
    void (*on_section)(void *arg, const char *path, const char *name, struct buf *out);
    const char *open, *close; /* what stands around an inner object's members */
    void *arg;
};

/* Calls the visitor for the table's options and sections as a tree: for an option "listen.tls.key"
 * the keys "listen" and "tls" are written once, with everything inside. */
void options_walk(const struct option_table *table, const struct option_visitor *visitor,
                  struct buf *out);

/* Appends the JSON in text with line breaks and two spaces a level. */
void text_indent(const struct buf *text, struct buf *out);

#endif
