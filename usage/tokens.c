#include "usage/tokens.h"

#include <stdbool.h>
#include <string.h>

#include "common/json.h"

/* Adds up what the text of a message amounts to. */
typedef void (*count_text_fn)(const char *text, int64_t *sum);

static void add_bytes(const char *text, int64_t *sum)
{
    *sum += (int64_t)strlen(text);
}

static void add_code_points(const char *text, int64_t *sum)
{
    for (; *text != '\0'; text++)
        *sum += ((unsigned char)*text & 0xc0) != 0x80; /* continuation bytes begin with 10 */
}

static int64_t count_content(const cJSON *message, count_text_fn count)
{
    const cJSON *content = json_get(message, "content");
    const cJSON *part;
    int64_t sum = 0;

    if (cJSON_IsString(content))
        count(content->valuestring, &sum);
    if (!cJSON_IsArray(content))
        return sum;
    cJSON_ArrayForEach(part, content)
    {
        const char *text = json_string(part, "text");

        if (text != NULL)
            count(text, &sum);
    }
    return sum;
}

static bool is_exact(const struct model_config *model)
{
    return strcmp(model->tokenizer, "chars3") == 0;
}

/* The text inside, keys included, without printing the tree: what a template makes of it is longer
 * by little. */
static int64_t count_tree(const cJSON *node)
{
    const cJSON *child;
    int64_t sum = 0;

    if (node == NULL)
        return 0;
    if (node->string != NULL)
        add_bytes(node->string, &sum);
    if (cJSON_IsString(node))
        add_bytes(node->valuestring, &sum);
    else
        sum += 4; /* a number, a word, brackets */
    cJSON_ArrayForEach(child, node)
    {
        sum += count_tree(child);
    }
    return sum;
}

int64_t tokens_prompt(const struct model_config *model, const cJSON *messages, const cJSON *tools)
{
    bool exact = is_exact(model);
    const cJSON *message;
    int64_t bytes = 0, tokens = 0;

    cJSON_ArrayForEach(message, messages)
    {
        if (exact)
            tokens += (count_content(message, add_code_points) + 2) / 3;
        else
            bytes += count_content(message, add_bytes);
    }
    return exact ? tokens : (bytes + count_tree(tools) + 3) / 4;
}

int64_t tokens_prompt_at_most(const struct model_config *model, const cJSON *messages,
                              const cJSON *tools)
{
    int64_t tokens = tokens_prompt(model, messages, tools);

    return is_exact(model) ? tokens : tokens + (tokens + 3) / 4;
}
