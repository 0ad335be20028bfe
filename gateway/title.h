/* title.h - what ps(1) shows: the command line's memory is written over with the process's role. */
#ifndef XROUTER_GATEWAY_TITLE_H
#define XROUTER_GATEWAY_TITLE_H

#include <stddef.h>

struct title {
    char *area; /* where the kernel reads the command line; NULL = titles are not set */
    size_t bytes;
};

/* Takes over the memory of argv and of the environment behind it; the environment is copied first.
 * Nothing may use argv's strings afterwards. On -ENOMEM titles stay as they are. */
int title_init(struct title *t, int argc, char **argv);
void title_set(const struct title *t, const char *text);

#endif
