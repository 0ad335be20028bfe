/* state_paths.h - where the usage-writer keeps what must survive: names inside state_dir. */
#ifndef XROUTER_USAGE_STATE_PATHS_H
#define XROUTER_USAGE_STATE_PATHS_H

#include <limits.h>

#include "common/config.h"

struct state_paths {
    char database[PATH_MAX];
    char dead_letters[PATH_MAX];
    char spool[PATH_MAX]; /* a directory */
};

/* dir/name. 0 or -ENAMETOOLONG. */
int path_join(char out[PATH_MAX], const char *dir, const char *name);
int state_paths_set(struct state_paths *paths, const struct config *config); /* the same */

#endif
