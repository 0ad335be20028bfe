/* config_node.h - a JSON document with comments whose values know where they stand.
 *
 * cJSON has no positions and passes integers through a double; a configuration needs both: an
 * error names its line and column, and a number keeps its digits. */
#ifndef XROUTER_COMMON_CONFIG_NODE_H
#define XROUTER_COMMON_CONFIG_NODE_H

#include <stddef.h>

#define NODE_WHY_BYTES 96

enum node_type { NODE_NULL, NODE_BOOL, NODE_NUMBER, NODE_STRING, NODE_ARRAY, NODE_OBJECT };

struct node {
    enum node_type type;
    size_t offset;     /* of the value's first byte in the text */
    size_t key_offset; /* of its name's, for members; else as offset */
    char *key;         /* NULL outside of objects */
    char *text;        /* string: its characters; number and bool: as written; else NULL */
    size_t index;      /* place among the siblings, from 0 */
    size_t count;      /* children */
    const struct node *parent;
    struct node *first; /* children, in the text's order */
    struct node *last;
    struct node *next;
};

/* Reads the len bytes at text. Comments and line breaks may stand wherever white space may.
 * Returns 0, -EINVAL or -E2BIG (not acceptable: *offset is where and why says it), -ENOMEM. */
int node_parse(const char *text, size_t len, struct node **out, size_t *offset,
               char why[NODE_WHY_BYTES]);
void node_free(struct node *root); /* wipes the texts: some are secrets. NULL is fine */

/* The member of that name; NULL if absent, or object is NULL or none. */
const struct node *node_member(const struct node *object, const char *name);
/* The same through several levels, "listen.tls.cert". */
const struct node *node_find(const struct node *root, const char *path);
/* A member that has the name of an earlier one in its object, NULL if there is none anywhere.
 * Returns 0 or -ENOMEM. */
int node_duplicate(const struct node *root, const struct node **out);

/* "providers[0].name"; "" for the root. Cut to fit. */
void node_path(const struct node *n, char *out, size_t size);
const char *node_type_name(enum node_type type); /* "a number" */

/* Line and column (in characters), from 1, of a byte of the text. */
void node_position(const char *text, size_t len, size_t offset, unsigned *line, unsigned *column);

#endif
