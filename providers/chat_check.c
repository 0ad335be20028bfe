#include "providers/chat_check.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/json.h"

#define FOUND_TEXT_MAX 40 /* how much of a wrong text is quoted */

static size_t place_format(const struct place *at, char *out, size_t size)
{
    size_t len;

    if (at == NULL)
        return 0;
    len = place_format(at->parent, out, size);
    if (len >= size)
        return len;
    if (at->name == NULL)
        return len + (size_t)snprintf(out + len, size - len, "[%zu]", at->index);
    return len + (size_t)snprintf(out + len, size - len, "%s%s", len > 0 ? "." : "", at->name);
}

static void found_format(const cJSON *found, char *out, size_t size)
{
    if (found == NULL)
        snprintf(out, size, "nothing");
    else if (cJSON_IsNull(found))
        snprintf(out, size, "null");
    else if (cJSON_IsBool(found))
        snprintf(out, size, "%s", cJSON_IsTrue(found) ? "true" : "false");
    else if (cJSON_IsNumber(found))
        snprintf(out, size, "the number %.15g", found->valuedouble);
    else if (cJSON_IsArray(found))
        snprintf(out, size, "%s array", found->child == NULL ? "an empty" : "an");
    else if (cJSON_IsObject(found))
        snprintf(out, size, "an object");
    else if (found->valuestring[0] == '\0')
        snprintf(out, size, "an empty string");
    else if (strlen(found->valuestring) > FOUND_TEXT_MAX)
        snprintf(out, size, "a string of %zu bytes", strlen(found->valuestring));
    else
        snprintf(out, size, "\"%s\"", found->valuestring);
}

/* What the rule asks for, in words. */
static void rule_format(const struct chat_rule *rule, char *out, size_t size)
{
    switch (rule->kind) {
    case CHAT_TEXT:
        if (rule->max > 0)
            snprintf(out, size, "a string of %.0f to %.0f bytes", rule->min, rule->max);
        else
            snprintf(out, size, "a %sstring", rule->min > 0 ? "non-empty " : "");
        return;
    case CHAT_WORD:
        snprintf(out, size, "one of %s", rule->words);
        for (char *c = out; *c != '\0'; c++)
            *c = *c == '|' ? ',' : *c;
        return;
    case CHAT_BOOL:
        snprintf(out, size, "true or false");
        return;
    case CHAT_NUMBER:
        snprintf(out, size, "a number from %.15g to %.15g", rule->min, rule->max);
        return;
    case CHAT_INTEGER:
        snprintf(out, size, "a whole number from %.15g to %.15g", rule->min, rule->max);
        return;
    case CHAT_OBJECT:
        snprintf(out, size, "an object");
        return;
    case CHAT_ARRAY:
        if (rule->max > 0)
            snprintf(out, size, "an array of %.0f to %.0f elements", rule->min, rule->max);
        else
            snprintf(out, size, "%s array", rule->min > 0 ? "a non-empty" : "an");
        return;
    case CHAT_ANY:
        snprintf(out, size, "a value");
        return;
    }
}

static bool is_in_range(const struct chat_rule *rule, double value)
{
    return value >= rule->min && (rule->max <= 0 || value <= rule->max);
}

static bool is_one_of(const char *words, const char *text)
{
    size_t len = strlen(text);

    while (*words != '\0') {
        size_t word = strcspn(words, "|");

        if (word == len && memcmp(words, text, len) == 0)
            return true;
        words += word;
        words += *words == '|';
    }
    return false;
}

static bool is_of_kind(const struct chat_rule *rule, const cJSON *value)
{
    switch (rule->kind) {
    case CHAT_TEXT:
        return cJSON_IsString(value) && is_in_range(rule, (double)strlen(value->valuestring));
    case CHAT_WORD:
        return cJSON_IsString(value) && is_one_of(rule->words, value->valuestring);
    case CHAT_BOOL:
        return cJSON_IsBool(value);
    case CHAT_NUMBER:
        return cJSON_IsNumber(value) && value->valuedouble >= rule->min &&
               value->valuedouble <= rule->max;
    case CHAT_INTEGER:
        /* Not json_is_integer(): a seed may use all 64 bits, and a double's loss does not matter
         * to whether it is whole. */
        return cJSON_IsNumber(value) && value->valuedouble >= rule->min &&
               value->valuedouble <= rule->max && floor(value->valuedouble) >= value->valuedouble;
    case CHAT_OBJECT:
        return cJSON_IsObject(value);
    case CHAT_ARRAY:
        return cJSON_IsArray(value) && is_in_range(rule, (double)cJSON_GetArraySize(value));
    case CHAT_ANY:
        return true;
    }
    return false;
}

bool chat_is_given(const cJSON *value)
{
    return value != NULL && !cJSON_IsNull(value);
}

int chat_refuse(struct error *e, const struct place *at, const char *format, ...)
{
    char param[sizeof(e->param)];
    char text[sizeof(e->message)];
    va_list args;

    param[0] = '\0';
    place_format(at, param, sizeof(param));
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return error_set(e, XR_EINVALID, param, "%s", text);
}

int chat_expected(struct error *e, const struct place *at, const char *expected, const cJSON *found)
{
    char text[96];
    char where[sizeof(e->param)];

    where[0] = '\0';
    place_format(at, where, sizeof(where));
    found_format(found, text, sizeof(text));
    return chat_refuse(e, at, "'%s': expected %s, found %s.", where, expected, text);
}

int chat_check_value(const struct chat_rule *rule, const cJSON *value, const struct place *at,
                     struct error *e)
{
    char expected[160];

    if (!chat_is_given(value) && !rule->required)
        return 0;
    if (value == NULL || !is_of_kind(rule, value)) {
        rule_format(rule, expected, sizeof(expected));
        return chat_expected(e, at, expected, value);
    }
    if (rule->check == NULL)
        return 0;
    return rule->kind == CHAT_ARRAY ? chat_check_each(rule->check, value, at, e)
                                    : rule->check(value, at, e);
}

int chat_check_members(const struct chat_rule *rules, size_t count, const cJSON *value,
                       const struct place *at, struct error *e)
{
    const cJSON *member;

    if (!cJSON_IsObject(value))
        return chat_expected(e, at, "an object", value);
    /* Walks the members, not the rules: a name that comes twice is checked twice. */
    cJSON_ArrayForEach(member, value)
    {
        for (size_t i = 0; i < count; i++) {
            struct place here = {.parent = at, .name = rules[i].name};

            if (strcmp(member->string, rules[i].name) != 0)
                continue;
            if (chat_check_value(&rules[i], member, &here, e) < 0)
                return XR_EINVALID;
            break;
        }
    }
    for (size_t i = 0; i < count; i++) {
        struct place here = {.parent = at, .name = rules[i].name};

        if (rules[i].required && json_get(value, rules[i].name) == NULL)
            return chat_check_value(&rules[i], NULL, &here, e);
    }
    return 0;
}

int chat_check_each(chat_check_fn check, const cJSON *array, const struct place *at,
                    struct error *e)
{
    struct place here = {.parent = at};
    const cJSON *element;

    cJSON_ArrayForEach(element, array)
    {
        if (check(element, &here, e) < 0)
            return XR_EINVALID;
        here.index++;
    }
    return 0;
}

int chat_check_function_name(const cJSON *value, const struct place *at, struct error *e)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789_-.";
    const char *name = cJSON_GetStringValue(value);
    size_t len = name == NULL ? 0 : strlen(name);

    if (len == 0 || len > 64 || strspn(name, letters) != len)
        return chat_expected(e, at, "1 to 64 letters, digits, '_', '-' or '.'", value);
    return 0;
}
