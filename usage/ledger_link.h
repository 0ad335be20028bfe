/* ledger_link.h - the ledger's one connection, and that what is committed through it is found
 * again.
 *
 * Around each transaction ledger_link_look() tells whether the names still lead to the files that
 * are open (usage/ledger_file.h); ledger_link_reopen() puts right what went wrong, or waits for it.
 * After a sync that failed nothing in the write-ahead log is believed to be on the disk before it
 * has been copied into the database. */
#ifndef XROUTER_USAGE_LEDGER_LINK_H
#define XROUTER_USAGE_LEDGER_LINK_H

#include <stdbool.h>
#include <stdint.h>

#include "usage/database.h"
#include "usage/ledger_file.h"

struct ledger_link {
    sqlite3 *db; /* NULL = there is none */
    char *path;
    struct ledger_file file;
    bool is_lost;    /* the names lead to other files than those that are open */
    bool must_check; /* the next database to open is one we do not know */
    unsigned log_pages;
    unsigned page_bytes;
    char fault[DATABASE_WHY_BYTES]; /* what was wrong last, for a person; "" = nothing */
    /* Set by the owner before ledger_link_open(): finalizes all statements. */
    void (*on_close)(void *arg);
    void *arg;
};

/* The first time: the database is made or checked, and from then on must not be missing. On failure
 * l->fault says why. 0 or -errno as database_open(). */
int ledger_link_open(struct ledger_link *l, const char *path);
void ledger_link_close(struct ledger_link *l); /* one that was never opened is fine */
/* A new connection after a failure, or the old one if its files are back. 0, 1 (to another database
 * than before) or -errno: call it again later. */
int ledger_link_reopen(struct ledger_link *l);
/* Closes what is open, until the next ledger_link_reopen(). */
void ledger_link_drop(struct ledger_link *l);
/* 0 or -ESTALE: ledger_link_reopen(). */
int ledger_link_look(struct ledger_link *l);
/* Keeps SQLite's words, if rc is an error; returns rc. */
int ledger_link_explain(struct ledger_link *l, int rc);
/* Copies the log into the database: as far as readers allow, or (truncate) all of it, leaving an
 * empty file. 0 or -errno. */
int ledger_link_checkpoint(struct ledger_link *l, bool truncate);

#endif
