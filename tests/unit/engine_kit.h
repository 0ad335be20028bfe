/* engine_kit.h - what the tests of token_source, attempt and relay share: the engine of a worker
 * without its processes, against a provider played by the test (upstream_peer.h). */
#ifndef XROUTER_TESTS_ENGINE_KIT_H
#define XROUTER_TESTS_ENGINE_KIT_H

#include "tests/unit/upstream_peer.h"

#include "providers/token_source.h"
#include "router/attempt.h"

#define SCOPE "GIGACHAT_API_PERS"

struct engine {
    struct fixture *f;
    struct token_lease_region *leases;
    struct counters_region *region;
    struct token_source *tokens;
    struct config *config;
    const struct provider_config *provider;
    const struct provider_ops *ops;
    struct attempt_engine attempt;
};

static inline void *zeroed_lines(size_t bytes)
{
    void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);

    assert_non_null(memory);
    memset(memory, 0, (bytes + 63) / 64 * 64);
    return memory;
}

static inline struct config *engine_config(uint16_t port)
{
    static const char format[] =
        "{\"timeouts\":{\"stream_ping_ms\":50},"
        "\"providers\":[{\"name\":\"giga\",\"type\":\"gigachat\",\"scope\":\"" SCOPE "\","
        "\"base_url\":\"http://127.0.0.1:%u\",\"auth_url\":\"http://127.0.0.1:%u/oauth\","
        "\"credentials\":\"env:XROUTER_TEST_KEY\",\"connect_ms\":2000,\"first_byte_ms\":4000}],"
        "\"models\":[{\"id\":\"giga/one\",\"aliases\":[\"one\"],"
        "\"candidates\":[{\"provider\":\"giga\",\"model\":\"One\"}]}]}";
    struct config_error e = {0};
    struct config *config = NULL;
    char text[1024];

    assert_int_equal(setenv("XROUTER_TEST_KEY", "aWQ6c2VjcmV0", 1), 0);
    snprintf(text, sizeof(text), format, port, port);
    if (config_parse(text, strlen(text), "x.json", "/", &config, &e) < 0)
        fail_msg("%s: %s", e.path, e.text);
    return config;
}

static inline int engine_setup(void **state)
{
    struct engine *g = calloc(1, sizeof(*g));

    assert_non_null(g);
    assert_int_equal(setup((void **)&g->f), 0);
    g->config = engine_config(g->f->port);
    g->provider = &g->config->providers[0];
    g->ops = provider_ops_find("gigachat");
    g->leases = zeroed_lines(token_lease_region_spec().bytes);
    token_lease_region_init(g->leases);
    g->region = zeroed_lines(counters_region_spec(1, 4, 4).bytes);
    counters_region_init(g->region, 1, 4, 4);
    assert_int_equal(counters_register_provider(g->region, "giga"), 0);
    g->tokens = token_source_new(g->f->loop, g->f->pool, g->leases, &g->f->counters);
    assert_non_null(g->tokens);
    g->attempt = (struct attempt_engine){.loop = g->f->loop,
                                         .upstreams = g->f->pool,
                                         .tokens = g->tokens,
                                         .counters = &g->f->counters,
                                         .region = g->region};
    *state = g;
    return 0;
}

static inline int engine_teardown(void **state)
{
    struct engine *g = *state;

    assert_int_equal(value(&counters_provider(g->region, 0, 0)->in_flight), 0);
    token_source_free(g->tokens);
    assert_int_equal(teardown((void **)&g->f), 0);
    config_unref(g->config);
    free(g->leases);
    free(g->region);
    free(g);
    return 0;
}

/* One whole request, by its Content-Length. */
static inline bool has_request(int fd, struct buf *in)
{
    static const char name[] = "Content-Length: ";
    char bytes[4096];
    ssize_t n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
    const char *text, *body, *length;

    if (n > 0)
        buf_append(in, bytes, (size_t)n);
    text = buf_text(in);
    body = text == NULL ? NULL : strstr(text, "\r\n\r\n");
    length = body == NULL ? NULL : strcasestr(text, name);
    return length != NULL &&
           in->len == (size_t)(body + 4 - text) + strtoul(length + sizeof(name) - 1, NULL, 10);
}

/* Reads a request and checks that it holds the text. */
static inline void serve_read(struct engine *g, int fd, const char *text)
{
    struct buf in;

    buf_init(&in, 1 << 20);
    TURN_UNTIL(g->f, has_request(fd, &in));
    assert_non_null(strstr(buf_text(&in), text));
    buf_clear(&in);
}

static inline void serve_json(int fd, unsigned status, const char *body)
{
    char head[160];

    snprintf(head, sizeof(head),
             "HTTP/1.1 %u X\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
             status, strlen(body));
    server_say(fd, head);
    server_say(fd, body);
}

static inline void serve_token(int fd, const char *token)
{
    char body[200];

    snprintf(body, sizeof(body), "{\"access_token\":\"%s\",\"expires_at\":%lld}", token,
             (long long)clock_now_at_ms() + 1800 * 1000);
    serve_json(fd, 200, body);
}

#endif
