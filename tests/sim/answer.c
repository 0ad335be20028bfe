#include "tests/sim/answer.h"

#include <errno.h>
#include <string.h>

#define TEXT_BYTES_MAX (32 * 1024 * 1024)
#define ECHO_BYTES_MAX 2048
#define MEGABYTE (1024 * 1024)

static const char think_text[] = "<think>Let me think about it first.</think>";
static const char blacklist_text[] =
    "I do not talk about such things. Let us speak about something else.";
static const char default_words[] = " The simulator has nothing to repeat";

static const char *const finish_names[] = {
    [FINISH_STOP] = "stop",           [FINISH_LENGTH] = "length", [FINISH_CALL] = "function_call",
    [FINISH_BLACKLIST] = "blacklist", [FINISH_ERROR] = "error",
};

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

/* The words of text, markers left out, one space before each, at most max bytes. */
static void put_words(struct buf *out, const char *text, size_t max)
{
    while (*text != '\0') {
        const char *end = scenario_marker_end(text);
        size_t n = 0;

        if (end != NULL) {
            text = end;
            continue;
        }
        if (is_space(*text)) {
            text++;
            continue;
        }
        while (text[n] != '\0' && !is_space(text[n]) &&
               (n == 0 || scenario_marker_end(text + n) == NULL))
            n++;
        if (out->len + n + 1 > max)
            return;
        buf_byte(out, ' ');
        buf_append(out, text, n);
        text += n;
    }
}

/* What the user said, without markers: names in a marker are no wish for a call. */
static bool mentions(const char *text, const char *name)
{
    size_t len = strlen(name);

    while (*text != '\0') {
        const char *end = scenario_marker_end(text);

        if (end == NULL && strncmp(text, name, len) == 0)
            return true;
        text = end == NULL ? text + 1 : end;
    }
    return false;
}

static const cJSON *function_by_name(const struct sim_request *request, const char *name)
{
    const cJSON *function;

    cJSON_ArrayForEach(function, request->functions)
    {
        if (strcmp(json_string(function, "name"), name) == 0)
            return function;
    }
    return NULL;
}

/* The function that the last user message asks for, as a model would decide it. */
static const cJSON *function_wished(const struct sim_request *request)
{
    const cJSON *function;

    if (!request->calls_allowed || role_of(request->last) != ROLE_USER)
        return NULL;
    cJSON_ArrayForEach(function, request->functions)
    {
        if (mentions(request->last_user, json_string(function, "name")))
            return function;
    }
    return NULL;
}

static void put_call(struct answer *answer, const char *name, const cJSON *function)
{
    buf_str(&answer->name, name);
    if (function == NULL)
        buf_str(&answer->arguments, "{\"city\":\"x\"}");
    else
        schema_fill(&answer->arguments, json_get(function, "parameters"), -1);
    answer->finish = FINISH_CALL;
}

static void compose_call(struct answer *answer, const struct sim_request *request,
                         const struct plan *plan)
{
    const uint64_t wanted = PLAN(CALL) | PLAN(CALL_STRING_ARGS) | PLAN(CALL_SPLIT) |
                            PLAN(CALL_TEXT_FIRST) | PLAN(CALL_ERROR);
    const cJSON *function = function_wished(request);

    if (request->forced != NULL)
        put_call(answer, request->forced, function_by_name(request, request->forced));
    else if (function != NULL)
        put_call(answer, json_string(function, "name"), function);
    else if (plan_has(plan, wanted) && request->functions != NULL)
        put_call(answer, json_string(request->functions->child, "name"), request->functions->child);
    else if (plan_has(plan, wanted))
        put_call(answer, "get_weather", NULL);
    if (plan_has(plan, PLAN(CALL_ERROR)) && answer->name.len > 0) {
        buf_reset(&answer->arguments);
        buf_str(&answer->arguments, "{\"city\": ");
        answer->finish = FINISH_ERROR;
    }
}

static void compose_echo(struct answer *answer, const struct sim_request *request,
                         const struct plan *plan, const struct pace *pace)
{
    put_words(&answer->text, request->last_user, ECHO_BYTES_MAX);
    if (answer->text.len == 0)
        buf_str(&answer->text, default_words);
    answer->is_cyclic = true;
    answer->words_left = pace->words;
    if (plan_has(plan, PLAN(BURST))) {
        answer->words_left = UINT64_MAX;
        answer->code_points_left = (uint64_t)plan->burst_mb * MEGABYTE;
        answer->finish_if_cut = FINISH_STOP;
    }
    if (plan_has(plan, PLAN(THINK)))
        answer->prefix = think_text;
}

static void compose_text(struct answer *answer, const struct sim_request *request,
                         const struct plan *plan, const struct pace *pace)
{
    if (plan_has(plan, PLAN(BLACKLIST))) {
        buf_str(&answer->text, blacklist_text);
        answer->finish = FINISH_BLACKLIST;
    } else if (request->schema != NULL) {
        schema_fill(&answer->text, request->schema, 0);
    } else if (role_of(request->last) == ROLE_FUNCTION) {
        buf_str(&answer->text, "The function says: ");
        buf_str(&answer->text, json_string(request->last, "content"));
    } else {
        compose_echo(answer, request, plan, pace);
    }
}

static void limit_tokens(struct answer *answer, uint64_t tokens)
{
    uint64_t code_points = tokens * 3;

    if (code_points < answer->code_points_left) {
        answer->code_points_left = code_points;
        answer->finish_if_cut = FINISH_LENGTH;
    }
}

/* The next word of text with the white space that belongs to it; 0 at the end. */
static size_t next_piece(const char *text, size_t len, size_t at)
{
    size_t n = 0;

    while (at + n < len && !is_space(text[at + n]))
        n++;
    while (at + n < len && is_space(text[at + n]))
        n++;
    return n;
}

/* Appends as much of the word as the limit allows; false when the limit cut it. */
static bool put_limited(struct answer *answer, struct buf *piece, const char *word, size_t len)
{
    uint64_t code_points = count_code_points(word, len);

    if (code_points <= answer->code_points_left) {
        answer->code_points_left -= code_points;
        answer->code_points += code_points;
        buf_append(piece, word, len);
        return true;
    }
    for (size_t n = 0; n < len; n++) {
        if (((unsigned char)word[n] & 0xc0) != 0x80 && answer->code_points_left-- == 0) {
            len = n;
            break;
        }
    }
    answer->code_points_left = 0;
    answer->code_points += count_code_points(word, len);
    buf_append(piece, word, len);
    return false;
}

/* Appends one word; false when there was none or the limit came. */
static bool put_next_word(struct answer *answer, struct buf *piece)
{
    const char *text = answer->text.data;
    size_t n;

    if (answer->prefix != NULL && answer->prefix[answer->prefix_at] != '\0') {
        const char *from = answer->prefix + answer->prefix_at;

        n = next_piece(from, strlen(from), 0);
        answer->prefix_at += n;
        return put_limited(answer, piece, from, n);
    }
    if (!answer->is_cyclic) {
        n = next_piece(text, answer->text.len, answer->at);
        answer->at += n;
        return n > 0 && put_limited(answer, piece, text + answer->at - n, n);
    }
    if (answer->words_left == 0)
        return false;
    answer->words_left--;
    /* Every word has its space before it, except the very first of an answer. */
    n = 1;
    while (answer->at + n < answer->text.len && text[answer->at + n] != ' ')
        n++;
    text += answer->at;
    answer->at = answer->at + n < answer->text.len ? answer->at + n : 0;
    if (!answer->started) {
        answer->started = true;
        return put_limited(answer, piece, text + 1, n - 1);
    }
    return put_limited(answer, piece, text, n);
}

static bool is_over(const struct answer *answer)
{
    if (answer->prefix != NULL && answer->prefix[answer->prefix_at] != '\0')
        return false;
    return answer->is_cyclic ? answer->words_left == 0 : answer->at >= answer->text.len;
}

void answer_init(struct answer *answer)
{
    *answer = (struct answer){0};
    buf_init(&answer->name, TEXT_BYTES_MAX);
    buf_init(&answer->arguments, TEXT_BYTES_MAX);
    buf_init(&answer->text, TEXT_BYTES_MAX);
}

void answer_clear(struct answer *answer)
{
    buf_clear(&answer->name);
    buf_clear(&answer->arguments);
    buf_clear(&answer->text);
}

int answer_compose(struct answer *answer, const struct sim_request *request,
                   const struct plan *plan, const struct pace *pace)
{
    buf_reset(&answer->name);
    buf_reset(&answer->arguments);
    buf_reset(&answer->text);
    answer->is_cyclic = false;
    answer->finish = FINISH_STOP;
    answer->prefix = NULL;
    answer->prefix_at = answer->at = 0;
    answer->words_left = 0;
    answer->code_points_left = UINT64_MAX;
    answer->finish_if_cut = FINISH_STOP;
    answer->code_points = 0;
    answer->started = false;

    if (!plan_has(plan, PLAN(BLACKLIST)))
        compose_call(answer, request, plan);
    if (answer->name.len == 0 || plan_has(plan, PLAN(CALL_TEXT_FIRST)))
        compose_text(answer, request, plan, pace);
    if (request->max_tokens > 0)
        limit_tokens(answer, (uint64_t)request->max_tokens);
    if (plan_has(plan, PLAN(LENGTH))) {
        /* A word is at least two code points with its space, so this always cuts. */
        limit_tokens(answer, pace->words < 6 ? 1 : pace->words / 3);
        answer->finish = FINISH_LENGTH;
    }
    if (answer->name.err != 0 || answer->arguments.err != 0 || answer->text.err != 0)
        return -ENOMEM;
    return 0;
}

bool answer_next(struct answer *answer, uint32_t words, struct buf *piece)
{
    size_t before = piece->len;

    for (uint32_t i = 0; i < words && !is_over(answer); i++) {
        if (!put_next_word(answer, piece)) {
            /* The limit ends everything behind it, and the finish reason says so. */
            answer->prefix = NULL;
            answer->words_left = 0;
            answer->at = answer->text.len;
            if (answer->finish_if_cut == FINISH_LENGTH)
                answer->finish = FINISH_LENGTH;
            break;
        }
    }
    return piece->len > before;
}

bool answer_has_call(const struct answer *answer)
{
    return answer->name.len > 0;
}

uint64_t answer_tokens(const struct answer *answer, bool with_call)
{
    uint64_t code_points = answer->code_points;

    if (with_call && answer->name.len > 0)
        code_points += count_code_points(answer->name.data, answer->name.len) +
                       count_code_points(answer->arguments.data, answer->arguments.len);
    return count_tokens(code_points);
}

const char *answer_finish_name(enum finish finish)
{
    return finish_names[finish];
}
