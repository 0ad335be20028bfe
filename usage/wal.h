/* wal.h - what a write-ahead log still holds, judged before SQLite looks at it.
 *
 * A log that was cut or damaged loses committed transactions without a word: SQLite takes it up to
 * the first frame that is not right and calls the rest history. But the process that died has left
 * its index of the log (PATH-shm), which says how far the log went. */
#ifndef XROUTER_USAGE_WAL_H
#define XROUTER_USAGE_WAL_H

#include <stdint.h>

#define WAL_HEADER_BYTES 32
#define WAL_FRAME_HEADER_BYTES 24

/* How many frames the log of the database at path lacks that its index names and that the database
 * does not have: 0 as well when there is no index, or one from before the machine was started
 * (then it may be older than the log). No connection to the database may be open in this process:
 * closing the index drops its locks. The number, or -errno if a file cannot be read. */
int64_t wal_lost_frames(const char *path);

#endif
