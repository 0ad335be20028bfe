#include "usage/integrity.h"

#include <stdio.h>
#include <string.h>

#include "usage/meta.h"
#include "usage/state_paths.h"

#define COPY_NAME "integrity-check"

int integrity_begin(sqlite3 *db, bool *is_due)
{
    int64_t clean;
    int rc = meta_get(db, META_CLEAN, 1, &clean);

    *is_due = rc == 0 && clean != 1;
    return rc == 0 ? meta_set(db, META_CLEAN, 0) : rc;
}

int integrity_end(sqlite3 *db)
{
    return meta_set(db, META_CLEAN, 1);
}

int integrity_start(struct ledger *ledger, const char *state_dir, struct backup **out,
                    char why[BACKUP_WHY_BYTES])
{
    char file[PATH_MAX];
    const struct backup_setup setup = {
        .ledger = ledger, .file = file, .state_dir = state_dir, .force = true};
    int rc = path_join(file, state_dir, COPY_NAME);

    *out = NULL;
    if (rc < 0) {
        snprintf(why, BACKUP_WHY_BYTES, "%s: %s", state_dir, strerror(-rc));
        return rc;
    }
    return backup_start(&setup, out, why);
}
