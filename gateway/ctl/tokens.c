#include "gateway/ctl/ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/counters.h"
#include "common/json.h"
#include "common/nearest.h"
#include "common/shm.h"
#include "common/utf8.h"
#include "usage/bpe.h"
#include "usage/calibration.h"
#include "usage/chars3.h"
#include "usage/prompt_tokens.h"
#include "usage/tokenizer.h"

#define TEXT_BYTES_MAX ((size_t)1 << 30)
#define READ_BYTES ((size_t)256 * 1024)

/* By which rules is counted. */
struct counter_choice {
    const char *kind; /* "model" or "encoding" */
    const char *name;
    enum bpe_encoding encoding;
    bool is_chars3; /* then encoding has no meaning */
    enum token_method method;
    uint32_t ratio;
};

/* What the instance has learned about the model: its memory outlives a crash. Returns NULL, or why
 * nothing is known. */
static const char *read_ratio(const struct ctl *ctl, const char *model, uint32_t *ratio)
{
    char name[SHM_NAME_BYTES];
    struct calibration_region *region;
    struct calibration known = {.tokens = 0};
    const struct counters_region *counters;
    const char *why = NULL;
    struct shm *shm = NULL;
    int index;
    int rc = shm_instance_name(ctl->config->runtime_dir, "", name);

    if (rc == 0)
        rc = shm_attach(name, false, &shm, &why);
    if (rc == -ENOENT)
        return "not running";
    if (rc < 0)
        return why != NULL && why[0] != '\0' ? why : strerror(-rc);
    counters = counters_region_get(shm);
    region = calibration_region_get(shm);
    index = counters == NULL || region == NULL ? -ENOENT : counters_find_model(counters, model);
    if (index >= 0)
        known = calibration_get(region, (size_t)index);
    shm_close(shm);
    if (known.tokens == 0)
        return "it has learned nothing yet";
    *ratio = known.ratio;
    return NULL;
}

static const struct model_config *find_model(const struct config *config, const char *asked)
{
    const struct model_config *model = config_model(config, asked, strlen(asked));
    struct nearest nearest;

    if (model != NULL)
        return model;
    nearest_init(&nearest, asked);
    for (size_t i = 0; i < config->model_count; i++) {
        const struct model_config *m = &config->models[i];

        nearest_offer(&nearest, m->id, strlen(m->id));
        for (size_t j = 0; j < m->alias_count; j++)
            nearest_offer(&nearest, m->aliases[j], strlen(m->aliases[j]));
    }
    if (nearest.name[0] != '\0')
        ctl_complain("the configuration has no model \"%s\"; did you mean \"%s\"?", asked,
                     nearest.name);
    else
        ctl_complain("the configuration has no model \"%s\"", asked);
    return NULL;
}

static enum ctl_exit choose_model(struct ctl *ctl, struct counter_choice *out)
{
    enum ctl_exit status = ctl_load_config(ctl);
    const struct tokenizer *tokenizer;
    const struct model_config *model;
    const char *why;

    if (status != CTL_OK)
        return status;
    model = find_model(ctl->config, ctl->options.count_model);
    if (model == NULL)
        return CTL_REFUSED;
    tokenizer = tokenizer_of(model);
    *out = (struct counter_choice){.kind = "model",
                                   .name = model->id,
                                   .encoding = tokenizer->rules->encoding,
                                   .is_chars3 = tokenizer->rules->is_chars3,
                                   .method = TOKENS_EXACT,
                                   .ratio = CALIBRATION_ONE};
    if (!tokenizer->is_calibrated)
        return CTL_OK;
    out->method = TOKENS_CALIBRATED;
    why = read_ratio(ctl, model->id, &out->ratio);
    if (why != NULL)
        ctl_complain("what a token of %s is worth only a running instance knows (%s): counted as "
                     "%s",
                     model->id, why, bpe_encoding_name(out->encoding));
    return CTL_OK;
}

static enum ctl_exit choose(struct ctl *ctl, struct counter_choice *out)
{
    const char *encoding = ctl->options.encoding;

    if (ctl->options.count_model != NULL && encoding != NULL)
        return ctl_usage_error("--model and --encoding exclude each other");
    if (ctl->options.count_model != NULL)
        return choose_model(ctl, out);
    *out = (struct counter_choice){.kind = "encoding",
                                   .encoding = BPE_O200K,
                                   .method = TOKENS_EXACT,
                                   .ratio = CALIBRATION_ONE};
    if (encoding != NULL && bpe_encoding_lookup(encoding, &out->encoding) < 0)
        return ctl_usage_error("--encoding: \"%s\" is neither %s nor %s", encoding,
                               bpe_encoding_name(BPE_O200K), bpe_encoding_name(BPE_CL100K));
    out->name = bpe_encoding_name(out->encoding);
    return CTL_OK;
}

static int read_all(int fd, struct buf *text)
{
    struct stat st;
    ssize_t n;

    if (fstat(fd, &st) == -1)
        return -errno;
    if (S_ISREG(st.st_mode) && st.st_size > (off_t)TEXT_BYTES_MAX)
        return -EFBIG;
    do {
        char *room = buf_room(text, READ_BYTES);

        if (room == NULL)
            return text->err;
        n = read(fd, room, READ_BYTES);
        if (n > 0)
            buf_commit(text, (size_t)n);
    } while ((n > 0 && text->len <= TEXT_BYTES_MAX) || (n == -1 && errno == EINTR));
    if (n == -1)
        return -errno;
    return text->len > TEXT_BYTES_MAX ? -EFBIG : 0;
}

static bool is_standard_input(const char *file)
{
    return strcmp(file, "-") == 0;
}

static const char *shown_name(const char *file)
{
    return is_standard_input(file) ? "standard input" : file;
}

static enum ctl_exit read_text(const char *file, struct buf *text)
{
    bool is_input = is_standard_input(file);
    int fd = is_input ? STDIN_FILENO : open(file, O_RDONLY | O_CLOEXEC);
    int rc = fd == -1 ? -errno : read_all(fd, text);

    if (fd != -1 && !is_input)
        close(fd);
    if (rc == -EFBIG)
        return ctl_refuse("%s: longer than %zu bytes", shown_name(file), TEXT_BYTES_MAX);
    return rc < 0 ? ctl_refuse("%s: %s", shown_name(file), strerror(-rc)) : CTL_OK;
}

/* Returns 0, or -EILSEQ with *characters before the byte at *offset. */
static int count_characters(const struct buf *text, int64_t *characters, size_t *offset)
{
    *characters = 0;
    for (*offset = 0; *offset < text->len;) {
        size_t width = utf8_width(text->data + *offset, text->len - *offset);

        if (width == 0)
            return -EILSEQ;
        *offset += width;
        ++*characters;
    }
    return 0;
}

static enum ctl_exit print(const struct ctl *ctl, const struct counter_choice *choice,
                           int64_t tokens, int64_t characters)
{
    enum ctl_exit status;
    struct buf out;

    if (!ctl->options.json) {
        printf("%lld\n", (long long)tokens);
        return CTL_OK;
    }
    buf_init(&out, 4096);
    buf_byte(&out, '{');
    json_put_field_text(&out, choice->kind, choice->name);
    json_put_field_i64(&out, "tokens", tokens);
    json_put_field_i64(&out, "characters", characters);
    json_put_field_text(&out, "method", TOKEN_METHOD_NAMES[choice->method]);
    buf_byte(&out, '}');
    status = ctl_print_line(&out);
    buf_clear(&out);
    return status;
}

static enum ctl_exit count_text(const struct ctl *ctl, const struct counter_choice *choice,
                                const struct buf *text)
{
    int64_t characters;
    size_t counted = 0;
    size_t offset;
    int rc = count_characters(text, &characters, &offset);

    if (rc == 0 && !choice->is_chars3)
        rc = bpe_count(choice->encoding, text->data, text->len, &counted);
    if (rc < 0)
        return ctl_refuse("%s: not UTF-8 at byte %zu", shown_name(ctl->args[0]), offset);
    if (choice->is_chars3)
        return print(ctl, choice, chars3_tokens(characters), characters);
    return print(ctl, choice, calibration_apply(choice->ratio, (int64_t)counted), characters);
}

enum ctl_exit ctl_tokens(struct ctl *ctl)
{
    struct counter_choice choice = {0};
    enum ctl_exit status = choose(ctl, &choice);
    struct buf text;

    if (status != CTL_OK)
        return status;
    buf_init(&text, TEXT_BYTES_MAX + READ_BYTES);
    status = read_text(ctl->args[0], &text);
    if (status == CTL_OK)
        status = count_text(ctl, &choice, &text);
    buf_clear(&text);
    return status;
}
