#include "providers/embeddings.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base64.h"
#include "common/json_copy.h"

#define NUMBER_BYTES 64 /* json_check() lets no longer one through */

/* A vector has thousands of numbers, and none of them is parsed into a tree. */
static const struct json_limits LIMITS = {.depth = 16, .elements = 64 * 1024 * 1024};

struct decoder {
    const struct model_request *req;
    const struct answer_identity *identity;
    size_t vectors;       /* so far */
    int64_t input_tokens; /* the elements' own, so far; -1 = none has told */
};

static int not_understood(struct error *e)
{
    return error_set(e, XR_EUPSTREAM, NULL, "The provider sent what could not be understood.");
}

static bool read_count(struct json_span object, const char *path, int64_t *out)
{
    struct json_span value;
    int64_t count = 0;

    if (json_slice(object.at, object.len, path, &value.at, &value.len) < 0 || value.len == 0 ||
        value.len > 10)
        return false;
    for (size_t i = 0; i < value.len; i++) {
        if (value.at[i] < '0' || value.at[i] > '9')
            return false;
        count = count * 10 + (value.at[i] - '0');
    }
    *out = count;
    return true;
}

/* -EBADMSG: no number that a float can hold. */
static int put_float(struct json_span number, struct buf *bytes)
{
    char text[NUMBER_BYTES];
    uint32_t bits;
    uint8_t little[sizeof(bits)];
    float value;
    char *end;

    if (number.len == 0 || number.len >= sizeof(text))
        return -EBADMSG;
    memcpy(text, number.at, number.len);
    text[number.len] = '\0';
    value = strtof(text, &end);
    if (*end != '\0' || !isfinite(value))
        return -EBADMSG;
    memcpy(&bits, &value, sizeof(bits));
    for (size_t i = 0; i < sizeof(little); i++)
        little[i] = (uint8_t)(bits >> (8 * i));
    return buf_append(bytes, little, sizeof(little));
}

static int put_base64(struct json_span vector, struct buf *out)
{
    struct json_walk walk;
    struct json_member number;
    struct buf bytes;
    int rc = 0;

    buf_init(&bytes, vector.len * 2);
    json_walk_begin(&walk, vector);
    while (rc == 0 && json_walk_next(&walk, &number))
        rc = put_float(number.value, &bytes);
    if (rc == 0) {
        buf_byte(out, '"');
        base64_put(out, bytes.data, bytes.len);
        rc = buf_byte(out, '"');
    }
    buf_clear(&bytes);
    return rc;
}

static int copy_vector(struct decoder *d, struct json_copy *c, const struct json_member *m)
{
    bool is_list = m->value.at[0] == '[';

    if (!is_list && m->value.at[0] != '"')
        return -EBADMSG;
    d->vectors++;
    if (is_list && d->req->wants_base64)
        return put_base64(m->value, json_copy_value(c, m));
    json_copy_keep(c, m);
    return 0;
}

static int copy_element(struct decoder *d, struct json_span element, struct buf *out)
{
    struct json_copy c;
    struct json_member m;
    int64_t tokens;
    int rc = 0;

    if (element.at[0] != '{')
        return -EBADMSG;
    if (read_count(element, "usage.prompt_tokens", &tokens))
        d->input_tokens = tokens + (d->input_tokens < 0 ? 0 : d->input_tokens);
    json_copy_open(&c, element, out);
    while (rc == 0 && json_copy_next(&c, &m)) {
        if (json_name_is(m.name, "embedding"))
            rc = copy_vector(d, &c, &m);
        else if (!json_name_is(m.name, "usage"))
            json_copy_keep(&c, &m);
    }
    return rc < 0 ? rc : json_copy_close(&c);
}

static int copy_data(struct decoder *d, struct json_span data, struct buf *out)
{
    struct json_copy c;
    struct json_member element;
    int rc = 0;

    if (data.at[0] != '[')
        return -EBADMSG;
    json_copy_open(&c, data, out);
    while (rc == 0 && json_copy_next(&c, &element))
        rc = copy_element(d, element.value, json_copy_value(&c, &element));
    return rc < 0 ? rc : json_copy_close(&c);
}

/* One for each text, or each list of tokens. */
static size_t vectors_wanted(const struct model_request *req)
{
    bool is_one = !cJSON_IsArray(req->input) || cJSON_IsNumber(req->input->child);

    return is_one ? 1 : (size_t)cJSON_GetArraySize(req->input);
}

static void put_usage(int64_t tokens, struct buf *out)
{
    buf_byte(out, '{');
    json_put_field_i64(out, "prompt_tokens", tokens);
    json_put_field_i64(out, "total_tokens", tokens);
    buf_byte(out, '}');
}

/* *input: the provider's count, -1 = it has told none. */
static int copy_answer(struct decoder *d, struct json_span body, struct buf *out,
                       struct token_meter *meter, int64_t *input)
{
    bool has_usage = read_count(body, "usage.prompt_tokens", input);
    struct token_usage counted;
    struct json_copy c;
    struct json_member m;
    int rc = 0;

    json_copy_open(&c, body, out);
    while (rc == 0 && json_copy_next(&c, &m)) {
        if (json_name_is(m.name, "model"))
            json_put_text(json_copy_value(&c, &m), d->identity->model);
        else if (json_name_is(m.name, "data"))
            rc = copy_data(d, m.value, json_copy_value(&c, &m));
        else if (has_usage || !json_name_is(m.name, "usage"))
            json_copy_keep(&c, &m);
    }
    if (rc < 0)
        return rc;
    if (!has_usage) {
        *input = d->input_tokens;
        if (*input < 0)
            meter->count(meter, &counted);
        put_usage(*input < 0 ? counted.input : *input, json_copy_add(&c, "usage"));
    }
    return json_copy_close(&c);
}

int embeddings_decode(const struct provider_config *p, const struct model_request *req,
                      const struct answer_identity *identity, const char *body, size_t len,
                      struct buf *out, struct token_meter *meter, struct token_usage *usage,
                      bool *usage_final, struct error *e)
{
    struct decoder d = {.req = req, .identity = identity, .input_tokens = -1};
    struct json_span span = {body, len};
    int64_t input = -1;
    int rc;

    *usage_final = false;
    if (len == 0 || json_check(body, len, &LIMITS, NULL, NULL) < 0)
        return not_understood(e);
    while (span.len > 0 && strchr(" \t\r\n", span.at[0]) != NULL) {
        span.at++;
        span.len--;
    }
    if (span.at[0] != '{')
        return not_understood(e);
    rc = copy_answer(&d, span, out, meter, &input);
    if (rc == -EBADMSG || (rc == 0 && d.vectors != vectors_wanted(req)))
        return not_understood(e);
    if (rc < 0)
        return error_set(e, rc, NULL, NULL);
    *usage_final = input >= 0;
    if (*usage_final)
        *usage = (struct token_usage){.input = input, .cached = 0, .output = 0};
    return 0;
}
