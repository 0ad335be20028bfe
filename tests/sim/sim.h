/* sim.h - the simulator: everything one process holds, passed down by pointer. */
#ifndef XROUTER_SIM_SIM_H
#define XROUTER_SIM_SIM_H

#include <stdbool.h>

#include "common/buf.h"
#include "common/loop.h"
#include "tests/sim/config.h"
#include "tests/sim/ids.h"
#include "tests/sim/journal.h"
#include "tests/sim/scenario.h"
#include "tests/sim/sessions.h"
#include "tests/sim/stats.h"

struct conn;
struct file_store;
struct http_server;
struct token_store;

#define SIM_TEXT_BYTES_MAX (256 * 1024 * 1024) /* of a body being built: burst, big echoes */
#define SIM_READ_BYTES (64 * 1024)
#define SIM_TEXT_KEEP_BYTES (256 * 1024) /* more than this is given back after use */

struct sim {
    struct sim_config config;
    struct random_source random;
    struct loop *loop;
    struct http_server *http;
    struct token_store *tokens;
    struct script *script;
    struct sessions *sessions;
    struct journal *journal;
    struct file_store *files;
    struct stats stats;
    struct conn *connections;         /* all open ones */
    char read_buffer[SIM_READ_BYTES]; /* shared: a connection keeps only what it got */
    struct buf body;                  /* scratch: the body or event being built */
    struct buf piece;                 /* scratch: the text inside it */
    bool stopping;
};

/* Unix seconds for `created`: the clock, or one fixed moment when a seed asks for equal bytes. */
int64_t sim_created_at_s(const struct sim *sim);
/* An empty scratch buf; gives memory back that only a huge answer had needed. */
struct buf *sim_scratch(struct buf *b);

#endif
