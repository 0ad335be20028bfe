#include "providers/completion_request.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/json_copy.h"
#include "providers/chat_check.h"
#include "providers/chat_request.h"

#define LOGPROBS_MAX 5
#define BEST_OF_MAX 20

static int unsupported(struct error *e, const char *name, const char *why)
{
    return error_set(e, XR_EUNSUPPORTED, name, "'%s': %s; ask at /v1/chat/completions.", name, why);
}

static int check_prompt(const cJSON *value, const struct place *at, struct error *e)
{
    const cJSON *first = cJSON_IsArray(value) ? value->child : NULL;

    if (cJSON_IsString(value) || cJSON_IsString(first) || cJSON_IsNumber(first) ||
        cJSON_IsArray(first))
        return 0;
    return chat_expected(e, at, "a string or an array with one", value);
}

/* The others are a chat's, too, and checked there. */
/* clang-format off */
static const struct chat_rule rules[] = {
    {"prompt",     CHAT_ANY,     true,  0, 0,            NULL, check_prompt},
    {"messages",   CHAT_ANY,     false, 0, 0,            NULL, NULL},
    {"echo",       CHAT_BOOL,    false, 0, 0,            NULL, NULL},
    {"suffix",     CHAT_TEXT,    false, 0, 0,            NULL, NULL},
    {"best_of",    CHAT_INTEGER, false, 1, BEST_OF_MAX,  NULL, NULL},
    {"logprobs",   CHAT_INTEGER, false, 0, LOGPROBS_MAX, NULL, NULL},
};
/* clang-format on */

/* Members that a chat does not have, or that mean something else there. */
static const char *const own_fields[] = {"prompt",    "messages",     "echo",  "suffix",
                                         "best_of",   "logprobs",     "tools", "tool_choice",
                                         "functions", "function_call"};

static bool is_own(struct json_span name)
{
    for (size_t i = 0; i < sizeof(own_fields) / sizeof(own_fields[0]); i++)
        if (json_name_is(name, own_fields[i]))
            return true;
    return false;
}

static int check_support(const cJSON *root, struct error *e)
{
    const cJSON *prompt = json_get(root, "prompt");
    const char *suffix = json_string(root, "suffix");
    int64_t best_of = 1;

    if (cJSON_IsArray(prompt) && !cJSON_IsString(prompt->child))
        return unsupported(e, "prompt", "token ids are not supported");
    if (cJSON_IsArray(prompt) && prompt->child->next != NULL)
        return unsupported(e, "prompt", "several prompts in one request are not supported");
    if (cJSON_IsTrue(json_get(root, "echo")))
        return unsupported(e, "echo", "the prompt cannot be echoed");
    if (suffix != NULL && suffix[0] != '\0')
        return unsupported(e, "suffix", "text cannot be inserted");
    if (chat_is_given(json_get(root, "logprobs")))
        return unsupported(e, "logprobs", "probabilities have another shape here");
    if (json_get_i64(root, "best_of", &best_of) == 0 && best_of > 1)
        return unsupported(e, "best_of", "only one answer is made");
    return 0;
}

static struct json_span prompt_of(const struct model_request *r)
{
    struct json_span prompt = {NULL, 0};
    struct json_span first;

    /* The parser has seen one or the other. */
    if (json_slice(r->text, r->len, "prompt", &prompt.at, &prompt.len) == 0 &&
        prompt.at[0] == '[' && json_slice(prompt.at, prompt.len, "0", &first.at, &first.len) == 0)
        return first;
    return prompt;
}

static int write_chat(const struct model_request *r, struct buf *out)
{
    struct json_span prompt = prompt_of(r);
    struct json_copy c;
    struct json_member m;
    struct buf *messages;

    json_copy_open(&c, (struct json_span){r->text, r->len}, out);
    while (json_copy_next(&c, &m))
        if (!is_own(m.name) &&
            !(json_name_is(m.name, "max_tokens") && m.value.at[0] == 'n' /* null */))
            json_copy_keep(&c, &m);
    messages = json_copy_add(&c, "messages");
    buf_str(messages, "[{\"role\":\"user\",\"content\":");
    buf_append(messages, prompt.at, prompt.len);
    buf_str(messages, "}]");
    if (!chat_is_given(json_get(r->root, "max_tokens")))
        buf_i64(json_copy_add(&c, "max_tokens"), COMPLETION_TOKENS);
    return json_copy_close(&c);
}

/* The chat's text, malloc'ed. */
static int translate(const char *text, size_t len, char **chat, size_t *chat_len, struct error *e)
{
    struct model_request own;
    struct buf out;
    int rc = model_request_open(&own, text, len, e);

    if (rc < 0)
        return rc;
    buf_init(&out, SIZE_MAX);
    rc = chat_check_members(CHAT_RULES(rules), own.root, NULL, e);
    if (rc == 0)
        rc = check_support(own.root, e);
    if (rc == 0 && write_chat(&own, &out) < 0)
        rc = error_set(e, -ENOMEM, NULL, NULL);
    model_request_clear(&own);
    if (rc == 0) {
        *chat_len = out.len;
        *chat = malloc(out.len);
        if (*chat == NULL)
            rc = error_set(e, -ENOMEM, NULL, NULL);
        else
            memcpy(*chat, out.data, out.len);
    }
    buf_clear(&out);
    return rc;
}

int completion_request_parse(const char *text, size_t len, struct model_request *out,
                             struct error *e)
{
    size_t chat_len = 0;
    char *chat = NULL;
    int rc = translate(text, len, &chat, &chat_len, e);

    if (rc < 0)
        return rc;
    rc = chat_request_parse(chat, chat_len, out, e);
    if (rc < 0) {
        free(chat);
        return rc;
    }
    out->operation = OPERATION_COMPLETION;
    out->own_text = chat;
    return 0;
}
