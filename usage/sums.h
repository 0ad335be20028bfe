/* sums.h - the six numbers that usage is summed up in, as columns and as a struct. */
#ifndef XROUTER_USAGE_SUMS_H
#define XROUTER_USAGE_SUMS_H

#include <sqlite3.h>
#include <stdint.h>

enum sum_field {
    SUM_REQUESTS,
    SUM_ERRORS,
    SUM_TOKENS_INPUT,
    SUM_TOKENS_CACHED,
    SUM_TOKENS_OUTPUT,
    SUM_COST,
    SUM_FIELDS
};
/* Their columns, in the order of the enum. */
#define SUM_COLUMNS "requests, errors, tokens_input, tokens_cached, tokens_output, cost"
/* The same of one row of usage. */
#define SUM_OF_ROW_COLUMNS "1, outcome IN (1, 3), tokens_input, tokens_cached, tokens_output, cost"
extern const char *const SUM_FIELD_NAMES[SUM_FIELDS];

struct sums {
    int64_t of[SUM_FIELDS];
};

/* Adds the six columns from `column` on, sign (1 or -1) times. Saturates. */
void sums_add_columns(struct sums *sums, sqlite3_stmt *stmt, int column, int sign);
/* to += value; stays at the end of the range. */
void sum_add(int64_t *to, int64_t value);

#endif
