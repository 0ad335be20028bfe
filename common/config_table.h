/* config_table.h - the rows of config.h's option lists as data, and what one option's value can do.
 * Private to the config files. */
#ifndef XROUTER_COMMON_CONFIG_TABLE_H
#define XROUTER_COMMON_CONFIG_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/config_node.h"

#define OPTION_WHY_BYTES 320

enum option_type {
    OPTION_U32,
    OPTION_MS,
    OPTION_BYTES,
    OPTION_BOOL,
    OPTION_TEXT,
    OPTION_PATH,
    OPTION_ADDRESS,
    OPTION_URL,
    OPTION_SECRET,
    OPTION_PRICE,
    OPTION_DATE
};

struct option {
    enum option_type type;
    bool reload;
    const char *path;
    const char *standard; /* the default as text, NULL = required */
    int64_t min, max;
    const char *unit;
    const char *help;
    size_t offset; /* of the field in the section's struct */
};

/* One object of the file: its options, and the members that are sections of their own. */
struct option_table {
    const char *title; /* where it stands, "" = the file's root, "models[].prices[]" */
    const char *about; /* a sentence for people */
    const struct option *options;
    size_t count;
    const char *const *sections; /* ends with NULL */
};

extern const struct option_table CONFIG_TABLE;
extern const struct option_table PROVIDER_TABLE;
extern const struct option_table ACCOUNT_TABLE;
extern const struct option_table MODEL_TABLE;
extern const struct option_table CANDIDATE_TABLE;
extern const struct option_table PRICE_TABLE;
extern const struct option_table TIER_TABLE;

/* How texts become values. */
struct option_context {
    const char *base_dir; /* what relative paths start from; NULL = paths are taken as they are */
    enum { SECRETS_RESOLVED, SECRETS_LITERAL, SECRETS_SKIPPED } secrets;
    bool is_shared; /* others can read the file: a literal secret is refused */
};

const char *option_type_name(enum option_type type);
enum node_type option_node_type(const struct option *o); /* how the file writes it */

/* Sets the option's field in the section from text, freeing what it held before.
 * Returns 0, -ENOMEM, or -EINVAL (the field is unchanged) with the reason in why. */
int option_set(const struct option *o, void *section, const char *text,
               const struct option_context *context, char why[OPTION_WHY_BYTES]);
/* All fields of a section that has been zeroed. Required ones stay NULL. 0 or -ENOMEM. */
int options_set_defaults(const struct option_table *table, void *section,
                         const struct option_context *context);
/* Frees what the fields own, wiping secrets. */
void options_clear(const struct option_table *table, void *section);
/* Appends the value as JSON; a set secret as "***" unless with_secrets. */
void option_encode(const struct option *o, const void *section, bool with_secrets, struct buf *out);
bool option_is_equal(const struct option *o, const void *a, const void *b);
/* Appends what a value must be, for errors and the manual: "10 to 600000 ms", "a, b or c". */
void option_describe_range(const struct option *o, struct buf *out);

#endif
