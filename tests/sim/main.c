/* llm-sim: a simulated GigaChat for tests, benchmarks and the demo. See tests/sim/README.md. */
#include <errno.h>
#include <getopt.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "common/secret.h"
#include "tests/sim/files.h"
#include "tests/sim/http.h"
#include "tests/sim/oauth.h"
#include "tests/sim/sim.h"
#include "tests/sim/tls.h"

struct arguments {
    const char *config;
    const char *listen;
    const char *seed;
    const char *tls_cert;
    const char *tls_key;
};

struct signal_source {
    struct event_source source;
    struct sim *sim;
    int fd;
};

static const char usage_text[] =
    "usage: llm-sim [-c FILE] [--listen ADDR:PORT] [--seed N] [--tls-cert PEM --tls-key PEM]\n";

/* Returns 0, or the exit status plus one. */
static int read_arguments(int argc, char **argv, struct arguments *args)
{
    static const struct option long_options[] = {
        {"config", required_argument, NULL, 'c'},
        {"listen", required_argument, NULL, 'l'},
        {"seed", required_argument, NULL, 's'},
        {"tls-cert", required_argument, NULL, 'C'},
        {"tls-key", required_argument, NULL, 'K'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int option;

    while ((option = getopt_long(argc, argv, "c:h", long_options, NULL)) != -1) {
        switch (option) {
        case 'c':
            args->config = optarg;
            break;
        case 'l':
            args->listen = optarg;
            break;
        case 's':
            args->seed = optarg;
            break;
        case 'C':
            args->tls_cert = optarg;
            break;
        case 'K':
            args->tls_key = optarg;
            break;
        case 'h':
            fputs(usage_text, stdout);
            return 1;
        default:
            fputs(usage_text, stderr);
            return 3;
        }
    }
    if (optind < argc) {
        fputs(usage_text, stderr);
        return 3;
    }
    return 0;
}

static int set_text(char **field, const char *text)
{
    char *copy;

    if (text == NULL)
        return 0;
    copy = strdup(text);
    if (copy == NULL)
        return -ENOMEM;
    free(*field);
    *field = copy;
    return 0;
}

static int read_seed(const char *text, uint32_t *seed)
{
    char *end;
    unsigned long value;

    if (text == NULL)
        return 0;
    errno = 0;
    value = strtoul(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value > UINT32_MAX)
        return -EINVAL;
    *seed = (uint32_t)value;
    return 0;
}

static int configure(struct sim *sim, const struct arguments *args)
{
    struct sim_config *config = &sim->config;
    char why[SIM_CONFIG_WHY_BYTES];
    uint64_t seed;
    int rc = sim_config_init(config);

    if (rc == 0 && args->config != NULL) {
        rc = sim_config_load(config, args->config, why);
        if (rc < 0) {
            fprintf(stderr, "llm-sim: %s: %s\n", args->config, why);
            return rc;
        }
    }
    if (rc == 0)
        rc = read_seed(args->seed, &config->seed);
    if (rc == 0)
        rc = set_text(&config->listen, args->listen);
    if (rc == 0)
        rc = set_text(&config->tls_cert, args->tls_cert);
    if (rc == 0)
        rc = set_text(&config->tls_key, args->tls_key);
    seed = config->seed;
    if (rc == 0 && seed == 0)
        rc = secret_random(&seed, sizeof(seed));
    random_init(&sim->random, seed);
    if (rc < 0)
        fprintf(stderr, "llm-sim: configuration: %s\n", strerror(-rc));
    return rc;
}

static int build(struct sim *sim)
{
    stats_init(&sim->stats);
    buf_init(&sim->body, SIM_TEXT_BYTES_MAX);
    buf_init(&sim->piece, SIM_TEXT_BYTES_MAX);
    sim->loop = loop_new();
    sim->tokens = tokens_new();
    sim->script = script_new();
    sim->sessions = sessions_new();
    sim->journal = journal_new();
    sim->files = files_new();
    if (sim->loop == NULL || sim->tokens == NULL || sim->script == NULL || sim->sessions == NULL ||
        sim->journal == NULL || sim->files == NULL) {
        fprintf(stderr, "llm-sim: out of memory\n");
        return -ENOMEM;
    }
    return 0;
}

static void destroy(struct sim *sim)
{
    http_server_close(sim->http);
    journal_free(sim->journal);
    files_free(sim->files);
    sessions_free(sim->sessions);
    script_free(sim->script);
    tokens_free(sim->tokens);
    loop_free(sim->loop);
    buf_clear(&sim->body);
    buf_clear(&sim->piece);
    stats_clear(&sim->stats);
    sim_config_clear(&sim->config);
}

static int open_tls(const struct sim_config *config, SSL_CTX **tls)
{
    if (config->tls_cert == NULL && config->tls_key == NULL)
        return 0;
    if (config->tls_cert != NULL && config->tls_key != NULL)
        *tls = tls_context_new(config->tls_cert, config->tls_key);
    if (*tls != NULL)
        return 0;
    fprintf(stderr, "llm-sim: TLS needs a certificate and its key\n");
    ERR_print_errors_fp(stderr);
    return -EINVAL;
}

static void on_signal(struct event_source *source, uint32_t events)
{
    struct signal_source *signals = (struct signal_source *)source;
    struct signalfd_siginfo info;

    if (read(signals->fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
        signals->sim->stopping = true;
}

static int watch_signals(struct signal_source *signals)
{
    sigset_t set;
    int rc;

    signal(SIGPIPE, SIG_IGN); /* OpenSSL writes without MSG_NOSIGNAL */
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signals->fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (signals->fd == -1)
        return -errno;
    signals->source.on_event = on_signal;
    rc = loop_add(signals->sim->loop, signals->fd, EPOLLIN, &signals->source);
    return rc;
}

/* Thousands of connections on a default limit of 1,024. */
static void raise_file_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static int serve(struct sim *sim, SSL_CTX *tls)
{
    struct signal_source signals = {.sim = sim, .fd = -1};
    int rc = watch_signals(&signals);

    if (rc == 0)
        rc = http_server_open(sim, sim->config.listen, tls, &sim->http);
    if (rc < 0) {
        fprintf(stderr, "llm-sim: %s: %s\n", sim->config.listen, strerror(-rc));
    } else {
        printf("listening %s\n", http_server_address(sim->http));
        fflush(stdout);
    }
    while (rc >= 0 && !sim->stopping)
        rc = loop_turn(sim->loop, -1);
    if (signals.fd != -1) {
        loop_remove(sim->loop, signals.fd, &signals.source);
        close(signals.fd);
    }
    return rc < 0 ? rc : 0;
}

int main(int argc, char **argv)
{
    struct arguments args = {0};
    struct sim *sim;
    SSL_CTX *tls = NULL;
    int rc = read_arguments(argc, argv, &args);

    if (rc != 0)
        return rc - 1;
    sim = calloc(1, sizeof(*sim));
    if (sim == NULL) {
        fprintf(stderr, "llm-sim: out of memory\n");
        return 1;
    }
    raise_file_limit();
    rc = configure(sim, &args);
    if (rc == 0)
        rc = build(sim);
    if (rc == 0)
        rc = open_tls(&sim->config, &tls);
    if (rc == 0)
        rc = serve(sim, tls);
    destroy(sim);
    SSL_CTX_free(tls);
    free(sim);
    return rc < 0 ? 1 : 0;
}
