/* openai_kit.h - what the tests of the adapter for compatible APIs share: fixtures read, requests
 * parsed, streams fed. Include it last. */
#ifndef XROUTER_TESTS_UNIT_OPENAI_KIT_H
#define XROUTER_TESTS_UNIT_OPENAI_KIT_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/meter_double.h"

#include "providers/chat_request.h"
#include "providers/provider.h"
#include "providers/sse.h"

#define FIXTURES "tests/unit/fixtures/openai/"
#define KIT_MAX ((size_t)1 << 24)

static const struct answer_identity kit_identity = {"chatcmpl-0123", "our/model", 1700000000};

static inline const struct provider_ops *kit_ops(void)
{
    const struct provider_ops *ops = provider_ops_find("openai");

    assert_non_null(ops);
    return ops;
}

static inline struct provider_config kit_provider(const char *flavor)
{
    static char name[] = "openai", base[] = "https://api.example.com/v1", key[] = "sk-secret";
    static char included[] = "included", flavors[8][16];
    static unsigned next;
    struct provider_config p = {0};

    next = (next + 1) % 8;
    snprintf(flavors[next], sizeof(flavors[next]), "%s", flavor);
    p.name = name;
    p.type = name;
    p.flavor = flavors[next];
    p.base_url = base;
    p.credentials = key;
    p.cached_tokens = included;
    return p;
}

/* The file's content, to be cleared. */
static inline void kit_read(const char *name, struct buf *out)
{
    char path[256];
    FILE *f;
    size_t n;

    snprintf(path, sizeof(path), FIXTURES "%s", name);
    f = fopen(path, "rb");
    if (f == NULL)
        fail_msg("%s is missing", path);
    buf_init(out, KIT_MAX);
    do {
        char *room = buf_room(out, 4096);

        assert_non_null(room);
        n = fread(room, 1, 4096, f);
        buf_commit(out, n);
    } while (n > 0);
    fclose(f);
    assert_non_null(buf_text(out));
}

static inline void kit_parse(const char *text, struct model_request *req)
{
    struct error e = {0};

    if (chat_request_parse(text, strlen(text), req, &e) != 0)
        fail_msg("%s: %s", e.param, e.message);
}

struct kit_answer {
    struct buf out;
    struct meter_double meter;
    struct token_usage usage;
    bool usage_final;
    struct error e;
    int rc; /* of decode_end(), or the failure before it */
};

static inline void kit_answer_clear(struct kit_answer *a)
{
    buf_clear(&a->out);
    meter_double_clear(&a->meter);
}

/* All text that the meter got. */
static inline const char *told(struct kit_answer *a)
{
    return a->meter.text.len == 0 ? "" : buf_text(&a->meter.text);
}

/* All zero but for what is not known. */
static inline void kit_answer_init(struct kit_answer *a)
{
    memset(a, 0, sizeof(*a));
    a->usage = (struct token_usage){-1, -1, -1};
    buf_init(&a->out, KIT_MAX);
    meter_double_init(&a->meter);
}

/* Feeds one piece; false once nothing more is wanted. */
static inline bool kit_feed(struct sse *sse, void *stream, const char *in, size_t len,
                            struct kit_answer *a)
{
    struct event ev;
    size_t used;

    while (len > 0) {
        int rc = sse_feed(sse, in, len, &used, &ev);

        assert_true(rc >= 0);
        in += used;
        len -= used;
        if (rc == 0)
            continue;
        a->rc = kit_ops()->decode_event(stream, &ev, &a->out, &a->usage, &a->usage_final, &a->e);
        if (a->rc != DECODE_MORE)
            return false;
    }
    return true;
}

/* A whole stream, cut in two at `cut`. */
static inline void kit_stream(const struct provider_config *p, const struct model_request *req,
                              const char *in, size_t len, size_t cut, struct kit_answer *a)
{
    void *stream;
    struct sse sse;

    kit_answer_init(a);
    stream = kit_ops()->stream_new(p, req, &kit_identity, &a->meter.meter);
    assert_non_null(stream);
    sse_init(&sse);
    if (kit_feed(&sse, stream, in, cut, a))
        kit_feed(&sse, stream, in + cut, len - cut, a);
    if (a->rc >= 0)
        a->rc = kit_ops()->decode_end(stream, &a->out, &a->e);
    kit_ops()->stream_free(stream);
    sse_clear(&sse);
}

/* The fixture "stream_NAME.sse", where NAME begins with the flavor or "openai" is meant. */
static inline void kit_stream_file(const char *flavor, const char *request, const char *name,
                                   struct kit_answer *a)
{
    struct provider_config p = kit_provider(flavor);
    struct model_request req;
    struct buf in;

    kit_parse(request, &req);
    kit_read(name, &in);
    kit_stream(&p, &req, in.data, in.len, in.len, a);
    buf_clear(&in);
    model_request_clear(&req);
}

static inline void kit_whole(const char *flavor, const char *request, const char *body,
                             struct kit_answer *a)
{
    struct provider_config p = kit_provider(flavor);
    struct model_request req;

    kit_parse(request, &req);
    kit_answer_init(a);
    a->rc = kit_ops()->decode_chat(&p, &req, &kit_identity, body, strlen(body), &a->out,
                                   &a->meter.meter, &a->usage, &a->usage_final, &a->e);
    model_request_clear(&req);
}

#define KIT_USER "\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]"
#define KIT_STREAM "{\"model\":\"m\",\"stream\":true," KIT_USER "}"
#define KIT_STREAM_USAGE \
    "{\"model\":\"m\",\"stream\":true,\"stream_options\":{\"include_usage\":true}," KIT_USER "}"
#define KIT_WHOLE "{\"model\":\"m\"," KIT_USER "}"

#endif
