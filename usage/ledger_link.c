#include "usage/ledger_link.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "usage/wal.h"

static int on_log(void *arg, sqlite3 *db, const char *name, int pages)
{
    struct ledger_link *l = arg;

    l->log_pages = (unsigned)pages;
    return SQLITE_OK;
}

void ledger_link_drop(struct ledger_link *l)
{
    if (l->db != NULL)
        l->on_close(l->arg);
    database_close(l->db);
    l->db = NULL;
}

static int explain(struct ledger_link *l, int rc, const char *what, const char *why)
{
    snprintf(l->fault, sizeof(l->fault), "%s: %s", what, why);
    return rc;
}

static int connect_db(struct ledger_link *l, bool check)
{
    int64_t page_bytes = 0, tables = 0;
    int rc = ledger_file_admit(l->path, check, l->fault, sizeof(l->fault));

    if (rc == 0)
        rc = database_open(l->path, check, &l->db, l->fault);
    if (rc < 0)
        return rc;
    l->log_pages = 0;
    sqlite3_wal_hook(l->db, on_log, l);
    rc = database_get_i64(l->db, "PRAGMA page_size", 0, &page_bytes);
    if (rc == 0) /* whatever is read opens the log */
        rc = database_get_i64(l->db, "SELECT count(*) FROM sqlite_schema", 0, &tables);
    l->page_bytes = (unsigned)page_bytes;
    if (rc < 0) {
        explain(l, rc, "cannot be used", sqlite3_errmsg(l->db));
    } else {
        rc = ledger_file_note(&l->file, l->path);
        if (rc < 0)
            explain(l, rc, "cannot be looked at", strerror(-rc));
    }
    if (rc < 0)
        ledger_link_drop(l);
    return rc;
}

static int copy_log(struct ledger_link *l, bool truncate)
{
    int pages = 0, copied = 0;
    int rc = sqlite3_wal_checkpoint_v2(
        l->db, NULL, truncate ? SQLITE_CHECKPOINT_TRUNCATE : SQLITE_CHECKPOINT_PASSIVE, &pages,
        &copied);

    if (rc == SQLITE_OK) /* when nothing is left the next commit starts the log anew */
        l->log_pages = pages == copied ? 0 : (unsigned)pages;
    (void)ledger_file_look(&l->file, 0); /* for the size; what it finds is the next look's */
    return database_errno(rc);
}

/* What the log holds may never have been synced: the process that wrote it died, or its sync has
 * failed. The events in it will come again and be found to be there, so no commit would sync them
 * any more. Copied into the database, which is then synced, they are safe; for a log that has not
 * failed before (is_log_good) a sync of its own does as well. */
static int secure(struct ledger_link *l, bool is_log_good)
{
    static const char WHAT[] = "its write-ahead log cannot be made durable";
    int rc = is_log_good ? ledger_file_sync(l->path) : 0;

    if (rc < 0)
        return explain(l, rc, WHAT, strerror(-rc));
    rc = copy_log(l, false);
    if (rc == 0 && l->log_pages > 0)
        rc = -EBUSY; /* somebody reads the file */
    if (is_log_good && (rc == -EBUSY || rc == -ENOSPC))
        return 0;
    if (rc == -EBUSY)
        return explain(l, rc, WHAT, "another program uses the database");
    return rc < 0 ? explain(l, rc, WHAT, sqlite3_errmsg(l->db)) : 0;
}

int ledger_link_open(struct ledger_link *l, const char *path)
{
    int rc;

    l->path = strdup(path);
    if (l->path == NULL)
        return explain(l, -ENOMEM, "cannot be opened", "out of memory");
    rc = connect_db(l, true);
    if (rc == 0)
        rc = secure(l, true);
    if (rc < 0)
        return rc;
    rc = ledger_file_mark(l->path);
    return rc < 0 ? explain(l, rc, "its marker cannot be made", strerror(-rc)) : 0;
}

void ledger_link_close(struct ledger_link *l)
{
    ledger_link_drop(l);
    free(l->path);
    l->path = NULL;
}

/* Bytes that the log must have, for what is in it. */
static uint64_t least_log_bytes(const struct ledger_link *l)
{
    if (l->log_pages == 0)
        return 0;
    return WAL_HEADER_BYTES + (uint64_t)l->log_pages * (l->page_bytes + WAL_FRAME_HEADER_BYTES);
}

int ledger_link_look(struct ledger_link *l)
{
    enum ledger_file_state state;

    if (l->db == NULL)
        return -ESTALE;
    state = ledger_file_look(&l->file, least_log_bytes(l));
    if (state == LEDGER_FILE_OPEN && !l->is_lost)
        return 0;
    /* The log is not for what stands there now. */
    if (!l->is_lost)
        (void)sqlite3_db_config(l->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    l->is_lost = true;
    snprintf(l->fault, sizeof(l->fault), "%s", ledger_file_sentence(state));
    return -ESTALE;
}

/* 1 = the files that are open are back, 0 = the connection may be closed, -errno. */
static int find_again(struct ledger_link *l)
{
    enum ledger_file_state state = ledger_file_look(&l->file, least_log_bytes(l));

    snprintf(l->fault, sizeof(l->fault), "%s", ledger_file_sentence(state));
    switch (state) {
    case LEDGER_FILE_OPEN:
        (void)sqlite3_db_config(l->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
        l->is_lost = false;
        return 1;
    case LEDGER_FILE_LOG_GONE: /* this connection still has it */
        return secure(l, false);
    case LEDGER_FILE_REPLACED:
        ledger_link_drop(l);
        l->must_check = true;
        return ledger_file_leave(&l->file);
    case LEDGER_FILE_MISSING:
    case LEDGER_FILE_EMPTY:
    case LEDGER_FILE_LOG_CUT:
        break;
    }
    return -ESTALE; /* the connection stays: it may be the last way to what was there */
}

int ledger_link_reopen(struct ledger_link *l)
{
    bool is_other;
    int rc = l->is_lost && l->db != NULL ? find_again(l) : 0;

    if (rc != 0)
        return rc < 0 ? rc : 0;
    ledger_link_drop(l);
    l->is_lost = false;
    is_other = l->must_check;
    rc = connect_db(l, is_other);
    if (rc == 0)
        rc = secure(l, false);
    if (rc < 0)
        return rc;
    l->must_check = false;
    return is_other ? 1 : 0;
}

int ledger_link_explain(struct ledger_link *l, int rc)
{
    if (rc < 0 && l->db != NULL)
        snprintf(l->fault, sizeof(l->fault), "%s", sqlite3_errmsg(l->db));
    return rc;
}

int ledger_link_checkpoint(struct ledger_link *l, bool truncate)
{
    int rc = l->db == NULL ? -EIO : ledger_link_look(l);

    return rc < 0 ? rc : copy_log(l, truncate);
}
