/* config_parse.h - from text to a config, and where in the text an error is. Private to the config
 * files. */
#ifndef XROUTER_COMMON_CONFIG_PARSE_H
#define XROUTER_COMMON_CONFIG_PARSE_H

#include "common/config.h"
#include "common/config_node.h"
#include "common/config_table.h"

struct config_source { /* all borrowed */
    const char *text;
    size_t len;
    const char *file; /* absolute path, "" = none */
    struct option_context context;
    bool has_environment; /* XROUTER_... variables count */
    bool opens_files;     /* certificates are looked at */
    bool is_encoded;      /* config_encode() wrote it */
};

int config_parse_source(const struct config_source *source, struct config **out,
                        struct config_error *e);

/* A parse under way. */
struct config_parser {
    const struct config_source *source;
    const struct node *root;
    struct config *config;
    struct config_error *e;
};

/* config_fail.c: fill the error with the value's place and path and a sentence; return -EINVAL.
 * config_fail_name() points at a member's name instead of its value. */
int config_fail(const struct config_parser *p, const struct node *at, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
int config_fail_name(const struct config_parser *p, const struct node *at, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* At the option of that path if the file has it, else at the path alone. */
int config_fail_path(const struct config_parser *p, const char *path, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
int config_fail_memory(const struct config_parser *p); /* -ENOMEM */
int config_fail_syntax(const struct config_parser *p, size_t offset, const char *why);

/* config_check.c: what one option alone cannot tell, after everything is read. */
int config_check(const struct config_parser *p);

/* config_providers.c: the addresses that the file leaves out, and the keys that it must not. */
int config_complete_providers(const struct config_parser *p);
/* config_accounts.c: the provider as each of its accounts has it; *index counts through all
 * providers. n is the provider's object. */
int config_check_accounts(const struct config_parser *p, struct provider_config *provider,
                          uint32_t *index, const struct node *n);
/* config_auth.c: which options the provider's kind of auth needs, and which it has no use for. n is
 * the provider's object, or its account's. */
int config_check_auth(const struct config_parser *p, const struct provider_config *provider,
                      const struct node *n);
/* A table of those addresses for the manual. */
void config_describe_providers(struct buf *out);

#endif
