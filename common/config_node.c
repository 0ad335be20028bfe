#define _GNU_SOURCE 1 /* memmem */
#include "common/config_node.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/utf8.h"

/* Walks text that json_check() has accepted: what it expects next is always there. */
struct reader {
    const char *text;
    size_t len;
    size_t pos;
};

static void blank(char *text, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++)
        if (text[i] != '\n')
            text[i] = ' ';
}

/* Where the string that begins at pos ends, or len if it does not. */
static size_t string_end(const char *text, size_t len, size_t pos)
{
    for (pos++; pos < len; pos++) {
        if (text[pos] == '\\')
            pos++;
        else if (text[pos] == '"')
            return pos + 1;
        else if (text[pos] == '\n')
            return pos; /* json_check() will say that it is not closed */
    }
    return len;
}

/* Overwrites comments with spaces, so that everything else keeps its place.
 * -EINVAL: the comment at *offset is not closed. */
static int blank_comments(char *text, size_t len, size_t *offset)
{
    size_t pos = 0;

    while (pos < len) {
        const char *end;

        if (text[pos] == '"') {
            pos = string_end(text, len, pos);
            continue;
        }
        if (text[pos] != '/' || pos + 1 >= len || (text[pos + 1] != '/' && text[pos + 1] != '*')) {
            pos++;
            continue;
        }
        if (text[pos + 1] == '/') {
            end = memchr(text + pos, '\n', len - pos);
            end = end != NULL ? end : text + len;
        } else {
            end = memmem(text + pos + 2, len - pos - 2, "*/", 2);
            if (end == NULL) {
                *offset = pos;
                return -EINVAL;
            }
            end += 2;
        }
        blank(text, pos, (size_t)(end - text));
        pos = (size_t)(end - text);
    }
    return 0;
}

static void skip_space(struct reader *r)
{
    while (r->pos < r->len && strchr(" \t\r\n", r->text[r->pos]) != NULL)
        r->pos++;
}

static unsigned read_hex4(const char *text)
{
    unsigned value = 0;

    for (int i = 0; i < 4; i++) {
        char c = text[i];
        int digit = c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10;

        value = value * 16 + (unsigned)digit;
    }
    return value;
}

static size_t put_utf8(char *out, unsigned point)
{
    if (point < 0x80) {
        out[0] = (char)point;
        return 1;
    }
    if (point < 0x800) {
        out[0] = (char)(0xC0 | point >> 6);
        out[1] = (char)(0x80 | (point & 0x3F));
        return 2;
    }
    if (point < 0x10000) {
        out[0] = (char)(0xE0 | point >> 12);
        out[1] = (char)(0x80 | (point >> 6 & 0x3F));
        out[2] = (char)(0x80 | (point & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | point >> 18);
    out[1] = (char)(0x80 | (point >> 12 & 0x3F));
    out[2] = (char)(0x80 | (point >> 6 & 0x3F));
    out[3] = (char)(0x80 | (point & 0x3F));
    return 4;
}

/* The escape behind the backslash at r->pos; returns how many bytes it became. */
static size_t read_escape(struct reader *r, char *out)
{
    static const char short_escapes[] = "b\bf\fn\nr\rt\t";
    char c = r->text[r->pos + 1];
    const char *found;
    unsigned point;

    if (c != 'u') {
        r->pos += 2;
        found = strchr(short_escapes, c);
        *out = found != NULL ? found[1] : c;
        return 1;
    }
    point = read_hex4(r->text + r->pos + 2);
    r->pos += 6;
    if (point >= 0xD800 && point < 0xDC00) { /* the low half follows */
        point = 0x10000 + ((point - 0xD800) << 10) + (read_hex4(r->text + r->pos + 2) - 0xDC00);
        r->pos += 6;
    }
    return put_utf8(out, point);
}

/* The characters of the string at r->pos, NULL when out of memory. */
static char *read_string(struct reader *r)
{
    size_t end = string_end(r->text, r->len, r->pos);
    char *out = malloc(end - r->pos + 1); /* no escape is shorter than what it stands for */
    size_t len = 0;

    if (out == NULL)
        return NULL;
    r->pos++;
    while (r->text[r->pos] != '"') {
        if (r->text[r->pos] == '\\')
            len += read_escape(r, out + len);
        else
            out[len++] = r->text[r->pos++];
    }
    r->pos++;
    out[len] = '\0';
    return out;
}

static char *read_word(struct reader *r)
{
    size_t start = r->pos;

    while (r->pos < r->len && strchr(" \t\r\n,]}", r->text[r->pos]) == NULL)
        r->pos++;
    return strndup(r->text + start, r->pos - start);
}

static enum node_type type_at(char c)
{
    switch (c) {
    case '{':
        return NODE_OBJECT;
    case '[':
        return NODE_ARRAY;
    case '"':
        return NODE_STRING;
    case 't':
    case 'f':
        return NODE_BOOL;
    case 'n':
        return NODE_NULL;
    default:
        return NODE_NUMBER;
    }
}

static void add_child(struct node *parent, struct node *child)
{
    child->parent = parent;
    child->index = parent->count++;
    if (parent->last != NULL)
        parent->last->next = child;
    else
        parent->first = child;
    parent->last = child;
}

static int read_value(struct reader *r, struct node *n);

static int read_children(struct reader *r, struct node *n)
{
    char closer = n->type == NODE_OBJECT ? '}' : ']';

    for (r->pos++, skip_space(r); r->text[r->pos] != closer; skip_space(r)) {
        struct node *child;
        int rc;

        if (r->text[r->pos] == ',') {
            r->pos++;
            continue;
        }
        child = calloc(1, sizeof(*child));
        if (child == NULL)
            return -ENOMEM;
        add_child(n, child);
        child->key_offset = r->pos;
        if (n->type == NODE_OBJECT) {
            child->key = read_string(r);
            if (child->key == NULL)
                return -ENOMEM;
            skip_space(r);
            r->pos++; /* the colon */
            skip_space(r);
        }
        rc = read_value(r, child);
        if (rc < 0)
            return rc;
    }
    r->pos++;
    return 0;
}

/* As deep as the text, which json_check() has limited. */
static int read_value(struct reader *r, struct node *n)
{
    n->offset = r->pos;
    n->type = type_at(r->text[r->pos]);
    if (n->type == NODE_OBJECT || n->type == NODE_ARRAY)
        return read_children(r, n);
    if (n->type == NODE_STRING)
        n->text = read_string(r);
    else
        n->text = read_word(r);
    return n->text != NULL ? 0 : -ENOMEM;
}

/* text ends with a NUL. */
static int check_text(char *text, size_t len, size_t *offset, char why[NODE_WHY_BYTES])
{
    const char *reason = "the comment is not closed";
    int rc = blank_comments(text, len, offset);

    if (rc == 0 && strspn(text, " \t\r\n") == len) {
        reason = "there is nothing in it, expected at least {}";
        *offset = 0;
        rc = -EINVAL;
    }
    if (rc == 0)
        rc = json_check(text, len, &JSON_LIMITS_DEFAULT, offset, &reason);
    if (rc < 0)
        snprintf(why, NODE_WHY_BYTES, "%s", reason);
    return rc;
}

int node_parse(const char *text, size_t len, struct node **out, size_t *offset,
               char why[NODE_WHY_BYTES])
{
    struct node *root = calloc(1, sizeof(*root));
    char *copy = malloc(len + 1);
    struct reader r = {copy, len, 0};
    int rc = -ENOMEM;

    *out = NULL;
    if (root == NULL || copy == NULL)
        goto out;
    memcpy(copy, text, len);
    copy[len] = '\0';
    rc = check_text(copy, len, offset, why);
    if (rc < 0)
        goto out;
    skip_space(&r);
    rc = read_value(&r, root);
    root->key_offset = root->offset;
    if (rc < 0)
        goto out;
    *out = root;
    root = NULL; /* the caller's now */
out:
    node_free(root);
    if (copy != NULL)
        explicit_bzero(copy, len);
    free(copy);
    return rc;
}

void node_free(struct node *root)
{
    struct node *child;

    if (root == NULL)
        return;
    child = root->first;
    while (child != NULL) {
        struct node *next = child->next;

        node_free(child);
        child = next;
    }
    if (root->text != NULL)
        explicit_bzero(root->text, strlen(root->text));
    free(root->text);
    free(root->key);
    free(root);
}

static const struct node *member(const struct node *object, const char *name, size_t len)
{
    const struct node *n = object != NULL && object->type == NODE_OBJECT ? object->first : NULL;

    while (n != NULL && (strncmp(n->key, name, len) != 0 || n->key[len] != '\0'))
        n = n->next;
    return n;
}

const struct node *node_member(const struct node *object, const char *name)
{
    return member(object, name, strlen(name));
}

const struct node *node_find(const struct node *root, const char *path)
{
    const struct node *n = root;

    for (;;) {
        size_t len = strcspn(path, ".");

        n = member(n, path, len);
        if (n == NULL || path[len] == '\0')
            return n;
        path += len + 1;
    }
}

static int compare_keys(const void *a, const void *b)
{
    const struct node *x = *(const struct node *const *)a;
    const struct node *y = *(const struct node *const *)b;
    int order = strcmp(x->key, y->key);

    if (order != 0)
        return order;
    return x->index < y->index ? -1 : 1;
}

static int duplicate_among(const struct node *object, const struct node **out)
{
    const struct node **members = calloc(object->count, sizeof(struct node *));
    size_t count = 0;

    if (members == NULL)
        return -ENOMEM;
    for (const struct node *n = object->first; n != NULL; n = n->next)
        members[count++] = n;
    qsort(members, count, sizeof(members[0]), compare_keys);
    for (size_t i = 1; i < count; i++)
        if (strcmp(members[i - 1]->key, members[i]->key) == 0 &&
            (*out == NULL || members[i]->offset < (*out)->offset))
            *out = members[i];
    free(members);
    return 0;
}

int node_duplicate(const struct node *root, const struct node **out)
{
    int rc = 0;

    *out = NULL;
    if (root->type == NODE_OBJECT && root->count > 1)
        rc = duplicate_among(root, out);
    for (const struct node *n = root->first; rc == 0 && *out == NULL && n != NULL; n = n->next)
        if (n->first != NULL)
            rc = node_duplicate(n, out);
    return rc;
}

void node_path(const struct node *n, char *out, size_t size)
{
    size_t len;

    if (n->parent == NULL) {
        out[0] = '\0';
        return;
    }
    node_path(n->parent, out, size);
    len = strlen(out);
    if (n->key == NULL)
        snprintf(out + len, size - len, "[%zu]", n->index);
    else
        snprintf(out + len, size - len, "%s%s", len > 0 ? "." : "", n->key);
}

const char *node_type_name(enum node_type type)
{
    static const char *const names[] = {
        [NODE_NULL] = "null",       [NODE_BOOL] = "true or false", [NODE_NUMBER] = "a number",
        [NODE_STRING] = "a string", [NODE_ARRAY] = "an array",     [NODE_OBJECT] = "an object",
    };

    return names[type];
}

void node_position(const char *text, size_t len, size_t offset, unsigned *line, unsigned *column)
{
    *line = 1;
    *column = 1;
    for (size_t i = 0; i < offset && i < len; i++) {
        if (text[i] == '\n') {
            ++*line;
            *column = 1;
        } else if (!utf8_is_continuation(text[i])) {
            ++*column;
        }
    }
}
