#include "tests/sim/dialect.h"

const struct dialect *dialect_by_id(enum dialect_id id)
{
    static const struct dialect *const dialects[DIALECT_COUNT] = {
        [DIALECT_GIGACHAT] = &dialect_gigachat,
        [DIALECT_OPENAI] = &dialect_openai,
        [DIALECT_ANTHROPIC] = &dialect_anthropic,
    };

    return dialects[id];
}
