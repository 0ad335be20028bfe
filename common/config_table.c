#include "common/config_table.h"

#include "common/config.h"
#include "common/money.h"

enum { RELOAD_no = false, RELOAD_yes = true };

/* clang-format off */
#define ROWS(list, row) static const struct option list##_rows[] = {list(row)}
#define ROW(section, type, field, path, standard, min, max, reload, unit, help) \
    {OPTION_##type, RELOAD_##reload, path, standard, min, max, unit, help, \
     offsetof(struct section, field)},
/* clang-format on */

#define CONFIG_ROW(...) ROW(config, __VA_ARGS__)
#define PROVIDER_ROW(...) ROW(provider_config, __VA_ARGS__)
#define ACCOUNT_ROW(...) ROW(account_config, __VA_ARGS__)
#define MODEL_ROW(...) ROW(model_config, __VA_ARGS__)
#define CANDIDATE_ROW(...) ROW(candidate_config, __VA_ARGS__)
#define PRICE_ROW(...) ROW(price, __VA_ARGS__)
#define TIER_ROW(...) ROW(tier_config, __VA_ARGS__)

ROWS(CONFIG_OPTIONS, CONFIG_ROW);
ROWS(PROVIDER_OPTIONS, PROVIDER_ROW);
ROWS(ACCOUNT_OPTIONS, ACCOUNT_ROW);
ROWS(MODEL_OPTIONS, MODEL_ROW);
ROWS(CANDIDATE_OPTIONS, CANDIDATE_ROW);
ROWS(PRICE_OPTIONS, PRICE_ROW);
ROWS(TIER_OPTIONS, TIER_ROW);

static const char *const no_sections[] = {NULL};
static const char *const config_sections[] = {"providers", "models", "limits.tiers", NULL};
static const char *const provider_sections[] = {"accounts", NULL};
static const char *const candidate_sections[] = {"prices", NULL};
static const char *const model_sections[] = {"aliases", "candidates", "prices", NULL};

#define TABLE(list, sections, title, about)                                               \
    {                                                                                     \
        title, about, list##_rows, sizeof(list##_rows) / sizeof(list##_rows[0]), sections \
    }

const struct option_table CONFIG_TABLE =
    TABLE(CONFIG_OPTIONS, config_sections, "",
          "The file's root. A dot stands for an object inside an object.");
const struct option_table PROVIDER_TABLE =
    TABLE(PROVIDER_OPTIONS, provider_sections, "providers[]",
          "One upstream service. `accounts` is an array of further accounts there.");
const struct option_table ACCOUNT_TABLE = TABLE(
    ACCOUNT_OPTIONS, no_sections, "providers[].accounts[]",
    "A further account at the provider, of the same kind of auth: it has the options that this "
    "kind needs, and `max_concurrent` requests of its own. An API key of ours stays with one "
    "account while that has a free slot; one that is refused or limited is left alone for a "
    "while.");
const struct option_table MODEL_TABLE =
    TABLE(MODEL_OPTIONS, model_sections, "models[]",
          "One model that clients may ask for. `aliases` is an array of further names.");
const struct option_table CANDIDATE_TABLE =
    TABLE(CANDIDATE_OPTIONS, candidate_sections, "models[].candidates[]",
          "Where the model's requests go; at least one.");
const struct option_table PRICE_TABLE =
    TABLE(PRICE_OPTIONS, no_sections, "models[].prices[]",
          "What the model costs, from a moment on. A model without prices is free. A candidate may "
          "have `prices` of its own, of the same form: they count in place of the model's.");
const struct option_table TIER_TABLE =
    TABLE(TIER_OPTIONS, no_sections, "limits.tiers.NAME",
          "Limits of the API keys of one tier. The tier's name is the member's name.");
