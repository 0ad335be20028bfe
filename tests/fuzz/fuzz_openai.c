/* Any bytes as the answer of a compatible API (a stream, a whole answer, an error), and any request
 * for one. The first byte chooses the client's request, the second the flavor. A stream must come
 * out the same wherever it is cut and whichever way its chunks are read, and so must the text that
 * its meter is told; what comes out must be events of valid JSON. */
#define _GNU_SOURCE 1 /* memmem */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/log.h"
#include "providers/chat_request.h"
#include "providers/openai_flavor.h"
#include "providers/provider.h"
#include "tests/unit/meter_double.h"

#define FUZZ_MAX ((size_t)1 << 26)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct answer_identity identity = {"chatcmpl-1", "model", 1};

#define USER "\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]"
static const char *const requests[] = {
    "{\"model\":\"m\",\"stream\":true," USER "}",
    "{\"model\":\"m\",\"stream\":true,\"stream_options\":{\"include_usage\":true}," USER "}",
    "{\"model\":\"m\",\"stream\":true,\"n\":2," USER "}",
    "{\"model\":\"m\"," USER "}",
};
static const char *const flavors[] = {"openai", "mistral",  "groq",
                                      "gemini", "deepseek", "openrouter"};

/* What a stream came to. */
struct result {
    struct buf out; /* each event's JSON without white space, a line each */
    struct meter_double meter;
    int rc;
};

static const struct provider_ops *ops(void)
{
    return provider_ops_find("openai");
}

static void check_events(const struct buf *out, struct buf *tidy)
{
    const char *at = out->data;
    const char *end = out->len == 0 ? at : at + out->len;

    while (at < end) {
        const char *stop = memmem(at, (size_t)(end - at), "\n\n", 2);

        assert(stop != NULL && end - at > 6 && memcmp(at, "data: ", 6) == 0);
        at += 6;
        assert(memchr(at, '\n', (size_t)(stop - at)) == NULL);
        if (stop - at != 6 || memcmp(at, "[DONE]", 6) != 0)
            assert(json_check(at, (size_t)(stop - at), &JSON_LIMITS_DEFAULT, NULL, NULL) == 0);
        json_minify(tidy, at, (size_t)(stop - at));
        buf_byte(tidy, '\n');
        at = stop + 2;
    }
}

static int feed(struct sse *sse, void *stream, const char *in, size_t len, struct buf *out,
                struct token_usage *usage)
{
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
            rc = ops()->decode_event(stream, &ev, out, usage, &final, &e);
        assert(usage->output >= -1 && usage->cached <= usage->input);
        assert(rc >= 0 || e.number == rc);
    }
    return rc;
}

static void run_stream(const struct provider_config *p, const struct model_request *req,
                       const char *in, size_t len, size_t cut, struct result *r)
{
    struct token_usage usage = {-1, -1, -1};
    struct error e = {0};
    struct buf out;
    struct sse sse;
    void *stream;

    r->rc = 0;
    buf_init(&r->out, FUZZ_MAX);
    buf_init(&out, FUZZ_MAX);
    meter_double_init(&r->meter);
    stream = ops()->stream_new(p, req, &identity, &r->meter.meter);
    if (stream == NULL)
        return;
    sse_init(&sse);
    r->rc = feed(&sse, stream, in, cut, &out, &usage);
    if (r->rc == DECODE_MORE)
        r->rc = feed(&sse, stream, in + cut, len - cut, &out, &usage);
    if (r->rc >= 0)
        r->rc = ops()->decode_end(stream, &out, &e);
    ops()->stream_free(stream);
    sse_clear(&sse);
    check_events(&out, &r->out);
    buf_clear(&out);
    assert(r->meter.counts <= (req->include_usage ? 1 : 0));
}

static void result_clear(struct result *r)
{
    buf_clear(&r->out);
    meter_double_clear(&r->meter);
}

/* The same stream, but in each event one space more than in the one before: same JSON, but never a
 * form that the decoder knows already. */
static void spread(const char *in, size_t len, struct buf *out)
{
    static const char mark[] = "\ndata: {";
    const char *end = in + len;
    size_t spaces = 1;

    buf_byte(out, '\n');
    while (in < end) {
        const char *found = memmem(in, (size_t)(end - in), mark, sizeof(mark) - 1);
        const char *stop = found == NULL ? end : found + sizeof(mark) - 1;

        buf_append(out, in, (size_t)(stop - in));
        for (size_t i = 0; found != NULL && i < spaces; i++)
            buf_byte(out, ' ');
        spaces++;
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

static void run_streams(const struct provider_config *p, const struct model_request *req,
                        const char *in, size_t len, size_t cut)
{
    struct result whole, parts, slow;
    struct buf slow_in;

    run_stream(p, req, in, len, len, &whole);
    run_stream(p, req, in, len, cut, &parts);
    assert_same(&whole, &parts);
    /* A line end before everything ends no event, but would push a byte-order mark away. */
    if (len > 0 && (unsigned char)in[0] != 0xef) {
        buf_init(&slow_in, FUZZ_MAX);
        spread(in, len, &slow_in);
        run_stream(p, req, slow_in.data, slow_in.len, slow_in.len, &slow);
        assert_same(&whole, &slow);
        result_clear(&slow);
        buf_clear(&slow_in);
    }
    result_clear(&whole);
    result_clear(&parts);
}

static void run_whole(const struct provider_config *p, const struct model_request *req,
                      const char *in, size_t len)
{
    struct token_usage usage = {-1, -1, -1};
    struct meter_double meter;
    struct error e = {0};
    struct buf out;
    bool flag;
    int rc;

    buf_init(&out, FUZZ_MAX);
    meter_double_init(&meter);
    rc = ops()->decode_chat(p, req, &identity, in, len, &out, &meter.meter, &usage, &flag, &e);
    assert(rc == 0 || e.number == rc);
    assert(flag || usage.input == -1);
    if (rc == 0 && !req->stream) {
        assert(json_check(out.data, out.len, &JSON_LIMITS_DEFAULT, NULL, NULL) == 0);
        assert(meter.counts == !flag);
    }
    meter_double_clear(&meter);
    buf_clear(&out);
    assert(ops()->map_error(400, in, len, &flag, &e) == e.number && e.number < 0);
}

/* The request's bytes as a client's: what goes upstream is JSON again, for any flavor. */
static void run_request(const struct provider_config *p, const char *in, size_t len)
{
    struct upstream_request out;
    struct model_request req;
    struct error e = {0};
    struct buf ignored;
    int rc;

    if (chat_request_parse(in, len, &req, NULL) != 0)
        return;
    upstream_request_init(&out);
    buf_init(&ignored, 4096);
    rc = ops()->encode_chat(p, "up", &req, &(struct upstream_call){.request_id = "id"}, &out,
                            &ignored, &e);
    assert(rc == 0 || e.number == rc);
    if (rc == 0) {
        struct model_request again;

        assert(json_check(out.body.data, out.body.len, &JSON_LIMITS_DEFAULT, NULL, NULL) == 0);
        if (strcmp(p->flavor, "openai") == 0) {
            assert(chat_request_parse(out.body.data, out.body.len, &again, NULL) == 0);
            assert(strcmp(again.model, "up") == 0 && again.stream == req.stream);
            assert(!req.stream || again.include_usage);
            model_request_clear(&again);
        }
    }
    upstream_request_clear(&out);
    buf_clear(&ignored);
    model_request_clear(&req);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char base_url[] = "http://127.0.0.1/v1";
    struct provider_config p = {.base_url = base_url};
    const char *in = (const char *)data + 2;
    char flavor[16];
    const char *text;
    struct model_request req;

    if (size < 2)
        return 0;
    log_set_level(LOG_ERROR);
    strcpy(flavor, flavors[data[1] % (sizeof(flavors) / sizeof(flavors[0]))]);
    p.flavor = flavor;
    run_request(&p, in, size - 2);
    text = requests[data[0] % (sizeof(requests) / sizeof(requests[0]))];
    if (chat_request_parse(text, strlen(text), &req, NULL) != 0)
        return 0;
    run_streams(&p, &req, in, size - 2, (size_t)data[0] * 7 % (size - 1));
    run_whole(&p, &req, in, size - 2);
    model_request_clear(&req);
    return 0;
}
