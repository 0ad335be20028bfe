/* What config_parse() refuses must be explained, with a place inside the text; what it accepts must
 * survive config_encode() and config_decode() unchanged, and its masked form must parse again. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/config.h"

#define NOWHERE "/nonexistent"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition)
{
    if (!condition)
        abort();
}

static void check_error(const char *text, size_t size, const struct config_error *e)
{
    unsigned lines = 1;

    for (size_t i = 0; i < size; i++)
        lines += text[i] == '\n';
    require(e->text[0] != '\0');
    require(e->line <= lines && (e->line == 0) == (e->column == 0));
    require(strpbrk(e->text, "\r\n\033") == NULL && strpbrk(e->path, "\r\n\033") == NULL);
}

static void check_round_trip(const struct config *config)
{
    struct config *copy = NULL;
    struct buf first, second;
    struct config_error e;

    buf_init(&first, (size_t)64 << 20);
    buf_init(&second, (size_t)64 << 20);
    require(config_encode(config, true, &first) == 0);
    require(config_decode(first.data, first.len, &copy, &e) == 0);
    require(config_encode(copy, true, &second) == 0);
    require(first.len == second.len && memcmp(first.data, second.data, first.len) == 0);
    buf_clear(&first);
    buf_clear(&second);
    config_unref(copy);
}

static void check_masked(const struct config *config)
{
    struct config *copy = NULL;
    struct config_error e;
    struct buf text;

    buf_init(&text, (size_t)64 << 20);
    require(config_encode(config, false, &text) == 0);
    require(config_parse(text.data, text.len, "", NOWHERE, &copy, &e) == 0);
    buf_clear(&text);
    config_unref(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    struct config *config = NULL;
    struct config_error e;

    if (config_parse(text, size, "", NOWHERE, &config, &e) < 0) {
        require(config == NULL);
        check_error(text, size, &e);
        return 0;
    }
    for (size_t i = 0; i < config->model_name_count; i++) {
        const struct model_name *name = &config->model_names[i];

        require(config_model(config, name->name, strlen(name->name)) ==
                &config->models[name->model_index]);
    }
    check_round_trip(config);
    check_masked(config);
    config_unref(config);
    return 0;
}
