#include "tests/sim/answer.h"

#include <errno.h>
#include <string.h>

#define TEXT_BYTES_MAX (32 * 1024 * 1024)
#define ECHO_BYTES_MAX 2048
#define MEGABYTE (1024 * 1024)

static const char think_text[] = "<think>Let me think about it first.</think>";
static const char thought_text[] = "Let me think about it first.";
static const char blacklist_text[] =
    "I do not talk about such things. Let us speak about something else.";
static const char default_words[] = " The simulator has nothing to repeat";

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
    struct call *call = &answer->calls[answer->call_count++];

    buf_str(&call->name, name);
    if (function == NULL)
        buf_str(&call->arguments, "{\"city\":\"x\"}");
    else
        schema_fill(&call->arguments, json_get(function, "parameters"), -1);
    answer->finish = FINISH_CALL;
}

/* As many calls as asked for, each of the next function, round and round. */
static void put_calls(struct answer *answer, const struct sim_request *request,
                      const cJSON *function, uint32_t count)
{
    if (count == 0 || request->one_call)
        count = 1;
    while (count-- > 0 && answer->call_count < ANSWER_CALLS_MAX) {
        put_call(answer, json_string(function, "name"), function);
        if (request->forced == NULL)
            function = function->next != NULL ? function->next : request->functions->child;
    }
}

static void break_calls(struct answer *answer)
{
    for (size_t i = 0; i < answer->call_count; i++) {
        buf_reset(&answer->calls[i].arguments);
        buf_str(&answer->calls[i].arguments, "{\"city\": ");
        answer->finish = FINISH_ERROR;
    }
}

static void compose_call(struct answer *answer, const struct sim_request *request,
                         const struct plan *plan, const struct pace *pace)
{
    const uint64_t wanted = PLAN(CALL) | PLAN(CALL_STRING_ARGS) | PLAN(CALL_SPLIT) |
                            PLAN(CALL_TEXT_FIRST) | PLAN(CALL_ERROR);
    const cJSON *function = function_wished(request);
    bool asked = plan_has(plan, wanted) || request->must_call ||
                 (pace->calls > 0 && request->calls_allowed && role_of(request->last) == ROLE_USER);

    if (request->forced != NULL)
        function = function_by_name(request, request->forced);
    else if (function == NULL && asked && request->functions != NULL)
        function = request->functions->child;
    if (function != NULL)
        put_calls(answer, request, function, pace->calls);
    else if (request->forced != NULL)
        put_call(answer, request->forced, NULL);
    else if (plan_has(plan, wanted))
        put_call(answer, "get_weather", NULL);
    if (plan_has(plan, PLAN(CALL_ERROR)))
        break_calls(answer);
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
    if (plan_has(plan, PLAN(THINK)) && !request->separates_thinking)
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

static void limit_code_points(struct answer *answer, uint64_t code_points, enum finish finish)
{
    if (code_points < answer->code_points_left) {
        answer->code_points_left = code_points;
        answer->finish_if_cut = finish;
    }
}

static void limit_tokens(struct answer *answer, uint64_t tokens)
{
    limit_code_points(answer, tokens * 3, FINISH_LENGTH);
}

/* The text ends before the first of the stop sequences in it (in one round of repeated words). */
static void limit_to_stop(struct answer *answer, const cJSON *stops)
{
    const char *text = buf_text(&answer->text);
    const cJSON *item = cJSON_IsArray(stops) ? stops->child : stops;
    const char *first = NULL;

    if (text == NULL)
        return;
    if (answer->is_cyclic)
        text++; /* the space before the first word is not read */
    for (; item != NULL; item = cJSON_IsArray(stops) ? item->next : NULL) {
        const char *found = item->valuestring[0] == '\0' ? NULL : strstr(text, item->valuestring);

        if (found != NULL && (first == NULL || found < first)) {
            first = found;
            buf_reset(&answer->stop);
            buf_str(&answer->stop, item->valuestring);
        }
    }
    if (first != NULL)
        limit_code_points(answer, count_code_points(text, (size_t)(first - text)),
                          FINISH_STOP_SEQUENCE);
}

static void add_thinking(struct answer *answer)
{
    answer->prefix = thought_text;
    answer->is_prefix_apart = true;
    if (answer->code_points_left != UINT64_MAX)
        answer->code_points_left += count_code_points(thought_text, sizeof(thought_text) - 1);
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

static bool is_in_prefix(const struct answer *answer)
{
    return answer->prefix != NULL && answer->prefix[answer->prefix_at] != '\0';
}

/* Appends one word; false when there was none or the limit came. */
static bool put_next_word(struct answer *answer, struct buf *piece)
{
    const char *text = answer->text.data;
    size_t n;

    if (is_in_prefix(answer)) {
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

void answer_init(struct answer *answer)
{
    *answer = (struct answer){0};
    for (size_t i = 0; i < ANSWER_CALLS_MAX; i++) {
        buf_init(&answer->calls[i].name, TEXT_BYTES_MAX);
        buf_init(&answer->calls[i].arguments, TEXT_BYTES_MAX);
    }
    buf_init(&answer->text, TEXT_BYTES_MAX);
    buf_init(&answer->stop, TEXT_BYTES_MAX);
}

void answer_clear(struct answer *answer)
{
    for (size_t i = 0; i < ANSWER_CALLS_MAX; i++) {
        buf_clear(&answer->calls[i].name);
        buf_clear(&answer->calls[i].arguments);
    }
    buf_clear(&answer->text);
    buf_clear(&answer->stop);
}

static void reset(struct answer *answer)
{
    for (size_t i = 0; i < answer->call_count; i++) {
        struct call *call = &answer->calls[i];

        buf_reset(&call->name);
        buf_reset(&call->arguments);
        call->is_begun = false;
        call->sent_bytes = 0;
    }
    answer->call_count = 0;
    buf_reset(&answer->text);
    answer->is_cyclic = false;
    answer->finish = FINISH_STOP;
    buf_reset(&answer->stop);
    answer->prefix = NULL;
    answer->is_prefix_apart = false;
    answer->prefix_at = answer->at = 0;
    answer->words_left = 0;
    answer->code_points_left = UINT64_MAX;
    answer->finish_if_cut = FINISH_STOP;
    answer->code_points = answer->thinking_code_points = 0;
    answer->started = false;
}

static int memory_error(const struct answer *answer)
{
    int rc = answer->text.err | answer->stop.err;

    for (size_t i = 0; i < answer->call_count; i++)
        rc |= answer->calls[i].name.err | answer->calls[i].arguments.err;
    return rc == 0 ? 0 : -ENOMEM;
}

int answer_compose(struct answer *answer, const struct sim_request *request,
                   const struct plan *plan, const struct pace *pace)
{
    reset(answer);
    if (!plan_has(plan, PLAN(BLACKLIST)))
        compose_call(answer, request, plan, pace);
    if (answer->call_count == 0 || plan_has(plan, PLAN(CALL_TEXT_FIRST)))
        compose_text(answer, request, plan, pace);
    if (request->stops != NULL)
        limit_to_stop(answer, request->stops);
    if (request->separates_thinking && (request->wants_thinking || plan_has(plan, PLAN(THINK))))
        add_thinking(answer);
    if (request->max_tokens > 0)
        limit_tokens(answer, (uint64_t)request->max_tokens);
    if (plan_has(plan, PLAN(LENGTH))) {
        /* A word is at least two code points with its space, so this always cuts. */
        limit_tokens(answer, pace->words < 6 ? 1 : pace->words / 3);
        answer->finish = FINISH_LENGTH;
    }
    return memory_error(answer);
}

bool answer_is_thinking(const struct answer *answer)
{
    return answer->is_prefix_apart && is_in_prefix(answer);
}

bool answer_is_over(const struct answer *answer)
{
    if (is_in_prefix(answer))
        return false;
    return answer->is_cyclic ? answer->words_left == 0 : answer->at >= answer->text.len;
}

bool answer_next(struct answer *answer, uint32_t words, struct buf *piece)
{
    bool thinking = answer_is_thinking(answer);
    uint64_t code_points = answer->code_points;
    size_t before = piece->len;

    for (uint32_t i = 0; i < words && !answer_is_over(answer); i++) {
        if (thinking && !answer_is_thinking(answer))
            break;
        if (!put_next_word(answer, piece)) {
            /* The limit ends everything behind it, and the finish reason says so. */
            answer->prefix = NULL;
            answer->words_left = 0;
            answer->at = answer->text.len;
            if (answer->finish_if_cut != FINISH_STOP)
                answer->finish = answer->finish_if_cut;
            break;
        }
    }
    if (thinking)
        answer->thinking_code_points += answer->code_points - code_points;
    return piece->len > before;
}

bool answer_has_call(const struct answer *answer)
{
    return answer->call_count > 0;
}

uint64_t answer_tokens(const struct answer *answer, size_t calls)
{
    uint64_t code_points = answer->code_points;

    for (size_t i = 0; i < calls && i < answer->call_count; i++) {
        const struct call *call = &answer->calls[i];

        code_points += count_code_points(call->name.data, call->name.len) +
                       count_code_points(call->arguments.data, call->arguments.len);
    }
    return count_tokens(code_points);
}

uint64_t answer_thinking_tokens(const struct answer *answer)
{
    return count_tokens(answer->thinking_code_points);
}
