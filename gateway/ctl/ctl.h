/* ctl.h - xrouterctl: one verb a run, asked of the master, of the usage-writer, or read from the
 * shared memory with nobody asked.
 *
 * A verb prints its result on stdout (with --json: one object), everything else on stderr, and
 * returns the exit status. */
#ifndef XROUTER_GATEWAY_CTL_CTL_H
#define XROUTER_GATEWAY_CTL_CTL_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/config.h"

enum ctl_exit { CTL_OK = 0, CTL_REFUSED = 1, CTL_USAGE = 2, CTL_NOT_RUNNING = 3 };

/* FLAG: bool. TEXT: const char *, NULL = not given. COUNT: int64_t, -1 = not given. */

/* clang-format off */
/*    type   field       option        letter argument     help */
#define CTL_OPTIONS(X) \
    X(FLAG,  json,       "json",       0,     "",          "print one JSON object") \
    X(FLAG,  csv,        "csv",        0,     "",          "print comma-separated values") \
    X(FLAG,  watch,      "watch",      'w',   "",          "redraw once a second, with rates") \
    X(FLAG,  prom,       "prom",       0,     "",          "print the Prometheus text format") \
    X(TEXT,  filter,     "filter",     'f',   "GLOB",      "only counters whose name matches, as in 'requests_*'") \
    X(TEXT,  name,       "name",       0,     "NAME",      "what people call the key, unique among active keys") \
    X(TEXT,  models,     "models",     0,     "A,B",       "only these models or aliases; default: all") \
    X(TEXT,  expires,    "expires",    0,     "WHEN",      "a date, an RFC 3339 time, or from now: 90s, 12h, 30d") \
    X(TEXT,  tier,       "tier",       0,     "TIER",      "limits of a tier of the configuration") \
    X(COUNT, rpm,        "rpm",        0,     "N",         "requests per minute, 0 = no limit") \
    X(COUNT, rpd,        "rpd",        0,     "N",         "requests per day, 0 = no limit") \
    X(COUNT, tpm,        "tpm",        0,     "N",         "tokens per minute, 0 = no limit") \
    X(COUNT, tpd,        "tpd",        0,     "N",         "tokens per day, 0 = no limit") \
    X(COUNT, parallel,   "parallel",   0,     "N",         "requests at once, 0 = no limit") \
    X(TEXT,  credits,    "credits",    0,     "AMOUNT",    "make it prepaid, with this opening balance; default: not prepaid") \
    X(TEXT,  spend_day,  "spend-day",  0,     "AMOUNT",    "credits it may spend in a UTC day") \
    X(TEXT,  spend_week, "spend-week", 0,     "AMOUNT",    "credits it may spend in a week, from Monday") \
    X(TEXT,  spend_month, "spend-month", 0,   "AMOUNT",    "credits it may spend in a calendar month") \
    X(TEXT,  unset,      "unset",      0,     "A,B",       "back to none or to the tier's: name, models, expires, tier, rpm, spend-day, ...") \
    X(TEXT,  operation,  "operation",  0,     "ID",        "your own id of the payment: the same one again is paid once; default: a new one") \
    X(TEXT,  note,       "note",       0,     "TEXT",      "kept in the history") \
    X(COUNT, limit,      "limit",      0,     "N",         "at most so many, the newest; 0 = all; default: 100") \
    X(TEXT,  key,        "key",        0,     "NAME|ID",   "only this key") \
    X(TEXT,  model,      "model",      0,     "MODEL",     "only this model") \
    X(TEXT,  count_model, "model",     0,     "MODEL",     "count as for this model of the configuration; what it has learned is read from the running server") \
    X(TEXT,  encoding,   "encoding",   0,     "NAME",      "o200k_base or cl100k_base; default, without --model: o200k_base") \
    X(TEXT,  since,      "since",      0,     "WHEN",      "a date, an RFC 3339 time, or back from now: 90s, 12h, 30d") \
    X(TEXT,  by,         "by",         0,     "WHAT",      "one row per hour, day, model or key; default: day") \
    X(FLAG,  dry_run,    "dry-run",    0,     "",          "only report, change nothing") \
    X(FLAG,  force,      "force",      0,     "",          "replace a file that is there") \
    X(COUNT, to,         "to",         0,     "N",         "up or down to this migration; default: the newest") \
    X(COUNT, timeout_ms, "timeout-ms", 0,     "MS",        "longest wait for running requests; default: no limit")
/* clang-format on */

#define CTL_FIELD_FLAG bool
#define CTL_FIELD_TEXT const char *
#define CTL_FIELD_COUNT int64_t
#define X(type, field, ...) CTL_FIELD_##type field;
struct ctl_options {
    CTL_OPTIONS(X)
    const char *config_file; /* -c, NULL = look for one */
    bool help;
    bool version;
};
#undef X
#define X(type, field, ...) CTL_OPTION_##field,
enum ctl_option { CTL_OPTIONS(X) CTL_OPTION_COUNT };
#undef X
_Static_assert(CTL_OPTION_COUNT < 64, "a verb's options and a flag fit a word");
#define CTL_TAKES(field) (UINT64_C(1) << CTL_OPTION_##field)
/* Among what a verb takes: it calls ctl_load_config() itself, if it needs the configuration. */
#define CTL_MAY_NEED_CONFIG (UINT64_C(1) << 63)

#define CTL_ARGS_MAX 4

struct ctl {
    const struct ctl_verb *verb;
    struct ctl_options options;
    const char *args[CTL_ARGS_MAX]; /* what follows the verb and is no option */
    size_t arg_count;
    struct config *config; /* without its secrets; NULL before ctl_load_config() */
};

struct ctl_verb {
    const char *name;      /* "key create" */
    const char *arguments; /* "ID" or "" */
    size_t arg_count;
    uint64_t takes; /* CTL_TAKES() of its options, ORed */
    const char *help;
    enum ctl_exit (*run)(struct ctl *ctl);
};

/* main.c */
/* Finds the server's configuration and reads it. Complains. */
enum ctl_exit ctl_load_config(struct ctl *ctl);

/* options.c */
void ctl_options_init(struct ctl_options *o);
/* Reads the option that starts at argv[*at] and moves *at behind it and its value. takes says which
 * are known besides -c, -h and -v. 0, or -EINVAL after saying on stderr what is wrong. */
int ctl_option_read(struct ctl_options *o, uint64_t takes, int argc, char *const argv[], int *at);
void ctl_options_help(uint64_t takes, struct buf *out);
/* Reads WHEN: a moment, or a span ("90s", "5m", "12h", "30d") that sign (1 or -1) puts after or
 * before now. 0 or -EINVAL. */
int ctl_when_parse(const char *text, int sign, int64_t now_at_ms, int64_t *at_ms);

/* output.c: all text for stdout and stderr goes through here. */
/* "xrouterctl: " and the text on stderr. */
void ctl_complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Complains and returns CTL_USAGE or CTL_REFUSED. */
enum ctl_exit ctl_usage_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
enum ctl_exit ctl_refuse(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Writes the buf to stdout, and out of the process. CTL_OK, or CTL_REFUSED with a complaint if the
 * text is incomplete (its err is set) or could not be written. */
enum ctl_exit ctl_print(const struct buf *text);
/* The same with a newline behind it. */
enum ctl_exit ctl_print_line(struct buf *text);

/* Text in columns: cells are added row by row, then rendered with each column as wide as its widest
 * cell (in characters). The first row is the heading. */
#define CTL_COLUMNS_MAX 12
struct ctl_table {
    const char *alignment; /* a column each: 'l' or 'r' */
    size_t columns;
    struct buf cells; /* NUL-terminated, one after the other */
};
void ctl_table_init(struct ctl_table *t, const char *alignment);
void ctl_table_clear(struct ctl_table *t);
/* NULL or "" shows as "-", control characters as "?". */
void ctl_table_cell(struct ctl_table *t, const char *text);
void ctl_table_cell_i64(struct ctl_table *t, int64_t value);
/* A whole heading: names separated by '|'. */
void ctl_table_heading(struct ctl_table *t, const char *names);
void ctl_table_render(struct ctl_table *t, struct buf *out);

/* client.c: the control sockets. */
enum ctl_server { CTL_MASTER, CTL_WRITER };
struct ctl_answer {
    const char *text; /* the frame's JSON, checked */
    size_t len;
    const cJSON *tree;
};
struct ctl_call {
    enum ctl_server server;
    bool repeatable; /* asking twice does no harm: a lost connection is tried again */
    const struct buf *request;
    /* Called for every frame of the answer, the last included; not for an error. Returns CTL_OK to
     * go on. NULL is fine. */
    enum ctl_exit (*on_answer)(void *arg, const struct ctl_answer *answer);
    void *arg;
};
/* Sends the request and reads the answer to its end. Complains itself. */
enum ctl_exit ctl_call(const struct ctl *ctl, const struct ctl_call *call);
/* Prints member `name` of an answer as one line of JSON; NULL: all members but "done". */
enum ctl_exit ctl_print_member(const struct ctl_answer *answer, const char *name);

/* segment.c: the instance's shared memory, read-only. */
struct ctl_segment {
    struct shm *shm;
    struct counters_region *counters;
    struct processes_region *processes;
    struct inflight_region *inflight;
    char instance[16]; /* the 12 hex digits */
    bool running;      /* the master's process exists and its heartbeat is fresh */
};
/* CTL_NOT_RUNNING when there is none, CTL_REFUSED when it is not of this version. Complains. */
enum ctl_exit ctl_segment_open(const struct ctl *ctl, struct ctl_segment *s);
void ctl_segment_close(struct ctl_segment *s);

/* stat_view.c: the object of `stat --json` for people. before (NULL: none) is the object of
 * elapsed_ms ago: then rates are shown, and counters that are zero are not. */
void ctl_stat_view(const cJSON *stat, const cJSON *before, int64_t elapsed_ms, const char *filter,
                   struct buf *out);

/* requests.c: a request's public id is "req_" and 32 hex digits; the prefix may be left out. 0 or
 * -EINVAL. */
#define CTL_REQUEST_ID_BYTES 37
int ctl_request_id_parse(const char *text, char out[CTL_REQUEST_ID_BYTES]);

/* The verbs. */
enum ctl_exit ctl_key_create(struct ctl *ctl); /* keys.c */
enum ctl_exit ctl_key_list(struct ctl *ctl);
enum ctl_exit ctl_key_show(struct ctl *ctl);
enum ctl_exit ctl_key_update(struct ctl *ctl);
enum ctl_exit ctl_key_rotate(struct ctl *ctl);
enum ctl_exit ctl_key_revoke(struct ctl *ctl);
enum ctl_exit ctl_credit_add(struct ctl *ctl); /* credits.c */
enum ctl_exit ctl_credit_show(struct ctl *ctl);
enum ctl_exit ctl_credit_history(struct ctl *ctl);
enum ctl_exit ctl_usage(struct ctl *ctl);         /* usage_report.c */
enum ctl_exit ctl_ledger_verify(struct ctl *ctl); /* ledger.c */
enum ctl_exit ctl_ledger_reprice(struct ctl *ctl);
enum ctl_exit ctl_backup(struct ctl *ctl);
enum ctl_exit ctl_migrate(struct ctl *ctl);  /* migrate.c */
enum ctl_exit ctl_tokens(struct ctl *ctl);   /* tokens.c */
enum ctl_exit ctl_stat(struct ctl *ctl);     /* stat.c */
enum ctl_exit ctl_requests(struct ctl *ctl); /* requests.c */
enum ctl_exit ctl_reload(struct ctl *ctl);   /* instance.c: orders to the master */
enum ctl_exit ctl_kill(struct ctl *ctl);
enum ctl_exit ctl_drain(struct ctl *ctl);
enum ctl_exit ctl_stop(struct ctl *ctl);
enum ctl_exit ctl_log_level(struct ctl *ctl);
enum ctl_exit ctl_provider_list(struct ctl *ctl); /* provider.c */
enum ctl_exit ctl_provider_enable(struct ctl *ctl);
enum ctl_exit ctl_provider_disable(struct ctl *ctl);
enum ctl_exit ctl_provider_drain(struct ctl *ctl);

#endif
