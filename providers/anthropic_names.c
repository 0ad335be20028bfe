#include "providers/anthropic.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The API's names have no dot; ours may. */
#define DOT "_dot_"
#define ID_MAX 64
#define ID_LETTERS "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-"

static void append_name(struct buf *out, const char *name)
{
    for (; *name != '\0'; name++) {
        if (*name == '.')
            buf_str(out, DOT);
        else
            buf_byte(out, *name);
    }
}

int anthropic_put_function_name(struct buf *out, const char *name)
{
    /* Nothing in it needs an escape: chat_request_parse() has seen to it. */
    buf_byte(out, '"');
    append_name(out, name);
    return buf_byte(out, '"');
}

/* Whether the client's name travels as that. */
static bool travels_as(const char *name, const char *there)
{
    for (; *name != '\0'; name++) {
        size_t len = *name == '.' ? sizeof(DOT) - 1 : 1;

        if (strncmp(there, *name == '.' ? DOT : name, len) != 0)
            return false;
        there += len;
    }
    return *there == '\0';
}

const char *anthropic_real_function_name(const struct model_request *req, const char *name)
{
    const cJSON *list = req->tools != NULL ? req->tools : req->functions;
    const cJSON *item;

    if (strstr(name, DOT) == NULL)
        return name;
    cJSON_ArrayForEach(item, list)
    {
        const char *listed =
            json_string(req->tools != NULL ? json_get(item, "function") : item, "name");

        if (listed != NULL && travels_as(listed, name))
            return listed;
    }
    return name;
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

const cJSON *anthropic_calls(const cJSON *message)
{
    const char *role = json_string(message, "role");

    return strcmp(role, "assistant") == 0 ? json_get(message, "tool_calls") : NULL;
}

int anthropic_ids_init(struct anthropic_ids *ids, const cJSON *messages)
{
    const cJSON *message, *call;
    size_t count = 0;

    *ids = (struct anthropic_ids){NULL, 0};
    cJSON_ArrayForEach(message, messages)
    {
        cJSON_ArrayForEach(call, anthropic_calls(message)) count++;
    }
    if (count == 0)
        return 0;
    ids->sorted = calloc(count, sizeof(ids->sorted[0]));
    if (ids->sorted == NULL)
        return -ENOMEM;
    cJSON_ArrayForEach(message, messages)
    {
        cJSON_ArrayForEach(call, anthropic_calls(message)) ids->sorted[ids->count++] =
            json_string(call, "id");
    }
    qsort(ids->sorted, ids->count, sizeof(ids->sorted[0]), compare);
    return 0;
}

void anthropic_ids_clear(struct anthropic_ids *ids)
{
    free(ids->sorted);
    *ids = (struct anthropic_ids){NULL, 0};
}

static bool is_unique(const struct anthropic_ids *ids, const char *id)
{
    const char **first = ids->sorted;
    const char **end = ids->sorted + ids->count;
    const char **found = bsearch(&id, first, ids->count, sizeof(*first), compare);

    if (found == NULL)
        return false;
    return (found == first || strcmp(found[-1], id) != 0) &&
           (found + 1 == end || strcmp(found[1], id) != 0);
}

int anthropic_put_call_id(const struct anthropic_ids *ids, struct buf *out, const char *id,
                          size_t message, size_t call)
{
    size_t len = id == NULL ? 0 : strlen(id);

    /* Others number their calls anew in each answer, or put the function's name into the id. The
     * place is the same in every later request of the conversation. */
    if (len == 0 || len > ID_MAX || strspn(id, ID_LETTERS) != len || !is_unique(ids, id))
        return buf_printf(out, "\"xrouter_%zu_%zu\"", message, call);
    return json_put_text(out, id);
}
