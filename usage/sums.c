#include "usage/sums.h"

const char *const SUM_FIELD_NAMES[SUM_FIELDS] = {
    "requests", "errors", "tokens_input", "tokens_cached", "tokens_output", "cost",
};

void sum_add(int64_t *to, int64_t value)
{
    if (__builtin_add_overflow(*to, value, to))
        *to = value > 0 ? INT64_MAX : INT64_MIN;
}

void sums_add_columns(struct sums *sums, sqlite3_stmt *stmt, int column, int sign)
{
    for (int i = 0; i < SUM_FIELDS; i++) {
        int64_t value = sqlite3_column_int64(stmt, column + i);

        if (sign < 0)
            value = value == INT64_MIN ? INT64_MAX : -value;
        sum_add(&sums->of[i], value);
    }
}
