/* engine_kit.h - what the tests of token_source, attempt and relay share: the engine of a worker
 * without its processes, against a provider played by the test (upstream_peer.h). */
#ifndef XROUTER_TESTS_ENGINE_KIT_H
#define XROUTER_TESTS_ENGINE_KIT_H

#include <sys/eventfd.h>

#include "tests/unit/upstream_peer.h"

#include "providers/token_source.h"
#include "router/dispatch.h"

#define SCOPE "GIGACHAT_API_PERS"

struct engine_kit {
    struct fixture *f;
    struct token_lease_region *leases;
    struct counters_region *region;
    struct token_source *tokens;
    struct config *config;
    const struct provider_config *provider;
    const struct provider_ops *ops;
    struct engine attempt;
    struct targets_region *targets;
    struct queue_region *queue;
    int wake_fd;
    struct dispatcher dispatcher;
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
        "\"candidates\":[{\"provider\":\"giga\",\"model\":\"One\"}]},"
        "{\"id\":\"giga/two\",\"aliases\":[\"two\"],"
        "\"candidates\":[{\"provider\":\"giga\",\"model\":\"One\"},"
        "{\"provider\":\"giga\",\"model\":\"Two\"}]}]}";
    struct config_error e = {0};
    struct config *config = NULL;
    char text[1024];

    assert_int_equal(setenv("XROUTER_TEST_KEY", "aWQ6c2VjcmV0", 1), 0);
    snprintf(text, sizeof(text), format, port, port);
    if (config_parse(text, strlen(text), "x.json", "/", &config, &e) < 0)
        fail_msg("%s: %s", e.path, e.text);
    return config;
}

static inline void engine_open_dispatcher(struct engine_kit *g)
{
    g->targets = zeroed_lines(targets_region_spec(8, 4).bytes);
    targets_region_init(g->targets, 8, 4);
    g->queue = zeroed_lines(queue_region_spec(4).bytes);
    queue_region_init(g->queue, 4);
    for (size_t i = 0; i < g->config->model_count; i++)
        for (size_t j = 0; j < g->config->models[i].candidate_count; j++) {
            const struct candidate_config *c = &g->config->models[i].candidates[j];

            assert_true(targets_register(g->targets, c->provider, c->model) >= 0);
        }
    g->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    assert_true(g->wake_fd >= 0);
    g->dispatcher = (struct dispatcher){
        .engine = &g->attempt, .targets = g->targets, .budget = DISPATCH_BUDGET_MAX};
    assert_int_equal(queues_new(g->f->loop, g->queue, 0, &g->wake_fd, &g->attempt.queues), 0);
}

static inline void engine_close_dispatcher(struct engine_kit *g)
{
    uint32_t taken, waiting;

    queue_look(g->queue, 0, &taken, &waiting);
    assert_int_equal(taken + waiting, 0);
    queues_free(g->attempt.queues);
    close(g->wake_fd);
    free(g->targets);
    free(g->queue);
}

static inline int engine_setup(void **state)
{
    struct engine_kit *g = calloc(1, sizeof(*g));

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
    g->attempt = (struct engine){.loop = g->f->loop,
                                 .upstreams = g->f->pool,
                                 .tokens = g->tokens,
                                 .counters = &g->f->counters,
                                 .region = g->region};
    engine_open_dispatcher(g);
    *state = g;
    return 0;
}

static inline int engine_teardown(void **state)
{
    struct engine_kit *g = *state;

    assert_int_equal(value(&counters_provider(g->region, 0, 0)->in_flight), 0);
    engine_close_dispatcher(g);
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
static inline void serve_read(struct engine_kit *g, int fd, const char *text)
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
