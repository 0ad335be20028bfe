/* chat_check.h - private to the chat request: rules for the members of an object, and the sentence
 * that says which of them a client broke. */
#ifndef XROUTER_PROVIDERS_CHAT_CHECK_H
#define XROUTER_PROVIDERS_CHAT_CHECK_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/error.h"

#define CHAT_CALLS_MAX 128 /* in one message, OpenAI's own limit: keeps matching them linear */

/* Where a value stands in the request, from the inside out. Lives on the stack while the checks
 * walk down, and becomes text ("messages[2].role") only when something is wrong. */
struct place {
    const struct place *parent; /* NULL = a member of the request itself */
    const char *name;           /* NULL = an array's element */
    size_t index;
};

enum chat_kind {
    CHAT_TEXT, /* min..max = length in bytes */
    CHAT_WORD, /* one of `words` */
    CHAT_BOOL,
    CHAT_NUMBER,  /* min..max */
    CHAT_INTEGER, /* min..max, whole */
    CHAT_OBJECT,  /* `check` looks inside */
    CHAT_ARRAY,   /* min..max elements, `check` looks at each */
    CHAT_ANY      /* `check` alone decides */
};

typedef int (*chat_check_fn)(const cJSON *value, const struct place *at, struct error *e);

struct chat_rule {
    const char *name;
    enum chat_kind kind;
    bool required; /* absent or null is refused; else both mean "not given" */
    double min, max;
    const char *words; /* "auto|low|high" */
    chat_check_fn check;
};

#define CHAT_RULES(table) table, sizeof(table) / sizeof(table[0])

/* All of them return 0 or XR_EINVALID with *e filled. */
int chat_check_value(const struct chat_rule *rule, const cJSON *value, const struct place *at,
                     struct error *e);
/* value must be an object; each member that has a rule is checked, others are left alone. at is the
 * object's own place, NULL for the request. */
int chat_check_members(const struct chat_rule *rules, size_t count, const cJSON *value,
                       const struct place *at, struct error *e);
int chat_check_each(chat_check_fn check, const cJSON *array, const struct place *at,
                    struct error *e);

/* "expected EXPECTED, found ..."; found may be NULL (absent). */
int chat_expected(struct error *e, const struct place *at, const char *expected,
                  const cJSON *found);
int chat_refuse(struct error *e, const struct place *at, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

bool chat_is_given(const cJSON *value); /* neither absent nor null */

/* What functions are called: 1 to 64 of letters, digits, '_', '-' and '.'. A chat_check_fn. */
int chat_check_function_name(const cJSON *value, const struct place *at, struct error *e);

/* What any request of a model says about its route (chat_wish_fields.c): `model`, an element of
 * `models`, `provider`. chat_check_fns. */
int chat_check_model(const cJSON *value, const struct place *at, struct error *e);
int chat_check_further_model(const cJSON *value, const struct place *at, struct error *e);
int chat_check_provider(const cJSON *value, const struct place *at, struct error *e);

/* The request's own fields (chat_fields.c) and its history (chat_messages.c). */
int chat_check_fields(const cJSON *root, struct error *e);
int chat_check_message(const cJSON *message, const struct place *at, struct error *e);
/* Every call has its result right behind it, every result its call. */
int chat_check_calls(const cJSON *messages, const struct place *at, struct error *e);

#endif
