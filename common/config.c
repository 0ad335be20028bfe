#define _GNU_SOURCE 1 /* asprintf */
#include "common/config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/config_parse.h"

#define FILE_BYTES_MAX ((size_t)4 << 20)

static int fail(struct config_error *e, int rc, const char *text)
{
    memset(e, 0, sizeof(*e));
    snprintf(e->text, sizeof(e->text), "%s", text);
    return rc;
}

static int fail_errno(struct config_error *e, int rc)
{
    return fail(e, rc, strerror(-rc));
}

/* path, or path behind the working directory; NULL with errno set. Symbolic links are left alone:
 * a file that is one (as in Kubernetes) still has its relative paths beside the link. */
static char *make_absolute(const char *path)
{
    char *absolute = NULL;
    char *cwd;

    if (path[0] == '/')
        return strdup(path);
    cwd = getcwd(NULL, 0);
    if (cwd == NULL)
        return NULL;
    while (strncmp(path, "./", 2) == 0)
        path += 2;
    if (asprintf(&absolute, "%s%s%s", cwd, path[0] != '\0' && strcmp(cwd, "/") != 0 ? "/" : "",
                 path) == -1)
        absolute = NULL;
    free(cwd);
    return absolute;
}

static int check_kind(const struct stat *st, struct config_error *e)
{
    if (S_ISDIR(st->st_mode))
        return fail(e, -EISDIR, "this is a directory, not a file");
    if (!S_ISREG(st->st_mode))
        return fail(e, -EINVAL, "this is not a regular file");
    if (st->st_size > (off_t)FILE_BYTES_MAX)
        return fail(e, -EFBIG, "the file is larger than 4 MiB");
    return 0;
}

/* All of the open file; it may have grown since it was looked at. */
static int read_all(int fd, struct buf *out, struct config_error *e)
{
    for (;;) {
        char *room = buf_room(out, 65536);
        ssize_t n;

        if (room == NULL)
            return out->err == -EMSGSIZE ? fail(e, -EFBIG, "the file is larger than 4 MiB")
                                         : fail(e, -ENOMEM, "out of memory");
        n = read(fd, room, 65536);
        if (n == -1 && errno == EINTR)
            continue;
        if (n == -1)
            return fail_errno(e, -errno);
        if (n == 0)
            return 0;
        buf_commit(out, (size_t)n);
    }
}

static int read_file(const char *path, struct buf *out, bool *is_shared, struct config_error *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hold us up */
    struct stat st;
    int rc;

    if (fd == -1)
        return fail_errno(e, -errno);
    rc = fstat(fd, &st) == 0 ? check_kind(&st, e) : fail_errno(e, -errno);
    if (rc == 0)
        rc = read_all(fd, out, e);
    *is_shared = rc == 0 && (st.st_mode & (S_IRGRP | S_IROTH)) != 0;
    close(fd);
    return rc;
}

static char *directory_of(const char *file)
{
    const char *slash = strrchr(file, '/');

    return slash == file ? strdup("/") : strndup(file, (size_t)(slash - file));
}

/* source has its flags set; text, file and base_dir are filled in here. */
static int load(const char *file, struct config_source *source, struct config **out,
                struct config_error *e)
{
    char *path = NULL, *base_dir = NULL;
    struct buf text;
    int rc;

    *out = NULL;
    /* Room for what shows that the file is too long, and for the last read beyond its end. */
    buf_init(&text, FILE_BYTES_MAX + 65536);
    path = make_absolute(file != NULL ? file : "");
    if (path == NULL) {
        rc = fail_errno(e, -errno);
        goto out;
    }
    base_dir = file != NULL ? directory_of(path) : strdup(path);
    if (base_dir == NULL) {
        rc = fail(e, -ENOMEM, "out of memory");
        goto out;
    }
    rc =
        file != NULL ? read_file(path, &text, &source->context.is_shared, e) : buf_str(&text, "{}");
    if (rc < 0)
        goto out;
    if (text.len > FILE_BYTES_MAX) {
        rc = fail(e, -EFBIG, "the file is larger than 4 MiB");
        goto out;
    }
    source->text = text.data != NULL ? text.data : "";
    source->len = text.len;
    source->file = file != NULL ? path : "";
    source->context.base_dir = base_dir;
    rc = config_parse_source(source, out, e);
out:
    buf_wipe(&text);
    free(base_dir);
    free(path);
    return rc;
}

void config_error_format(const struct config_error *e, const char *file, struct buf *out)
{
    if (file != NULL && file[0] != '\0') {
        buf_str(out, file);
        if (e->line > 0)
            buf_printf(out, ":%u:%u", e->line, e->column);
        buf_str(out, ": ");
    }
    if (e->path[0] != '\0')
        buf_printf(out, "%s: ", e->path);
    buf_str(out, e->text);
}

int config_load(const char *file, struct config **out, struct config_error *e)
{
    struct config_source source = {.has_environment = true, .opens_files = true};

    return load(file, &source, out, e);
}

int config_load_public(const char *file, struct config **out, struct config_error *e)
{
    struct config_source source = {.has_environment = true,
                                   .context = {.secrets = SECRETS_SKIPPED}};

    return load(file, &source, out, e);
}

int config_parse(const char *text, size_t len, const char *file, const char *base_dir,
                 struct config **out, struct config_error *e)
{
    struct config_source source = {.text = text,
                                   .len = len,
                                   .file = file != NULL ? file : "",
                                   .context = {.base_dir = base_dir},
                                   .has_environment = true,
                                   .opens_files = true};

    return config_parse_source(&source, out, e);
}

int config_decode(const char *text, size_t len, struct config **out, struct config_error *e)
{
    struct config_source source = {.text = text,
                                   .len = len,
                                   .file = "",
                                   .context = {.secrets = SECRETS_LITERAL},
                                   .is_encoded = true};

    return config_parse_source(&source, out, e);
}

struct config *config_ref(struct config *config)
{
    config->references++;
    return config;
}

static void clear_model(struct model_config *model)
{
    for (size_t i = 0; i < model->candidate_count; i++) {
        options_clear(&CANDIDATE_TABLE, &model->candidates[i]);
        free(model->candidates[i].prices);
    }
    for (size_t i = 0; i < model->alias_count; i++)
        free(model->aliases[i]);
    free(model->candidates);
    free(model->aliases);
    free(model->prices);
    options_clear(&MODEL_TABLE, model);
}

static void clear_provider(struct provider_config *provider)
{
    for (size_t i = 0; i < provider->account_count; i++)
        options_clear(&ACCOUNT_TABLE, &provider->accounts[i]);
    free(provider->accounts);
    free(provider->by_account); /* its secrets were borrowed */
    options_clear(&PROVIDER_TABLE, provider);
}

void config_unref(struct config *config)
{
    if (config == NULL || --config->references > 0)
        return;
    for (size_t i = 0; i < config->model_count; i++)
        clear_model(&config->models[i]);
    for (size_t i = 0; i < config->provider_count; i++)
        clear_provider(&config->providers[i]);
    for (size_t i = 0; i < config->tier_count; i++) {
        options_clear(&TIER_TABLE, &config->tiers[i]);
        free(config->tiers[i].name);
    }
    options_clear(&CONFIG_TABLE, config);
    free(config->models);
    free(config->providers);
    free(config->tiers);
    free(config->model_names);
    free(config->file);
    free(config);
}

void config_restart_needed(const struct config *now, const struct config *next, struct buf *out)
{
    const char *separator = "";

    for (size_t i = 0; i < CONFIG_TABLE.count; i++) {
        const struct option *o = &CONFIG_TABLE.options[i];

        if (o->reload || option_is_equal(o, now, next))
            continue;
        buf_printf(out, "%s%s", separator, o->path);
        separator = ", ";
    }
}

const struct provider_config *provider_by_account(const struct provider_config *provider,
                                                  uint32_t account)
{
    return account <= provider->account_count && provider->by_account != NULL
               ? &provider->by_account[account]
               : provider;
}

/* strcmp() of a text with an end and one with a length. */
static int compare_name(const char *name, const char *asked, size_t len)
{
    int order = strncmp(name, asked, len);

    return order != 0 ? order : name[len] != '\0';
}

const struct model_config *config_model(const struct config *config, const char *name, size_t len)
{
    size_t from = 0, to = config->model_name_count;

    if (memchr(name, '\0', len) != NULL)
        return NULL;
    while (from < to) {
        size_t middle = from + (to - from) / 2;
        const struct model_name *candidate = &config->model_names[middle];
        int order = compare_name(candidate->name, name, len);

        if (order == 0)
            return &config->models[candidate->model_index];
        if (order < 0)
            from = middle + 1;
        else
            to = middle;
    }
    return NULL;
}

static struct price price_at(const struct price *prices, size_t count, int64_t at_ms)
{
    for (size_t i = count; i > 0; i--)
        if (prices[i - 1].from_at_ms <= at_ms)
            return prices[i - 1];
    return (struct price){0};
}

struct price model_price_at(const struct model_config *model, int64_t at_ms)
{
    return price_at(model->prices, model->price_count, at_ms);
}

struct price candidate_price_at(const struct model_config *model,
                                const struct candidate_config *candidate, int64_t at_ms)
{
    if (candidate->price_count == 0)
        return model_price_at(model, at_ms);
    return price_at(candidate->prices, candidate->price_count, at_ms);
}

const struct candidate_config *model_candidate(const struct model_config *model,
                                               const char *provider, const char *name)
{
    for (size_t i = 0; i < model->candidate_count; i++)
        if (strcmp(model->candidates[i].provider, provider) == 0 &&
            strcmp(model->candidates[i].model, name) == 0)
            return &model->candidates[i];
    return NULL;
}
