/* Any bytes as Anthropic's answer: a stream, a whole answer, an error; and as a client's request to
 * it. The first byte chooses the client's request. A stream must come out the same wherever it is
 * cut, and so must the text that its meter is told; what comes out, here and in a request, must be
 * valid JSON. */
#define _GNU_SOURCE 1 /* memmem */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/log.h"
#include "providers/chat_request.h"
#include "providers/provider.h"
#include "tests/unit/meter_double.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct answer_identity identity = {"chatcmpl-1", "model", 1};
static char base_url[] = "https://h";
static const struct provider_config provider = {.base_url = base_url, .default_max_tokens = 1};

#define USER "\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]"
#define SCHEMA                                                                       \
    "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"n\"," \
    "\"schema\":{}}},"
static const char *const requests[] = {
    "{\"model\":\"m\",\"stream\":true," USER "}",
    "{\"model\":\"m\",\"stream\":true,\"stream_options\":{\"include_usage\":true}," USER "}",
    "{\"model\":\"m\",\"stream\":true,\"stop\":[\"  \",\"\\n\\n\"]," USER "}",
    "{\"model\":\"m\",\"stream\":true,\"functions\":[{\"name\":\"f\"}]," USER "}",
    "{\"model\":\"m\",\"stream\":true," SCHEMA USER "}",
    "{\"model\":\"m\",\"functions\":[{\"name\":\"a.b\"}]," USER "}",
    "{\"model\":\"m\",\"stop\":\" \"," SCHEMA USER "}",
};

static const struct provider_ops *adapter(void)
{
    return provider_ops_find("anthropic");
}

/* What a stream came to. */
struct result {
    struct buf out;
    struct meter_double meter;
    struct token_usage usage;
    int rc;
};

static void result_clear(struct result *r)
{
    buf_clear(&r->out);
    meter_double_clear(&r->meter);
}

static void check_events(const struct buf *out)
{
    const char *at = out->data;
    const char *end = out->len == 0 ? at : at + out->len;

    while (at < end) {
        const char *stop = memmem(at, (size_t)(end - at), "\n\n", 2);

        assert(stop != NULL && end - at > 6 && memcmp(at, "data: ", 6) == 0);
        at += 6;
        if (stop - at != 6 || memcmp(at, "[DONE]", 6) != 0)
            assert(json_check(at, (size_t)(stop - at), &JSON_LIMITS_DEFAULT, NULL, NULL) == 0);
        at = stop + 2;
    }
}

static int feed(struct sse *sse, void *stream, const char *in, size_t len, struct result *r)
{
    struct error e = {0};
    bool final = false;
    int rc = DECODE_MORE;

    while (len > 0 && rc == DECODE_MORE) {
        struct event ev;
        size_t used;
        int got = sse_feed(sse, in, len, &used, &ev);

        if (got < 0)
            return got;
        in += used;
        len -= used;
        if (got == 1)
            rc = adapter()->decode_event(stream, &ev, &r->out, &r->usage, &final, &e);
        assert(r->usage.output >= -1 && r->usage.cached <= r->usage.input);
        assert(rc >= 0 || e.number == rc);
    }
    return rc;
}

static void run_stream(const struct model_request *req, const char *in, size_t len, size_t cut,
                       struct result *r)
{
    struct error e = {0};
    struct sse sse;
    void *stream;

    r->rc = 0;
    r->usage = (struct token_usage){-1, -1, -1};
    buf_init(&r->out, (size_t)1 << 26);
    meter_double_init(&r->meter);
    stream = adapter()->stream_new(&provider, req, &identity, &r->meter.meter);
    if (stream == NULL)
        return;
    sse_init(&sse);
    r->rc = feed(&sse, stream, in, cut, r);
    if (r->rc == DECODE_MORE)
        r->rc = feed(&sse, stream, in + cut, len - cut, r);
    if (r->rc >= 0)
        r->rc = adapter()->decode_end(stream, &r->out, &e);
    adapter()->stream_free(stream);
    sse_clear(&sse);
    check_events(&r->out);
    assert((r->rc == 0) ==
           (r->out.len > 0 && memmem(r->out.data, r->out.len, "data: [DONE]\n\n", 14) != NULL));
    assert(r->meter.counts <= (req->include_usage ? 1 : 0));
}

static void assert_same_bytes(const struct buf *a, const struct buf *b)
{
    assert(a->len == b->len);
    assert(a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

static void run_streams(const struct model_request *req, const char *in, size_t len, size_t cut)
{
    struct result whole, parts;

    run_stream(req, in, len, len, &whole);
    run_stream(req, in, len, cut, &parts);
    assert(whole.rc == parts.rc);
    assert_same_bytes(&whole.out, &parts.out);
    assert_same_bytes(&whole.meter.text, &parts.meter.text);
    assert(memcmp(&whole.usage, &parts.usage, sizeof(whole.usage)) == 0);
    result_clear(&whole);
    result_clear(&parts);
}

static void run_whole(const struct model_request *req, const char *in, size_t len)
{
    struct token_usage usage = {-1, -1, -1};
    struct meter_double meter;
    struct error e = {0};
    struct buf out;
    bool flag;
    int rc;

    buf_init(&out, (size_t)1 << 26);
    meter_double_init(&meter);
    rc = adapter()->decode_chat(&provider, req, &identity, in, len, &out, &meter.meter, &usage,
                                &flag, &e);
    assert(rc == 0 || e.number == rc);
    assert(flag ? meter.counts == 0 : usage.input == -1 && usage.output == -1);
    if (!req->stream)
        assert(meter.counts == (rc == 0 && !flag));
    meter_double_clear(&meter);
    if (req->stream)
        check_events(&out);
    else if (rc == 0)
        assert(json_check(out.data, out.len, &JSON_LIMITS_DEFAULT, NULL, NULL) == 0);
    buf_clear(&out);
    rc = adapter()->map_error(400, in, len, &flag, &e);
    assert(e.number == rc && rc < 0);
}

/* The bytes as a client's request. */
static void run_request(const char *in, size_t len)
{
    static const char *const models[] = {"claude-opus-5", "claude-3-haiku", "other"};
    static const struct json_limits deeper = {.depth = 80, .elements = 400000};
    struct upstream_request r;
    struct model_request req;
    struct error e = {0};
    struct buf ignored;
    int rc;

    if (chat_request_parse(in, len, &req, NULL) != 0)
        return;
    upstream_request_init(&r);
    buf_init(&ignored, 1000);
    rc = adapter()->encode_chat(&provider, models[len % 3], &req,
                                &(struct upstream_call){.request_id = "r"}, &r, &ignored, &e);
    assert(rc == 0 || e.number == rc);
    if (rc == 0)
        assert(json_check(r.body.data, r.body.len, &deeper, NULL, NULL) == 0);
    buf_clear(&ignored);
    upstream_request_clear(&r);
    model_request_clear(&req);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *in = (const char *)data + 1;
    const char *text;
    struct model_request req;

    if (size == 0)
        return 0;
    log_set_level(LOG_ERROR);
    text = requests[data[0] % (sizeof(requests) / sizeof(requests[0]))];
    if (chat_request_parse(text, strlen(text), &req, NULL) != 0)
        return 0;
    run_streams(&req, in, size - 1, (size_t)data[0] * 7 % size);
    run_whole(&req, in, size - 1);
    run_request(in, size - 1);
    model_request_clear(&req);
    return 0;
}
