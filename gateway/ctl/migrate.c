#define _GNU_SOURCE 1 /* setgroups */
#include "gateway/ctl/ctl.h"

#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/json.h"
#include "gateway/identity.h"
#include "gateway/locks.h"
#include "usage/database.h"
#include "usage/migrate.h"
#include "usage/state_paths.h"

#define WHY_BYTES 1024

static enum ctl_exit refuse_why(struct buf *why)
{
    const char *text = buf_text(why);

    return ctl_refuse("%s", text != NULL ? text : "refused");
}

/* Root becomes the owner of the state directory: files made by root would shut the server out.
 * runtime_dir goes away when the service stops, and only root may make it again. */
static enum ctl_exit become_owner(const struct config *config)
{
    struct stat st;
    int rc;

    if (stat(config->state_dir, &st) == -1)
        return ctl_refuse("%s: %s", config->state_dir, strerror(errno));
    rc = identity_make_dir(config->runtime_dir, 0750);
    if (rc < 0)
        return ctl_refuse("%s: %s", config->runtime_dir, strerror(-rc));
    if (st.st_uid == geteuid())
        return CTL_OK;
    if (geteuid() != 0)
        return ctl_refuse("%s belongs to user %u: migrate as that user or as root",
                          config->state_dir, (unsigned)st.st_uid);
    if (chown(config->runtime_dir, st.st_uid, st.st_gid) == -1 || setgroups(0, NULL) == -1 ||
        setgid(st.st_gid) == -1 || setuid(st.st_uid) == -1)
        return ctl_refuse("cannot become the user %u: %s", (unsigned)st.st_uid, strerror(errno));
    return CTL_OK;
}

/* As a starting master does: nobody else may have the database open. */
static enum ctl_exit lock_instance(const struct config *config, struct locks *locks)
{
    char memory[WHY_BYTES];
    struct buf why;
    int rc;

    buf_init_fixed(&why, memory, sizeof(memory));
    rc = locks_take(locks, config->runtime_dir, config->state_dir, &why);
    if (rc < 0)
        return refuse_why(&why);
    rc = locks_is_unshared(config->runtime_dir);
    if (rc == 1)
        return CTL_OK;
    locks_release(locks, config->runtime_dir);
    if (rc == 0)
        return ctl_refuse("processes of another instance are still running");
    return ctl_refuse("%s: %s", config->runtime_dir, strerror(-rc));
}

static int migrate_to(sqlite3 *db, int from, int to, char why[DATABASE_WHY_BYTES])
{
    size_t count;
    const struct migration *list = migrate_list(&count);

    /* Up also if nothing is to be done: what has been applied is compared with what we know. */
    return to < from ? migrate_down(db, list, count, to, why)
                     : migrate_up(db, list, (size_t)to, why);
}

static enum ctl_exit print_result(const struct ctl *ctl, int from, int to)
{
    enum ctl_exit status;
    struct buf out;

    if (!ctl->options.json) {
        printf("migrated from %d to %d\n", from, to);
        return CTL_OK;
    }
    buf_init(&out, 256);
    buf_byte(&out, '{');
    json_put_field_i64(&out, "from", from);
    json_put_field_i64(&out, "to", to);
    buf_byte(&out, '}');
    status = ctl_print_line(&out);
    buf_clear(&out);
    return status;
}

static enum ctl_exit migrate_database(const struct ctl *ctl, const char *path, int to)
{
    char why[DATABASE_WHY_BYTES] = "";
    int from = 0, reached = 0;
    sqlite3 *db;
    int rc;

    if (access(path, F_OK) == -1) /* opening would make one */
        return ctl_refuse("%s: %s", path, strerror(errno));
    rc = database_open(path, false, &db, why);
    if (rc < 0)
        return ctl_refuse("%s: %s", path, why);
    rc = migrate_version(db, &from);
    if (rc < 0)
        snprintf(why, sizeof(why), "is no database of xrouter's");
    if (rc == 0)
        rc = migrate_to(db, from, to, why);
    if (rc == 0)
        rc = migrate_version(db, &reached);
    database_close(db);
    if (rc < 0)
        return ctl_refuse("%s: %s", path, why[0] != '\0' ? why : strerror(-rc));
    return print_result(ctl, from, reached);
}

enum ctl_exit ctl_migrate(struct ctl *ctl)
{
    const struct config *config = ctl->config;
    int64_t to = ctl->options.to;
    struct state_paths paths;
    enum ctl_exit status;
    struct locks locks;
    size_t count;

    (void)migrate_list(&count);
    if (to == -1)
        to = (int64_t)count;
    if (to < 1 || to > (int64_t)count)
        return ctl_usage_error("--to: must be 1 to %zu", count);
    if (state_paths_set(&paths, config) < 0)
        return ctl_refuse("%s: %s", config->state_dir, strerror(ENAMETOOLONG));
    status = become_owner(config);
    if (status == CTL_OK)
        status = lock_instance(config, &locks);
    if (status != CTL_OK)
        return status;
    status = migrate_database(ctl, paths.database, (int)to);
    locks_release(&locks, config->runtime_dir);
    return status;
}
