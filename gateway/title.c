#include "gateway/title.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

extern char **environ;

/* The end of the run of strings that stand one behind the other from `end` on. */
static char *extend(char *end, char *const *strings)
{
    for (; *strings != NULL; strings++)
        if (*strings == end)
            end += strlen(end) + 1;
    return end;
}

static char **copy_strings(char *const *strings)
{
    size_t count = 0;
    char **copy;

    while (strings[count] != NULL)
        count++;
    copy = calloc(count + 1, sizeof(char *));
    for (size_t i = 0; copy != NULL && i < count; i++) {
        copy[i] = strdup(strings[i]);
        if (copy[i] != NULL)
            continue;
        while (i > 0)
            free(copy[--i]);
        free(copy);
        return NULL;
    }
    return copy;
}

int title_init(struct title *t, int argc, char **argv)
{
    char **copy;
    char *end;

    *t = (struct title){0};
    if (argc < 1)
        return 0;
    copy = copy_strings(environ);
    if (copy == NULL)
        return -ENOMEM;
    end = extend(extend(argv[0], argv), environ);
    /* Lives as long as the process, like the environment it replaces. */
    environ = copy;
    t->area = argv[0];
    t->bytes = (size_t)(end - argv[0]);
    return 0;
}

void title_set(const struct title *t, const char *text)
{
    size_t len = strlen(text);

    (void)prctl(PR_SET_NAME, text); /* the kernel cuts it; it fails for bad pointers only */
    if (t->area == NULL || t->bytes == 0)
        return;
    if (len >= t->bytes)
        len = t->bytes - 1;
    memcpy(t->area, text, len);
    memset(t->area + len, 0, t->bytes - len);
}
