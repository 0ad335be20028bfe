/* ledger_file.h - the files under the ledger's connection: the database and its write-ahead log.
 *
 * SQLite makes an empty database where one is missing, drops the log of one that was emptied, and
 * goes on writing into files that somebody has moved away. So: a marker beside the database
 * (PATH.created) says that there is a ledger to miss; before a start the log is compared with what
 * the last process knew to be in it; around each transaction the names must still lead to the files
 * that are open. */
#ifndef XROUTER_USAGE_LEDGER_FILE_H
#define XROUTER_USAGE_LEDGER_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Whether the database may be opened (or, if there never was one, made). check_log: also compares
 * the log with its index, for which no connection to it may be open in this process. 0, -ENOENT
 * (there was a ledger and it is missing or empty), -EBADMSG (committed transactions are gone from
 * its log) or another -errno; why says what to do. */
int ledger_file_admit(const char *path, bool check_log, char *why, size_t size);
/* From now on a missing database is a lost one: the marker is made, durably, after what the
 * database's directory holds. 0 (also when there is one already) or -errno. */
int ledger_file_mark(const char *path);
/* Makes what is in the log durable, which a process that died may have written and not synced. 0 or
 * -errno. */
int ledger_file_sync(const char *path);

/* What a connection has open. */
struct ledger_file {
    const char *path; /* borrowed */
    dev_t dev;
    ino_t inode;
    ino_t log_inode;
    uint64_t log_bytes; /* the log's size at the last look */
    bool was_emptied;   /* what is there now has come later */
};

enum ledger_file_state {
    LEDGER_FILE_OPEN, /* the files are those that are open */
    LEDGER_FILE_MISSING,
    LEDGER_FILE_EMPTY,
    LEDGER_FILE_REPLACED, /* another database stands there */
    LEDGER_FILE_LOG_GONE, /* the log was removed: only the open connection has it */
    LEDGER_FILE_LOG_CUT   /* the log is shorter than it was */
};

/* Notes the files that a connection, which has read something, has just opened. 0 or -errno. */
int ledger_file_note(struct ledger_file *f, const char *path);
/* Looks where the names lead now; log_bytes is the least the log must hold. */
enum ledger_file_state ledger_file_look(struct ledger_file *f, uint64_t log_bytes);
const char *ledger_file_sentence(enum ledger_file_state state);
/* Before another database is opened in the place of f: moves the log that belongs to the old one
 * aside, else SQLite would read it into the new one. Its connection must be closed. 0 or -errno. */
int ledger_file_leave(const struct ledger_file *f);

#endif
