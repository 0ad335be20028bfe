#include "common/nearest.h"

#include <ctype.h>
#include <string.h>

static size_t least(size_t a, size_t b, size_t c)
{
    size_t ab = a < b ? a : b;

    return ab < c ? ab : c;
}

/* Letters added, dropped or replaced (Levenshtein), without case; one row of the matrix at a time.
 */
static size_t edit_distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
    size_t row[NEAREST_NAME_MAX + 1];

    for (size_t j = 0; j <= b_len; j++)
        row[j] = j;
    for (size_t i = 1; i <= a_len; i++) {
        size_t diagonal = row[0];

        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            int same = tolower((unsigned char)a[i - 1]) == tolower((unsigned char)b[j - 1]);
            size_t replaced = diagonal + (same ? 0 : 1);

            diagonal = row[j];
            row[j] = least(row[j] + 1, row[j - 1] + 1, replaced);
        }
    }
    return row[b_len];
}

void nearest_init(struct nearest *n, const char *asked)
{
    n->asked = asked;
    n->name[0] = '\0';
    /* Half of the letters may be wrong: farther away a guess would only mislead. */
    n->distance = strlen(asked) / 2 + 1;
}

void nearest_offer(struct nearest *n, const char *name, size_t len)
{
    size_t asked_len = strlen(n->asked);
    size_t distance;

    if (asked_len > NEAREST_NAME_MAX || len > NEAREST_NAME_MAX || len == 0)
        return;
    distance = edit_distance(n->asked, asked_len, name, len);
    if (distance >= n->distance || distance >= len)
        return;
    n->distance = distance;
    memcpy(n->name, name, len);
    n->name[len] = '\0';
}
