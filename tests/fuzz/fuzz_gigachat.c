/* Any bytes as GigaChat's answer: a stream, a whole answer, a token, an error. The first byte
 * chooses the client's request. A stream must come out the same wherever it is cut, and so must the
 * text that its meter is told; what comes out must be events of valid JSON. */
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
static const struct provider_config provider = {0};

#define USER "\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]"
static const char *const requests[] = {
    "{\"model\":\"m\",\"stream\":true," USER "}",
    "{\"model\":\"m\",\"stream\":true,\"stream_options\":{\"include_usage\":true}," USER "}",
    "{\"model\":\"m\",\"stream\":true,\"stop\":[\"ab\",\"\\n\\n\"]," USER "}",
    "{\"model\":\"m\",\"functions\":[{\"name\":\"f\"}]," USER "}",
    "{\"model\":\"m\",\"stop\":\"b\"," USER "}",
};

/* What a stream came to. */
struct result {
    struct buf out;
    struct meter_double meter;
    int rc;
};

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

static int feed(struct sse *sse, void *stream, const char *in, size_t len, struct buf *out,
                struct token_usage *usage)
{
    const struct provider_ops *ops = provider_ops_find("gigachat");
    struct error e = {0};
    bool final;
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
            rc = ops->decode_event(stream, &ev, out, usage, &final, &e);
        assert(usage->output >= -1 && usage->cached <= usage->input);
        assert(rc >= 0 || e.number == rc);
    }
    return rc;
}

static void run_stream(const struct model_request *req, const char *in, size_t len, size_t cut,
                       struct result *r)
{
    const struct provider_ops *ops = provider_ops_find("gigachat");
    struct token_usage usage = {-1, -1, -1};
    struct error e = {0};
    struct sse sse;
    void *stream;

    r->rc = 0;
    buf_init(&r->out, (size_t)1 << 26);
    meter_double_init(&r->meter);
    stream = ops->stream_new(&provider, req, &identity, &r->meter.meter);
    if (stream == NULL)
        return;
    sse_init(&sse);
    r->rc = feed(&sse, stream, in, cut, &r->out, &usage);
    if (r->rc == DECODE_MORE)
        r->rc = feed(&sse, stream, in + cut, len - cut, &r->out, &usage);
    if (r->rc >= 0)
        r->rc = ops->decode_end(stream, &r->out, &e);
    ops->stream_free(stream);
    sse_clear(&sse);
    check_events(&r->out);
    assert(r->meter.counts <= (req->include_usage ? 1 : 0));
}

static void result_clear(struct result *r)
{
    buf_clear(&r->out);
    meter_double_clear(&r->meter);
}

/* The same stream with a space more in each event: same JSON, but never the form that the decoder
 * takes without parsing. */
static void spread(const char *in, size_t len, struct buf *out)
{
    static const char mark[] = "\ndata: {";
    const char *end = in + len;

    buf_byte(out, '\n');
    while (in < end) {
        const char *found = memmem(in, (size_t)(end - in), mark, sizeof(mark) - 1);
        const char *stop = found == NULL ? end : found + sizeof(mark) - 1;

        buf_append(out, in, (size_t)(stop - in));
        if (found != NULL)
            buf_byte(out, ' ');
        in = stop;
    }
}

static void assert_same_bytes(const struct buf *a, const struct buf *b)
{
    assert(a->len == b->len);
    assert(a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

static void assert_same(const struct result *a, const struct result *b)
{
    assert(a->rc == b->rc);
    assert_same_bytes(&a->out, &b->out);
    assert_same_bytes(&a->meter.text, &b->meter.text);
}

static void run_streams(const struct model_request *req, const char *in, size_t len, size_t cut)
{
    struct result whole, parts, slow;
    struct buf slow_in;

    run_stream(req, in, len, len, &whole);
    run_stream(req, in, len, cut, &parts);
    assert_same(&whole, &parts);
    /* A line end before everything ends no event, but would push a byte-order mark away. */
    if (len > 0 && (unsigned char)in[0] != 0xef) {
        buf_init(&slow_in, (size_t)1 << 26);
        spread(in, len, &slow_in);
        run_stream(req, slow_in.data, slow_in.len, slow_in.len, &slow);
        assert_same(&whole, &slow);
        result_clear(&slow);
        buf_clear(&slow_in);
    }
    result_clear(&whole);
    result_clear(&parts);
}

static void run_whole(const struct model_request *req, const char *in, size_t len)
{
    const struct provider_ops *ops = provider_ops_find("gigachat");
    struct token_usage usage = {-1, -1, -1};
    struct meter_double meter;
    struct error e = {0};
    struct buf out;
    bool flag;
    int rc;

    buf_init(&out, (size_t)1 << 26);
    meter_double_init(&meter);
    rc =
        ops->decode_chat(&provider, req, &identity, in, len, &out, &meter.meter, &usage, &flag, &e);
    assert(rc == 0 || e.number == rc);
    assert(flag ? meter.counts == 0 : usage.input == -1 && usage.output == -1);
    if (!req->stream)
        assert(meter.counts == (rc == 0 && !flag));
    meter_double_clear(&meter);
    if (rc == 0 && !req->stream)
        assert(json_check(out.data, out.len, &JSON_LIMITS_DEFAULT, NULL, NULL) == 0);
    buf_clear(&out);
    ops->map_error(400, in, len, &flag, &e);
    assert(e.number == XR_EINVALID);
}

static void run_token(const char *in, size_t len)
{
    struct error e = {0};
    int64_t expires_at_ms;
    char *token;

    if (provider_ops_find("gigachat")
            ->decode_token(200, in, len, 1000, &token, &expires_at_ms, &e) == 0)
        assert(token[0] != '\0' && expires_at_ms > 1000);
    free(token);
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
    run_token(in, size - 1);
    model_request_clear(&req);
    return 0;
}
