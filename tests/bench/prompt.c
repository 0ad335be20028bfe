/* What counting costs a request: a chat of 1 KB by o200k_base, from the parsed messages to the
 * estimate, and each piece of an answer that comes in a stream. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/json.h"
#include "usage/answer_tokens.h"
#include "usage/calibration.h"
#include "usage/prompt_tokens.h"

#define ROUNDS 20 /* short ones: the best is what a busy machine disturbs least */
#define CHATS 64  /* different ones, so that none is known by heart */
#define CHAT_BYTES 1024
#define COUNTS 2000
#define PIECES 200000
#define ANSWER_PIECES 500 /* of a usual answer: nothing is counted before somebody asks */
#define PROMPT_LIMIT_US 20
#define PIECE_LIMIT_NS 100

static const char *const english =
    "All human beings are born free and equal in dignity and rights. They are endowed with reason "
    "and conscience and should act towards one another in a spirit of brotherhood. Everyone has "
    "the right to life, liberty and security of person; no one shall be held in slavery. We plan "
    "to migrate 120 services to the new cluster on March 3, 2026, and don't expect any downtime. "
    "Could you please summarize the attached report in five bullet points, and list the risks?";
static const char *const russian =
    "Здравствуйте! Напишите, пожалуйста, короткий ответ на письмо клиента, который просит вернуть "
    "деньги за заказ. Он купил наушники две недели назад, но они перестали работать. Все люди "
    "рождаются свободными и равными в своём достоинстве и правах; они наделены разумом и совестью. "
    "В отчёте за 2025 год указано, что выручка выросла на 12,5 % — проверьте, так ли это.";

static char tokenizer[] = "o200k_base";
static const struct model_config model = {.tokenizer = tokenizer};

static int64_t cpu_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static uint32_t any(uint32_t *seed, uint32_t below)
{
    *seed = *seed * 1664525 + 1013904223;
    return (*seed >> 8) % below;
}

/* A word of the text with the space before it. */
static size_t word_at(const char *text, uint32_t *seed, const char **word)
{
    const char *at = text + any(seed, (uint32_t)strlen(text) - 64);

    at += strcspn(at, " ");
    *word = at;
    return at[0] == '\0' ? 0 : 1 + strcspn(at + 1, " ");
}

/* A system message and one of a user, of the text's words, CHAT_BYTES of JSON in all. */
static cJSON *make_chat(const char *text, uint32_t seed)
{
    struct buf body;
    cJSON *chat;

    buf_init(&body, SIZE_MAX);
    buf_str(&body, "[{\"role\":\"system\",\"content\":\"You are a helpful assistant.\"},"
                   "{\"role\":\"user\",\"content\":\"");
    while (body.len < CHAT_BYTES - 10) {
        const char *word;
        size_t len = word_at(text, &seed, &word);

        buf_append(&body, word, len);
    }
    buf_str(&body, "\"}]");
    chat = body.err != 0 ? NULL : json_parse(body.data, body.len, &JSON_LIMITS_DEFAULT, NULL, NULL);
    if (chat == NULL)
        abort();
    buf_clear(&body);
    return chat;
}

static int64_t count_chat(const cJSON *messages)
{
    struct prompt_tokens *count;
    struct token_estimate estimate;
    int rc;

    if (prompt_tokens_new(&model, messages, NULL, &count) < 0)
        abort();
    do {
        rc = prompt_tokens_step(count, 16384);
    } while (rc == 1);
    if (rc < 0)
        abort();
    prompt_tokens_result(count, CALIBRATION_ONE, &estimate);
    prompt_tokens_free(count);
    return estimate.tokens;
}

/* Nanoseconds for each chat, the best round. */
static int64_t time_chats(const char *text)
{
    cJSON *chats[CHATS];
    int64_t best_ns = INT64_MAX, tokens = 0;

    for (uint32_t i = 0; i < CHATS; i++)
        chats[i] = make_chat(text, i);
    for (int round = 0; round < ROUNDS; round++) {
        int64_t began_ns = cpu_ns(), took_ns;

        for (int i = 0; i < COUNTS; i++)
            tokens += count_chat(chats[i % CHATS]);
        took_ns = cpu_ns() - began_ns;
        if (took_ns < best_ns)
            best_ns = took_ns;
    }
    if (tokens < (int64_t)ROUNDS * COUNTS * CHAT_BYTES / 8)
        abort();
    for (int i = 0; i < CHATS; i++)
        cJSON_Delete(chats[i]);
    return best_ns / COUNTS;
}

/* The same for each piece of some 20 bytes, when an answer has so many. */
static int64_t time_pieces(const char *text, int answer_pieces)
{
    size_t len = strlen(text), at = 0;
    struct answer_tokens answer;
    int64_t best_ns = INT64_MAX;

    answer_tokens_init(&answer, &model);
    for (int round = 0; round < ROUNDS; round++) {
        int64_t began_ns = cpu_ns(), took_ns;

        for (int i = 0; i < PIECES; i++) {
            size_t piece = 18 + (size_t)i % 5;

            if (i % answer_pieces == 0)
                answer_tokens_reset(&answer);
            if (piece > len - at)
                piece = len - at;
            answer_tokens_add(&answer, text + at, piece);
            at = at + piece < len ? at + piece : 0;
        }
        took_ns = cpu_ns() - began_ns;
        if (took_ns < best_ns)
            best_ns = took_ns;
    }
    if (answer_tokens_guess(&answer) < (int64_t)answer_pieces * 8 / 4)
        abort();
    answer_tokens_clear(&answer);
    return best_ns / PIECES;
}

int main(void)
{
    int64_t english_ns = time_chats(english), russian_ns = time_chats(russian);
    int64_t kept_ns = time_pieces(russian, ANSWER_PIECES);
    int64_t counted_ns = time_pieces(russian, PIECES);

    printf("prompt of 1 KB counted: English %.1f us, Russian %.1f us CPU (limit %d)\n",
           (double)english_ns / 1000, (double)russian_ns / 1000, PROMPT_LIMIT_US);
    printf("piece of 20 bytes of an answer: kept %lld ns CPU (limit %d), in long answers counted "
           "too %lld ns\n",
           (long long)kept_ns, PIECE_LIMIT_NS, (long long)counted_ns);
    return english_ns > PROMPT_LIMIT_US * 1000 || russian_ns > PROMPT_LIMIT_US * 1000 ||
           kept_ns > PIECE_LIMIT_NS;
}
