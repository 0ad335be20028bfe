#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/config.h"
#include "gateway/master.h"
#include "gateway/title.h"
#include "gateway/version.h"

#define TEXT_MAX ((size_t)16 * 1024 * 1024)

enum exit_status { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

static const char usage_text[] =
    "usage: xrouter [-c FILE] [-t | -T | -v | --describe-config markdown|schema]\n"
    "  -c FILE  configuration (without it: the built-in one)\n"
    "  -t       check the configuration and exit\n"
    "  -T       print the effective configuration, secrets masked, and exit\n"
    "  -v       print the version and exit\n"
    "  --describe-config markdown|schema\n"
    "           print every option as a manual or as JSON schema and exit\n";

enum mode { MODE_RUN, MODE_CHECK, MODE_PRINT, MODE_VERSION, MODE_DESCRIBE, MODE_HELP };

struct arguments {
    enum mode mode;
    char *file;           /* a copy: the process's title takes argv's place */
    const char *describe; /* optarg */
};

static int parse_arguments(int argc, char **argv, struct arguments *out)
{
    static const struct option options[] = {
        {"describe-config", required_argument, NULL, 'd'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int c;

    while ((c = getopt_long(argc, argv, "c:tTvh", options, NULL)) != -1) {
        switch (c) {
        case 'c':
            free(out->file);
            out->file = strdup(optarg);
            if (out->file == NULL) {
                fputs("xrouter: out of memory\n", stderr);
                return EXIT_FAILED;
            }
            break;
        case 't':
            out->mode = MODE_CHECK;
            break;
        case 'T':
            out->mode = MODE_PRINT;
            break;
        case 'v':
            out->mode = MODE_VERSION;
            break;
        case 'd':
            out->mode = MODE_DESCRIBE;
            out->describe = optarg;
            break;
        case 'h':
            out->mode = MODE_HELP;
            break;
        default:
            fputs(usage_text, stderr);
            return EXIT_USAGE;
        }
    }
    if (optind == argc)
        return EXIT_OK;
    fputs(usage_text, stderr);
    return EXIT_USAGE;
}

/* Standard output may be a full disk: that is a failure, too. */
static int print(struct buf *text)
{
    bool failed = text->err != 0 || fwrite(text->data, 1, text->len, stdout) != text->len ||
                  fflush(stdout) != 0;

    buf_wipe(text);
    if (!failed)
        return EXIT_OK;
    fputs("xrouter: cannot write to standard output\n", stderr);
    return EXIT_FAILED;
}

static int describe(const char *what)
{
    struct buf text;

    buf_init(&text, TEXT_MAX);
    if (strcmp(what, "markdown") == 0) {
        (void)config_describe_markdown(&text); /* a failure stays in text.err */
    } else if (strcmp(what, "schema") == 0) {
        (void)config_describe_schema(&text);
    } else {
        fputs(usage_text, stderr);
        return EXIT_USAGE;
    }
    return print(&text);
}

static int print_config(const struct config *config)
{
    struct buf text;

    buf_init(&text, TEXT_MAX);
    (void)config_encode(config, false, &text);
    buf_byte(&text, '\n');
    return print(&text);
}

static struct config *load(const char *file)
{
    struct config_error error = {0};
    struct config *config = NULL;
    struct buf text;

    if (config_load(file, &config, &error) == 0)
        return config;
    buf_init(&text, TEXT_MAX);
    config_error_format(&error, file, &text);
    fprintf(stderr, "%s\n", buf_text(&text) == NULL ? "out of memory" : buf_text(&text));
    buf_clear(&text);
    return NULL;
}

static int with_config(const struct arguments *args, int argc, char **argv)
{
    struct config *config = load(args->file);
    struct title title;
    int status = EXIT_OK;

    if (config == NULL)
        return EXIT_FAILED;
    switch (args->mode) {
    case MODE_CHECK:
        printf("%s: the configuration is valid\n", args->file == NULL ? "(built in)" : args->file);
        break;
    case MODE_PRINT:
        status = print_config(config);
        break;
    default:
        (void)title_init(&title, argc, argv); /* without memory: no titles */
        return master_run(config, &title);
    }
    config_unref(config);
    return status;
}

int main(int argc, char **argv)
{
    struct arguments args = {.mode = MODE_RUN};
    int status = parse_arguments(argc, argv, &args);

    if (status == EXIT_OK) {
        if (args.mode == MODE_VERSION)
            puts("xrouter " XROUTER_VERSION);
        else if (args.mode == MODE_HELP)
            fputs(usage_text, stdout);
        else if (args.mode == MODE_DESCRIBE)
            status = describe(args.describe);
        else
            status = with_config(&args, argc, argv);
    }
    free(args.file);
    return status;
}
