#include "usage/ledger_link.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "usage/wal.h"

static int on_log(void *arg, sqlite3 *db, const char *name, int pages)
{
    struct ledger_link *c = arg;

    c->log_pages = (unsigned)pages;
    return SQLITE_OK;
}

void ledger_link_drop(struct ledger_link *c)
{
    if (c->db != NULL)
        c->on_close(c->arg);
    database_close(c->db);
    c->db = NULL;
}

static int explain(struct ledger_link *c, int rc, const char *what, const char *why)
{
    snprintf(c->fault, sizeof(c->fault), "%s: %s", what, why);
    return rc;
}

static int connect_db(struct ledger_link *c, bool check)
{
    int64_t page_bytes = 0, tables = 0;
    int rc = ledger_file_admit(c->path, check, c->fault, sizeof(c->fault));

    if (rc == 0)
        rc = database_open(c->path, check, &c->db, c->fault);
    if (rc < 0)
        return rc;
    c->log_pages = 0;
    sqlite3_wal_hook(c->db, on_log, c);
    rc = database_get_i64(c->db, "PRAGMA page_size", 0, &page_bytes);
    if (rc == 0) /* whatever is read opens the log */
        rc = database_get_i64(c->db, "SELECT count(*) FROM sqlite_schema", 0, &tables);
    c->page_bytes = (unsigned)page_bytes;
    if (rc < 0) {
        explain(c, rc, "cannot be used", sqlite3_errmsg(c->db));
    } else {
        rc = ledger_file_note(&c->file, c->path);
        if (rc < 0)
            explain(c, rc, "cannot be looked at", strerror(-rc));
    }
    if (rc < 0)
        ledger_link_drop(c);
    return rc;
}

/* What the log holds may never have been synced: the process that wrote it died, or its sync has
 * failed. The events in it will come again and be found to be there, so no commit would sync them
 * any more. Copied into the database, which is then synced, they are safe; for a log that has not
 * failed before (is_log_good) a sync of its own does as well. */
static int secure(struct ledger_link *c, bool is_log_good)
{
    static const char WHAT[] = "its write-ahead log cannot be made durable";
    int rc = is_log_good ? ledger_file_sync(c->path) : 0;

    if (rc < 0)
        return explain(c, rc, WHAT, strerror(-rc));
    rc = ledger_link_checkpoint(c, false);
    if (rc == 0 && c->log_pages > 0)
        rc = -EBUSY; /* somebody reads the file */
    if (is_log_good && (rc == -EBUSY || rc == -ENOSPC))
        return 0;
    if (rc == -EBUSY)
        return explain(c, rc, WHAT, "another program uses the database");
    return rc < 0 ? explain(c, rc, WHAT, sqlite3_errmsg(c->db)) : 0;
}

int ledger_link_open(struct ledger_link *c, const char *path)
{
    int rc;

    c->path = strdup(path);
    if (c->path == NULL)
        return explain(c, -ENOMEM, "cannot be opened", "out of memory");
    rc = connect_db(c, true);
    if (rc == 0)
        rc = secure(c, true);
    if (rc < 0)
        return rc;
    rc = ledger_file_mark(c->path);
    return rc < 0 ? explain(c, rc, "its marker cannot be made", strerror(-rc)) : 0;
}

void ledger_link_close(struct ledger_link *c)
{
    ledger_link_drop(c);
    free(c->path);
    c->path = NULL;
}

/* Bytes that the log must have, for what is in it. */
static uint64_t least_log_bytes(const struct ledger_link *c)
{
    if (c->log_pages == 0)
        return 0;
    return WAL_HEADER_BYTES + (uint64_t)c->log_pages * (c->page_bytes + WAL_FRAME_HEADER_BYTES);
}

int ledger_link_look(struct ledger_link *c)
{
    enum ledger_file_state state;

    if (c->db == NULL)
        return -ESTALE;
    state = ledger_file_look(&c->file, least_log_bytes(c));
    if (state == LEDGER_FILE_OPEN && !c->is_lost)
        return 0;
    /* The log is not for what stands there now. */
    if (!c->is_lost)
        (void)sqlite3_db_config(c->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    c->is_lost = true;
    snprintf(c->fault, sizeof(c->fault), "%s", ledger_file_sentence(state));
    return -ESTALE;
}

/* 1 = the files that are open are back, 0 = the connection may be closed, -errno. */
static int find_again(struct ledger_link *c)
{
    enum ledger_file_state state = ledger_file_look(&c->file, least_log_bytes(c));

    snprintf(c->fault, sizeof(c->fault), "%s", ledger_file_sentence(state));
    switch (state) {
    case LEDGER_FILE_OPEN:
        (void)sqlite3_db_config(c->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
        c->is_lost = false;
        return 1;
    case LEDGER_FILE_LOG_GONE: /* this connection still has it */
        return secure(c, false);
    case LEDGER_FILE_REPLACED:
        ledger_link_drop(c);
        c->must_check = true;
        return ledger_file_leave(&c->file);
    case LEDGER_FILE_MISSING:
    case LEDGER_FILE_EMPTY:
    case LEDGER_FILE_LOG_CUT:
        break;
    }
    return -ESTALE; /* the connection stays: it may be the last way to what was there */
}

int ledger_link_reopen(struct ledger_link *c)
{
    bool is_other;
    int rc = c->is_lost && c->db != NULL ? find_again(c) : 0;

    if (rc != 0)
        return rc < 0 ? rc : 0;
    ledger_link_drop(c);
    c->is_lost = false;
    is_other = c->must_check;
    rc = connect_db(c, is_other);
    if (rc == 0)
        rc = secure(c, false);
    if (rc < 0)
        return rc;
    c->must_check = false;
    return is_other ? 1 : 0;
}

int ledger_link_explain(struct ledger_link *c, int rc)
{
    if (rc < 0 && c->db != NULL)
        snprintf(c->fault, sizeof(c->fault), "%s", sqlite3_errmsg(c->db));
    return rc;
}

int ledger_link_checkpoint(struct ledger_link *c, bool truncate)
{
    int pages = 0, copied = 0;
    int rc;

    if (c->db == NULL)
        return -EIO;
    rc = c->is_lost ? 0 : ledger_link_look(c);
    if (rc < 0)
        return rc;
    rc = sqlite3_wal_checkpoint_v2(
        c->db, NULL, truncate ? SQLITE_CHECKPOINT_TRUNCATE : SQLITE_CHECKPOINT_PASSIVE, &pages,
        &copied);
    if (rc == SQLITE_OK) /* when nothing is left the next commit starts the log anew */
        c->log_pages = pages == copied ? 0 : (unsigned)pages;
    (void)ledger_file_look(&c->file, 0); /* for the size; what it finds is the next look's */
    return database_errno(rc);
}
