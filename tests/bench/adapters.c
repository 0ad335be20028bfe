/* What an adapter costs a request, in CPU: the encoding of a chat, a whole answer decoded, and each
 * event of a stream. A median of rounds; figures to compare with each other, so there is no limit.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/json.h"
#include "providers/chat_request.h"
#include "providers/provider.h"

#define ROUNDS 9
#define CALLS 2000
#define STREAMS 20
#define EVENTS 200 /* with text, in a stream */

#define TEXT "The weather in Tula is fine, and it will be so till the end of the week. "
#define USER "{\"role\":\"user\",\"content\":\"" TEXT TEXT "\"}"
#define MESSAGES                                                          \
    "\"messages\":[{\"role\":\"system\",\"content\":\"Be brief.\"}," USER \
    ",{\"role\":\"assistant\",\"content\":\"" TEXT "\"}," USER "]"
#define TOOLS                                                                                    \
    ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"get_weather\",\"description\":" \
    "\"Current weather\",\"parameters\":{\"type\":\"object\",\"properties\":{\"city\":{"         \
    "\"type\":\"string\"},\"days\":{\"type\":\"integer\"}},\"required\":[\"city\"]}}}]"

static char name[] = "x", base_url[] = "https://api.example/v1", key[] = "secret", auth[] = "oauth";
static char flavor[] = "openai", cached[] = "included", empty[] = "";

struct adapter {
    const char *type;
    const char *answer;
    struct event first, text, last[4]; /* the last ones up to a NULL */
};

#define EVENT(event, text)                                       \
    {                                                            \
        .name = (event), .data = (text), .len = sizeof(text) - 1 \
    }
#define OPENAI_HEAD                                                                        \
    "{\"id\":\"chatcmpl-A1\",\"object\":\"chat.completion.chunk\",\"created\":1790000000," \
    "\"model\":\"gpt\",\"choices\":[{\"index\":0,\"delta\":"
#define GIGACHAT_TAIL                                                                     \
    ",\"index\":0}],\"created\":1790000200,\"model\":\"GigaChat:2.0\",\"object\":\"chat." \
    "completion\"}"

static const struct adapter adapters[] = {
    {.type = "gigachat",
     .answer = "{\"choices\":[{\"message\":{\"content\":\"" TEXT TEXT
               "\",\"role\":\"assistant\"},\"index\":0,\"finish_reason\":\"stop\"}],"
               "\"created\":1790000100,\"model\":\"GigaChat:2.0\",\"object\":\"chat.completion\","
               "\"usage\":{\"prompt_tokens\":61,\"completion_tokens\":30,\"total_tokens\":91,"
               "\"precached_prompt_tokens\":12}}",
     .first = EVENT(
         "", "{\"choices\":[{\"delta\":{\"content\":\"The\",\"role\":\"assistant\"}" GIGACHAT_TAIL),
     .text = EVENT("", "{\"choices\":[{\"delta\":{\"content\":\" weather is\"}" GIGACHAT_TAIL),
     .last = {EVENT("", "{\"choices\":[{\"delta\":{\"content\":\"\"},\"index\":0,"
                        "\"finish_reason\":\"stop\"}],\"created\":1790000200,"
                        "\"usage\":{\"prompt_tokens\":61,\"completion_tokens\":30,"
                        "\"total_tokens\":91}}"),
              EVENT("", "[DONE]")}},
    {.type = "openai",
     .answer = "{\"id\":\"chatcmpl-A1\",\"object\":\"chat.completion\",\"created\":1790000000,"
               "\"model\":\"gpt\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
               "\"content\":\"" TEXT TEXT "\"},\"logprobs\":null,\"finish_reason\":\"stop\"}],"
               "\"usage\":{\"prompt_tokens\":61,\"completion_tokens\":30,\"total_tokens\":91}}",
     .first = EVENT("", OPENAI_HEAD
                    "{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}"),
     .text = EVENT("", OPENAI_HEAD "{\"content\":\" weather is\"},\"finish_reason\":null}]}"),
     .last = {EVENT("", OPENAI_HEAD "{},\"finish_reason\":\"stop\"}]}"),
              EVENT("", "{\"id\":\"chatcmpl-A1\",\"object\":\"chat.completion.chunk\","
                        "\"created\":1790000000,\"model\":\"gpt\",\"choices\":[],"
                        "\"usage\":{\"prompt_tokens\":61,\"completion_tokens\":30,"
                        "\"total_tokens\":91}}"),
              EVENT("", "[DONE]")}},
    {.type = "anthropic",
     .answer = "{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude\","
               "\"content\":[{\"type\":\"text\",\"text\":\"" TEXT TEXT "\"}],"
               "\"stop_reason\":\"end_turn\",\"stop_sequence\":null,"
               "\"usage\":{\"input_tokens\":61,\"output_tokens\":30}}",
     .first = EVENT("message_start",
                    "{\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":"
                    "\"message\",\"role\":\"assistant\",\"content\":[],\"model\":\"claude\","
                    "\"stop_reason\":null,\"usage\":{\"input_tokens\":61,\"output_tokens\":1}}}"),
     .text = EVENT("content_block_delta",
                   "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":"
                   "\"text_delta\",\"text\":\" weather is\"}}"),
     .last = {EVENT("content_block_stop", "{\"type\":\"content_block_stop\",\"index\":0}"),
              EVENT("message_delta",
                    "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\","
                    "\"stop_sequence\":null},\"usage\":{\"output_tokens\":30}}"),
              EVENT("message_stop", "{\"type\":\"message_stop\"}")}},
};

/* Anthropic's text stands in a block that has begun. */
static const struct event block_start =
    EVENT("content_block_start", "{\"type\":\"content_block_start\",\"index\":0,\"content_block\":"
                                 "{\"type\":\"text\",\"text\":\"\"}}");

static const struct answer_identity identity = {"chatcmpl-0123", "our/model", 1790000000};

static int64_t cpu_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

static void fail(const struct adapter *a, const char *what)
{
    fprintf(stderr, "adapters: %s: %s\n", a->type, what);
    exit(1);
}

static struct provider_config provider_of(const struct adapter *a)
{
    struct provider_config p = {0};

    p.name = name;
    p.type = name;
    p.flavor = a->type[0] == 'o' ? flavor : empty;
    p.base_url = p.auth_url = base_url;
    p.auth = auth;
    p.credentials = key;
    p.scope = empty;
    p.cached_tokens = cached;
    return p;
}

/* ---- what is measured ---- */

struct bench {
    const struct adapter *adapter;
    const struct provider_ops *ops;
    struct provider_config provider;
    struct model_request plain, tools, stream;
    struct token_meter meter;
};

static void on_text(struct token_meter *meter, const char *text, size_t len)
{
}

static void on_count(struct token_meter *meter, struct token_usage *usage)
{
    *usage = (struct token_usage){0, 0, 0};
}

static void encode(struct bench *b, const struct model_request *request)
{
    struct upstream_request out;
    struct error e = {0};
    struct buf ignored;

    upstream_request_init(&out);
    buf_init(&ignored, 256);
    if (b->ops->encode_chat(&b->provider, "model", request,
                            &(struct upstream_call){.token = "token", .request_id = "req_1"}, &out,
                            &ignored, &e) < 0)
        fail(b->adapter, e.message);
    upstream_request_clear(&out);
    buf_clear(&ignored);
}

static size_t encode_plain(struct bench *b)
{
    for (int i = 0; i < CALLS; i++)
        encode(b, &b->plain);
    return CALLS;
}

static size_t encode_tools(struct bench *b)
{
    for (int i = 0; i < CALLS; i++)
        encode(b, &b->tools);
    return CALLS;
}

static size_t decode_whole(struct bench *b)
{
    size_t len = strlen(b->adapter->answer);

    for (int i = 0; i < CALLS; i++) {
        struct token_usage usage = {-1, 0, 0};
        struct error e = {0};
        struct buf out;
        bool final;

        buf_init(&out, (size_t)1 << 20);
        if (b->ops->decode_chat(&b->provider, &b->plain, &identity, b->adapter->answer, len, &out,
                                &b->meter, &usage, &final, &e) < 0 ||
            !final || usage.input != 61 || usage.output != 30)
            fail(b->adapter, "the answer was not understood");
        buf_clear(&out);
    }
    return CALLS;
}

static void feed(struct bench *b, void *stream, const struct event *event, struct buf *out,
                 struct token_usage *usage, bool *final)
{
    struct error e = {0};

    if (b->ops->decode_event(stream, event, out, usage, final, &e) < 0)
        fail(b->adapter, e.message);
}

static void one_stream(struct bench *b)
{
    const struct adapter *a = b->adapter;
    struct token_usage usage = {-1, 0, 0};
    struct error e = {0};
    struct buf out;
    bool final = false;
    void *stream = b->ops->stream_new(&b->provider, &b->stream, &identity, &b->meter);

    if (stream == NULL)
        fail(a, "out of memory");
    buf_init(&out, (size_t)1 << 20);
    feed(b, stream, &a->first, &out, &usage, &final);
    if (strcmp(a->type, "anthropic") == 0)
        feed(b, stream, &block_start, &out, &usage, &final);
    for (int i = 0; i < EVENTS; i++)
        feed(b, stream, &a->text, &out, &usage, &final);
    for (size_t i = 0; i < sizeof(a->last) / sizeof(a->last[0]) && a->last[i].data != NULL; i++)
        feed(b, stream, &a->last[i], &out, &usage, &final);
    if (b->ops->decode_end(stream, &out, &e) < 0 || !final || usage.output != 30 ||
        out.len < (size_t)EVENTS * sizeof(" weather is"))
        fail(a, "the stream was not understood");
    b->ops->stream_free(stream);
    buf_clear(&out);
}

static size_t decode_stream(struct bench *b)
{
    for (int i = 0; i < STREAMS; i++)
        one_stream(b);
    return (size_t)STREAMS * EVENTS;
}

static const struct measure {
    const char *name;
    size_t (*run)(struct bench *b); /* how many of them */
} measures[] = {
    {"encode, 4 messages", encode_plain},
    {"encode, and a tool", encode_tools},
    {"decode, whole", decode_whole},
    {"decode, an event", decode_stream},
};

static int64_t median_ns(struct bench *b, const struct measure *m)
{
    int64_t took_ns[ROUNDS];

    for (int i = 0; i < ROUNDS; i++) {
        int64_t begun_ns = cpu_ns();
        size_t count = m->run(b);

        took_ns[i] = (cpu_ns() - begun_ns) / (int64_t)count;
    }
    qsort(took_ns, ROUNDS, sizeof(took_ns[0]), by_size);
    return took_ns[ROUNDS / 2];
}

static void parse(const struct adapter *a, const char *text, struct model_request *out)
{
    struct error e = {0};

    if (chat_request_parse(text, strlen(text), out, &e) < 0)
        fail(a, e.message);
    out->key_id = 1;
}

static void bench(const struct adapter *a)
{
    struct bench b = {.adapter = a,
                      .ops = provider_ops_find(a->type),
                      .provider = provider_of(a),
                      .meter = {.on_text = on_text, .count = on_count}};

    parse(a, "{\"model\":\"m\"," MESSAGES "}", &b.plain);
    parse(a, "{\"model\":\"m\"," MESSAGES TOOLS "}", &b.tools);
    parse(a, "{\"model\":\"m\",\"stream\":true," MESSAGES "}", &b.stream);
    for (size_t i = 0; i < sizeof(measures) / sizeof(measures[0]); i++)
        printf("adapters: %-10s %-20s %7lld ns\n", a->type, measures[i].name,
               (long long)median_ns(&b, &measures[i]));
    model_request_clear(&b.plain);
    model_request_clear(&b.tools);
    model_request_clear(&b.stream);
}

int main(void)
{
    for (size_t i = 0; i < sizeof(adapters) / sizeof(adapters[0]); i++)
        bench(&adapters[i]);
    return 0;
}
