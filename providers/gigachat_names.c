#include "providers/gigachat.h"

#include <string.h>

#include "common/json.h"

/* A name that begins with it gets it once more, so that taking one off is always right. */
#define ALIAS_PREFIX "xr_user_"
#define ALIAS_PREFIX_LEN (sizeof(ALIAS_PREFIX) - 1)

/* Tools the server runs itself when it meets their names. */
static const char *const builtins[] = {
    "text2image",     "text2model3d",      "web_search",       "url_content_extraction",
    "image_generate", "model_3d_generate", "code_interpreter",
};

static bool has_prefix(const char *name)
{
    return strncmp(name, ALIAS_PREFIX, ALIAS_PREFIX_LEN) == 0;
}

static bool needs_alias(const char *name)
{
    if ((name[0] >= '0' && name[0] <= '9') || has_prefix(name))
        return true;
    for (size_t i = 0; i < sizeof(builtins) / sizeof(builtins[0]); i++)
        if (strcmp(builtins[i], name) == 0)
            return true;
    return false;
}

int gigachat_put_function_name(struct buf *out, const char *name)
{
    /* The name is of letters that need no escape: chat_request_parse() has seen to it. */
    buf_byte(out, '"');
    if (needs_alias(name))
        buf_str(out, ALIAS_PREFIX);
    buf_str(out, name);
    return buf_byte(out, '"');
}

const char *gigachat_real_function_name(const char *name)
{
    return has_prefix(name) ? name + ALIAS_PREFIX_LEN : name;
}
