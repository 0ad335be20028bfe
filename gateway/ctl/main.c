/* xrouterctl: finds the verb, reads its options and the server's configuration, runs it. */
#include "gateway/ctl/ctl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "common/nearest.h"
#include "gateway/version.h"

#define LOCAL_CONFIG "./var/xrouter.json" /* what `make run` writes */
#define SYSTEM_CONFIG "/etc/xrouter/xrouter.json"

#define KEY_OPTIONS                                                                                \
    (CTL_TAKES(name) | CTL_TAKES(models) | CTL_TAKES(expires) | CTL_TAKES(tier) | CTL_TAKES(rpm) | \
     CTL_TAKES(rpd) | CTL_TAKES(tpm) | CTL_TAKES(tpd) | CTL_TAKES(parallel) |                      \
     CTL_TAKES(spend_day) | CTL_TAKES(spend_week) | CTL_TAKES(spend_month))
#define USAGE_OPTIONS \
    (CTL_TAKES(key) | CTL_TAKES(model) | CTL_TAKES(since) | CTL_TAKES(by) | CTL_TAKES(csv))
#define TOKENS_OPTIONS (CTL_MAY_NEED_CONFIG | CTL_TAKES(count_model) | CTL_TAKES(encoding))
#define STAT_OPTIONS (CTL_TAKES(watch) | CTL_TAKES(prom) | CTL_TAKES(filter))

/* clang-format off */
static const struct ctl_verb verbs[] = {
    {"key create", "",        0, CTL_TAKES(json) | KEY_OPTIONS | CTL_TAKES(credits), "make an API key and print it, this once",        ctl_key_create},
    {"key list",   "",        0, CTL_TAKES(json),                 "all keys",                                       ctl_key_list},
    {"key show",   "NAME|ID", 1, CTL_TAKES(json),                 "one key",                                        ctl_key_show},
    {"key update", "NAME|ID", 1, CTL_TAKES(json) | KEY_OPTIONS | CTL_TAKES(unset), "change what is given, leave the rest", ctl_key_update},
    {"key rotate", "NAME|ID", 1, CTL_TAKES(json),                 "give a key a new text and print it, this once; the old one ends at once", ctl_key_rotate},
    {"key revoke", "NAME|ID", 1, CTL_TAKES(json),                 "end a key, at once and for good",                ctl_key_revoke},
    {"credit add", "NAME|ID AMOUNT", 2, CTL_TAKES(json) | CTL_TAKES(operation) | CTL_TAKES(note), "pay into a key's balance; a negative amount corrects it", ctl_credit_add},
    {"credit show", "NAME|ID", 1, CTL_TAKES(json),                "a key's balance and what it has spent",          ctl_credit_show},
    {"credit history", "NAME|ID", 1, CTL_TAKES(json) | CTL_TAKES(limit), "every change of a key's balance, newest first", ctl_credit_history},
    {"usage",      "",        0, CTL_TAKES(json) | USAGE_OPTIONS, "requests, tokens and cost from the ledger",      ctl_usage},
    {"ledger verify", "",     0, CTL_TAKES(json),                 "compare balances, rows and sums with each other; exit status 1 if they differ", ctl_ledger_verify},
    {"ledger reprice", "",    0, CTL_TAKES(json) | CTL_TAKES(dry_run), "what requests would cost by their stored price and by the configuration's", ctl_ledger_reprice},
    {"backup",     "FILE",    1, CTL_TAKES(json) | CTL_TAKES(force), "copy the database, while the server works, and check the copy", ctl_backup},
    {"migrate",    "",        0, CTL_TAKES(json) | CTL_TAKES(to),  "bring a stopped server's database to another version", ctl_migrate},
    {"tokens",     "FILE",    1, CTL_TAKES(json) | TOKENS_OPTIONS, "count the tokens of UTF-8 text, of up to 1 GiB; FILE \"-\" is standard input", ctl_tokens},
    {"stat",       "",        0, CTL_TAKES(json) | STAT_OPTIONS,  "processes and counters, read from shared memory", ctl_stat},
    {"requests",   "",        0, CTL_TAKES(json),                 "requests running now",                           ctl_requests},
    {"provider list", "",     0, CTL_TAKES(json),                 "the providers: switch, slots, queue, breakers; read from shared memory", ctl_provider_list},
    {"provider enable", "NAME", 1, CTL_TAKES(json),               "send requests to the provider again",            ctl_provider_enable},
    {"provider disable", "NAME", 1, CTL_TAKES(json),              "send the provider no new requests; those that run go on", ctl_provider_disable},
    {"provider drain", "NAME", 1, CTL_TAKES(json),                "the same, and \"provider list\" says when none is left there", ctl_provider_drain},
    {"kill",       "ID",      1, CTL_TAKES(json),                 "cancel a running request",                       ctl_kill},
    {"reload",     "",        0, CTL_TAKES(json),                 "read the configuration again",                   ctl_reload},
    {"drain",      "",        0, CTL_TAKES(json) | CTL_TAKES(timeout_ms), "take no more requests, finish the running ones, stop", ctl_drain},
    {"stop",       "",        0, CTL_TAKES(json),                 "stop, with the configured time for running requests", ctl_stop},
    {"log-level",  "LEVEL",   1, CTL_TAKES(json),                 "least severe line of the error log: debug, info, warn, error", ctl_log_level},
};
/* clang-format on */

#define VERB_COUNT (sizeof(verbs) / sizeof(verbs[0]))

static enum ctl_exit print_help(const struct ctl_verb *verb)
{
    enum ctl_exit status;
    struct buf out;

    buf_init(&out, 64 * 1024);
    if (verb != NULL) {
        buf_printf(&out, "Usage: xrouterctl %s%s%s [OPTIONS]\n\n%s\n\n", verb->name,
                   verb->arguments[0] != '\0' ? " " : "", verb->arguments, verb->help);
        ctl_options_help(verb->takes, &out);
    } else {
        buf_str(&out, "Usage: xrouterctl [-c FILE] COMMAND [OPTIONS]\n\n");
        for (size_t i = 0; i < VERB_COUNT; i++) {
            char left[64];

            snprintf(left, sizeof(left), "%s %s", verbs[i].name, verbs[i].arguments);
            buf_printf(&out, "  %-25s %s\n", left, verbs[i].help);
        }
        buf_str(&out, "\n`xrouterctl COMMAND --help` lists a command's options.\n\n");
        ctl_options_help(0, &out);
        buf_str(&out, "\nWithout -c: $XROUTER_CONFIG, then " LOCAL_CONFIG
                      " if it is yours, then " SYSTEM_CONFIG ".\n"
                      "Exit status: 0 done, 1 refused, 2 wrong usage, 3 not running.\n");
    }
    status = ctl_print(&out);
    buf_clear(&out);
    return status;
}

/* How many of the words spell the verb's name; 0 = they do not. */
static int match_verb(const struct ctl_verb *verb, int argc, char *const argv[])
{
    const char *name = verb->name;
    int words = 0;

    for (;;) {
        size_t len = strcspn(name, " ");

        if (words == argc || strlen(argv[words]) != len || memcmp(argv[words], name, len) != 0)
            return 0;
        words++;
        if (name[len] == '\0')
            return words;
        name += len + 1;
    }
}

static const struct ctl_verb *find_verb(int argc, char *const argv[], int *at)
{
    for (size_t i = 0; i < VERB_COUNT; i++) {
        int words = match_verb(&verbs[i], argc - *at, argv + *at);

        if (words > 0) {
            *at += words;
            return &verbs[i];
        }
    }
    return NULL;
}

/* The verbs that begin with that word, as "key create, key list"; empty: there are none. */
static void list_pairs(const char *word, struct buf *out)
{
    size_t len = strlen(word);

    for (size_t i = 0; i < VERB_COUNT; i++)
        if (strncmp(verbs[i].name, word, len) == 0 && verbs[i].name[len] == ' ')
            buf_printf(out, "%s%s", out->len > 0 ? ", " : "", verbs[i].name);
}

static enum ctl_exit complain_unknown_verb(const char *word, const char *next)
{
    char memory[256], asked[160];
    struct nearest nearest;
    struct buf pairs;
    bool is_pair;

    buf_init_fixed(&pairs, memory, sizeof(memory));
    list_pairs(word, &pairs);
    is_pair = pairs.len > 0 && next != NULL && next[0] != '-';
    if (pairs.len > 0 && !is_pair)
        return ctl_usage_error("\"%s\" alone is no command: %s", word, buf_text(&pairs));
    snprintf(asked, sizeof(asked), "%s%s%s", word, is_pair ? " " : "", is_pair ? next : "");
    nearest_init(&nearest, asked);
    for (size_t i = 0; i < VERB_COUNT; i++)
        nearest_offer(&nearest, verbs[i].name, strlen(verbs[i].name));
    if (nearest.name[0] != '\0')
        return ctl_usage_error("unknown command \"%s\"; did you mean \"%s\"?", asked, nearest.name);
    return ctl_usage_error("unknown command \"%s\"; `xrouterctl --help` lists them all", asked);
}

/* A negative amount is none. */
static bool is_option(const char *word)
{
    return word[0] == '-' && word[1] != '\0' && (word[1] < '0' || word[1] > '9');
}

/* Options up to the next word that is none. "--" ends them. */
static int read_options(struct ctl *ctl, uint64_t takes, int argc, char *const argv[], int *at)
{
    while (*at < argc && is_option(argv[*at])) {
        if (strcmp(argv[*at], "--") == 0)
            return 0;
        if (ctl_option_read(&ctl->options, takes, argc, argv, at) < 0)
            return -1;
    }
    return 0;
}

static int read_arguments(struct ctl *ctl, int argc, char *const argv[], int at)
{
    bool only_arguments = false;

    while (at < argc) {
        if (!only_arguments && read_options(ctl, ctl->verb->takes, argc, argv, &at) < 0)
            return -1;
        if (at == argc)
            break;
        if (!only_arguments && strcmp(argv[at], "--") == 0) {
            only_arguments = true;
            at++;
            continue;
        }
        if (ctl->arg_count == ctl->verb->arg_count) {
            ctl_complain("%s: \"%s\" is one word too many", ctl->verb->name, argv[at]);
            return -1;
        }
        ctl->args[ctl->arg_count++] = argv[at++];
    }
    if (ctl->options.help || ctl->arg_count == ctl->verb->arg_count)
        return 0;
    ctl_complain("%s needs %s", ctl->verb->name, ctl->verb->arguments);
    return -1;
}

/* A file that somebody else put into the current directory must not tell us whom to trust. */
static bool is_ours(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && st.st_uid == geteuid();
}

static const char *find_config(const struct ctl *ctl)
{
    const char *named = getenv("XROUTER_CONFIG");

    if (ctl->options.config_file != NULL)
        return ctl->options.config_file;
    if (named != NULL && named[0] != '\0')
        return named;
    if (is_ours(LOCAL_CONFIG))
        return LOCAL_CONFIG;
    return access(SYSTEM_CONFIG, F_OK) == 0 ? SYSTEM_CONFIG : NULL;
}

enum ctl_exit ctl_load_config(struct ctl *ctl)
{
    const char *file = find_config(ctl);
    struct config_error e;
    struct buf text;

    if (file == NULL)
        return ctl_usage_error("no configuration found: use -c FILE or set XROUTER_CONFIG");
    if (config_load_public(file, &ctl->config, &e) == 0)
        return CTL_OK;
    buf_init(&text, 4096);
    config_error_format(&e, file, &text);
    ctl_complain("%s", buf_text(&text) != NULL ? buf_text(&text) : e.text);
    buf_clear(&text);
    return CTL_REFUSED;
}

static enum ctl_exit print_version(void)
{
    printf("xrouterctl %s\n", XROUTER_VERSION);
    return CTL_OK;
}

static enum ctl_exit run(struct ctl *ctl, int argc, char *const argv[])
{
    enum ctl_exit status = CTL_OK;
    int at = 1;

    if (read_options(ctl, 0, argc, argv, &at) < 0)
        return CTL_USAGE;
    if (at < argc && strcmp(argv[at], "help") == 0) {
        ctl->options.help = true;
        at++;
    }
    if (ctl->options.version)
        return print_version();
    if (at == argc && ctl->options.help)
        return print_help(NULL);
    if (at == argc)
        return ctl_usage_error("no command given; `xrouterctl --help` lists them all");
    ctl->verb = find_verb(argc, argv, &at);
    if (ctl->verb == NULL)
        return complain_unknown_verb(argv[at], at + 1 < argc ? argv[at + 1] : NULL);
    if (read_arguments(ctl, argc, argv, at) < 0)
        return CTL_USAGE;
    if (ctl->options.version)
        return print_version();
    if (ctl->options.help)
        return print_help(ctl->verb);
    if ((ctl->verb->takes & CTL_MAY_NEED_CONFIG) == 0)
        status = ctl_load_config(ctl);
    return status != CTL_OK ? status : ctl->verb->run(ctl);
}

int main(int argc, char *argv[])
{
    struct ctl ctl = {0};
    enum ctl_exit status;

    log_init("xrouterctl", -1, LOG_WARN);
    ctl_options_init(&ctl.options);
    status = run(&ctl, argc, argv);
    config_unref(ctl.config);
    if (fflush(stdout) != 0 && status == CTL_OK)
        status = ctl_refuse("standard output could not be written");
    return (int)status;
}
