#include "providers/error_text.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

#include "common/utf8.h"

#define TEXT_MAX (ERROR_TEXT_BYTES - 1)
#define SECRET_MIN 72 /* an unbroken run this long is a key or a token, not a word of a message */
#define MIXED_MIN 24  /* so is a shorter one of digits, capitals and small letters mixed */

static size_t run_of_key_letters(const char *text)
{
    size_t len = 0;

    while (isalnum((unsigned char)text[len]) || (text[len] != '\0' && strchr("_-+/=.", text[len])))
        len++;
    return len;
}

static bool is_mixed(const char *run, size_t len)
{
    bool has_digit = false, has_upper = false, has_lower = false;

    for (size_t i = 0; i < len; i++) {
        has_digit = has_digit || isdigit((unsigned char)run[i]);
        has_upper = has_upper || isupper((unsigned char)run[i]);
        has_lower = has_lower || islower((unsigned char)run[i]);
    }
    return has_digit && has_upper && has_lower;
}

/* Whether what stands before it makes any text a credential. */
static bool follows_scheme(const char *text, const char *run)
{
    static const char *const schemes[] = {"Bearer ", "Basic ", "Api-Key "};

    for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
        size_t len = strlen(schemes[i]);

        if ((size_t)(run - text) >= len && strncasecmp(run - len, schemes[i], len) == 0)
            return true;
    }
    return false;
}

static bool has_key_prefix(const char *run, size_t len)
{
    static const char *const prefixes[] = {"eyJ", "sk-", "gsk_", "AIza", "AQVN", "t1."};

    for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++)
        if (len > 16 && strncmp(run, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    return false;
}

static bool is_secret_run(const char *text, const char *run, size_t len)
{
    return len >= SECRET_MIN || has_key_prefix(run, len) ||
           (len >= MIXED_MIN && is_mixed(run, len)) || (len > 0 && follows_scheme(text, run));
}

void error_text_clean(const char *text, char out[ERROR_TEXT_BYTES])
{
    const char *start = text;
    size_t len = 0;

    while (*text != '\0' && len < TEXT_MAX) {
        size_t run = run_of_key_letters(text);
        bool is_secret = is_secret_run(start, text, run);
        size_t copy = run == 0 ? 1 : run;
        const char *from = is_secret ? "***" : text;
        size_t n = is_secret ? 3 : copy;

        if (n > TEXT_MAX - len)
            n = TEXT_MAX - len;
        memcpy(out + len, from, n);
        len += n;
        text += copy;
    }
    if (*text != '\0')
        len = utf8_cut(out, len);
    out[len] = '\0';
}
