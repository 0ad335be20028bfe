#include "tests/sim/embeddings.h"

#include <math.h>
#include <string.h>

#include "common/base64.h"
#include "common/json.h"
#include "tests/sim/chat.h"
#include "tests/sim/dialect.h"
#include "tests/sim/ids.h"
#include "tests/sim/rules.h"
#include "tests/sim/sim.h"

#define DIMENSIONS_MAX 4096
#define HASH_BITS 24 /* a float holds them exactly */

struct wanted {
    const char *model;
    const cJSON *input;
    int64_t dimensions;
    bool is_base64;
};

static bool is_openai(const struct conn *conn)
{
    return conn->dialect->id == DIALECT_OPENAI;
}

/* A list of numbers and nothing else. */
static bool is_token_list(const cJSON *value)
{
    const cJSON *item;

    if (!cJSON_IsArray(value) || value->child == NULL)
        return false;
    cJSON_ArrayForEach(item, value)
    {
        if (!cJSON_IsNumber(item))
            return false;
    }
    return true;
}

static bool is_input(const struct conn *conn, const cJSON *input)
{
    const cJSON *item;

    if (cJSON_IsString(input))
        return true;
    if (is_openai(conn) && is_token_list(input))
        return true;
    if (!cJSON_IsArray(input) || input->child == NULL)
        return false;
    cJSON_ArrayForEach(item, input)
    {
        if (!cJSON_IsString(item) && !(is_openai(conn) && is_token_list(item)))
            return false;
    }
    return true;
}

static bool read_wanted(struct conn *conn, const cJSON *root, struct wanted *out)
{
    const char *format = json_string(root, "encoding_format");

    out->model = json_string(root, "model");
    out->input = json_get(root, "input");
    out->dimensions = EMBEDDINGS_NUMBERS;
    if (out->model == NULL || strlen(out->model) >= JOURNAL_MODEL_BYTES ||
        !is_input(conn, out->input))
        return false;
    if (!is_openai(conn))
        return true;
    out->is_base64 = format != NULL && strcmp(format, "base64") == 0;
    return json_get(root, "dimensions") == NULL ||
           (json_get_i64(root, "dimensions", &out->dimensions) == 0 && out->dimensions > 0 &&
            out->dimensions <= DIMENSIONS_MAX);
}

static uint64_t hash_of(const cJSON *input)
{
    uint64_t hash = 0;
    const cJSON *item;

    if (cJSON_IsString(input))
        return hash_bytes(11, input->valuestring, strlen(input->valuestring));
    cJSON_ArrayForEach(item, input) hash =
        hash_bytes(hash, &item->valuedouble, sizeof(item->valuedouble));
    return hash;
}

static uint64_t tokens_of(const cJSON *input)
{
    if (cJSON_IsString(input))
        return count_tokens(count_code_points(input->valuestring, strlen(input->valuestring)));
    return (uint64_t)cJSON_GetArraySize(input);
}

static void make_vector(uint64_t hash, size_t count, float *out)
{
    double sum = 0;

    for (size_t i = 0; i < count; i++) {
        uint64_t bits = hash_bytes(hash, &i, sizeof(i)) >> (64 - HASH_BITS);

        out[i] = (float)bits / (float)(1 << (HASH_BITS - 1)) - 1.0F;
        sum += (double)out[i] * (double)out[i];
    }
    for (size_t i = 0; i < count; i++)
        out[i] = (float)((double)out[i] / sqrt(sum));
}

static void put_base64(struct buf *out, const float *vector, size_t count)
{
    uint8_t bytes[DIMENSIONS_MAX * sizeof(float)];

    for (size_t i = 0; i < count; i++) {
        uint32_t bits;

        memcpy(&bits, &vector[i], sizeof(bits));
        for (size_t j = 0; j < sizeof(bits); j++)
            bytes[i * sizeof(bits) + j] = (uint8_t)(bits >> (8 * j));
    }
    buf_byte(out, '"');
    base64_put(out, bytes, count * sizeof(float));
    buf_byte(out, '"');
}

static void put_element(struct conn *conn, struct buf *out, const struct wanted *wanted,
                        const cJSON *input, size_t index)
{
    float vector[DIMENSIONS_MAX];
    size_t count = (size_t)wanted->dimensions;

    make_vector(hash_of(input), count, vector);
    buf_str(out, index == 0 ? "{" : ",{");
    json_put_field_text(out, "object", "embedding");
    json_put_field_u64(out, "index", index);
    json_put_key(out, "embedding");
    if (wanted->is_base64) {
        put_base64(out, vector, count);
    } else {
        for (size_t i = 0; i < count; i++)
            buf_printf(out, "%s%.9g", i == 0 ? "[" : ",", (double)vector[i]);
        buf_byte(out, ']');
    }
    if (!is_openai(conn)) { /* each for itself, and no sum */
        json_put_key(out, "usage");
        buf_byte(out, '{');
        json_put_field_u64(out, "prompt_tokens", tokens_of(input));
        buf_byte(out, '}');
    }
    buf_byte(out, '}');
}

static void put_usage(struct buf *out, uint64_t tokens)
{
    json_put_key(out, "usage");
    buf_byte(out, '{');
    json_put_field_u64(out, "prompt_tokens", tokens);
    json_put_field_u64(out, "total_tokens", tokens);
    buf_byte(out, '}');
}

static void put_body(struct conn *conn, struct buf *out, const struct wanted *wanted)
{
    bool is_one = cJSON_IsString(wanted->input) || is_token_list(wanted->input);
    const cJSON *item = is_one ? wanted->input : wanted->input->child;
    uint64_t tokens = 0;
    size_t index = 0;

    buf_byte(out, '{');
    json_put_field_text(out, "object", "list");
    json_put_field_text(out, "model", wanted->model);
    json_put_key(out, "data");
    buf_byte(out, '[');
    do {
        put_element(conn, out, wanted, item, index++);
        tokens += tokens_of(item);
        item = is_one ? NULL : item->next;
    } while (item != NULL);
    buf_byte(out, ']');
    if (is_openai(conn))
        put_usage(out, tokens);
    buf_byte(out, '}');
    if (plan_has(&conn->plan, PLAN(MALFORMED)))
        out->len -= 2;
}

static bool is_admitted(struct conn *conn)
{
    struct caller caller = {.has_user_agent = conn->request.user_agent.len > 0};
    struct verdict verdict;

    conn->dialect->identify(conn, &caller);
    if (is_openai(conn)) {
        if (caller.token == TOKEN_VALID)
            return true;
        http_reply_error(conn, 401, conn->dialect->unauthorized_text);
        return false;
    }
    if (rules_admit(&conn->sim->config, &caller, &verdict))
        return true;
    http_reply_verdict(conn, &verdict);
    return false;
}

void embeddings_answer(struct conn *conn)
{
    struct buf *body = sim_scratch(&conn->sim->body);
    struct chat *chat = conn->handler_data;
    struct wanted wanted = {0};
    cJSON *root;

    if (!is_admitted(conn))
        return;
    root = json_parse(conn->request.body.data, conn->request.body.len, &JSON_LIMITS_DEFAULT, NULL,
                      NULL);
    if (root == NULL || !read_wanted(conn, root, &wanted)) {
        http_reply_error(conn, 400,
                         is_openai(conn) ? "'input' or 'model' is invalid."
                                         : "Your request contains invalid JSON syntax.");
    } else {
        memcpy(chat->model, wanted.model, strlen(wanted.model) + 1);
        put_body(conn, body, &wanted);
        if (body->err != 0)
            http_reply_error(conn, 500, http_reason(500));
        else
            http_reply(conn, 200, conn->dialect->json_type, "", body->data, body->len);
    }
    cJSON_Delete(root);
}
