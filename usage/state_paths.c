#include "usage/state_paths.h"

#include <errno.h>
#include <stdio.h>

int path_join(char out[PATH_MAX], const char *dir, const char *name)
{
    int n = snprintf(out, PATH_MAX, "%s/%s", dir, name);

    return n < 0 || n >= PATH_MAX ? -ENAMETOOLONG : 0;
}

int state_paths_set(struct state_paths *paths, const struct config *config)
{
    int rc = path_join(paths->database, config->state_dir, "xrouter.db");

    if (rc == 0)
        rc = path_join(paths->dead_letters, config->state_dir, "dead-letters.jsonl");
    if (rc == 0)
        rc = path_join(paths->spool, config->state_dir, "spool");
    return rc;
}
