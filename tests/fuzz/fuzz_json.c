/* What json_check() accepts, cJSON must parse, json_minify() must keep valid and stable, and
 * json_slice() must walk without leaving the text. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition)
{
    if (!condition)
        abort();
}

static void check_minified(const char *text, size_t len)
{
    struct buf once, twice;

    buf_init(&once, len);
    buf_init(&twice, len);
    require(json_minify(&once, text, len) == 0);
    require(json_check(once.data, once.len, &JSON_LIMITS_DEFAULT, NULL, NULL) == 0);
    require(json_minify(&twice, once.data, once.len) == 0);
    require(once.len == twice.len && memcmp(once.data, twice.data, once.len) == 0);
    buf_clear(&once);
    buf_clear(&twice);
}

/* Each member of the tree must be where json_slice() says, with the same value. */
static void check_slices(const cJSON *tree, const char *text, size_t len)
{
    const cJSON *item;
    int looked_at = 0;

    if (!cJSON_IsObject(tree))
        return;
    cJSON_ArrayForEach(item, tree)
    {
        const cJSON *last = json_get(tree, item->string);
        const char *value;
        size_t value_len;
        cJSON *again;

        if (item->string[0] == '\0' || strchr(item->string, '.') != NULL || ++looked_at > 20)
            continue;
        require(json_slice(text, len, item->string, &value, &value_len) == 0);
        require(value >= text && value + value_len <= text + len);
        again = json_parse(value, value_len, &JSON_LIMITS_DEFAULT, NULL, NULL);
        require(again != NULL && again->type == last->type);
        if (cJSON_IsString(last))
            require(strcmp(again->valuestring, last->valuestring) == 0);
        cJSON_Delete(again);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    size_t offset = 0;
    const char *why = NULL;
    cJSON *tree;

    if (json_check(text, size, &JSON_LIMITS_DEFAULT, &offset, &why) < 0) {
        require(offset <= size && why != NULL);
        return 0;
    }
    tree = cJSON_ParseWithLength(text, size);
    require(tree != NULL);
    check_slices(tree, text, size);
    check_minified(text, size);
    cJSON_Delete(tree);
    return 0;
}
