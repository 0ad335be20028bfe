#include "common/config.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "common/json.h"

#define PROVIDER(name) "{\"name\":\"" name "\",\"type\":\"gigachat\",\"credentials\":\"c2VjcmV0\"}"
#define CANDIDATES(provider) "\"candidates\":[{\"provider\":\"" provider "\",\"model\":\"m\"}]"
#define MODEL(id) "{\"id\":\"" id "\"," CANDIDATES("giga") "}"

struct bad_config {
    const char *text;
    unsigned line, column;
    const char *path;
    const char *part; /* of the sentence */
};

static const struct bad_config bad_configs[] = {
    /* syntax */
    {"", 1, 1, "", "nothing in it"},
    {"  // only a comment\n", 1, 1, "", "nothing in it"},
    {"{\n  \"workers\": 2,\n}", 3, 1, "", ""},
    {"{\"workers\": 01}", 1, 15, "", ""},
    {"{\n /* \xD0\xBF\xD1\x80\xD0\xB8\xD0\xB2\xD0\xB5\xD1\x82 */ oops}", 2, 15, "", ""},
    {"{\"workers\": 1 /* open", 1, 15, "", "comment is not closed"},
    {"{\"a\\u0000\": 1}", 1, 6, "", ""},
    {"{} {}", 1, 4, "", ""},
    {"[]", 1, 1, "", "must be an object, not an array"},
    {"\"workers\"", 1, 1, "", "must be an object, not a string"},
    /* names */
    {"{\n  // comment\n  \"worker\": 2}", 3, 3, "worker", "did you mean \"workers\"?"},
    {"{\"header_ms\": 5}", 1, 2, "header_ms", "did you mean \"timeouts.header_ms\"?"},
    {"{\"qqqqqqqqqqqqqq\": 5}", 1, 2, "qqqqqqqqqqqqqq", "unknown option"},
    {"{\"listen\": {\"htp\": \"\"}}", 1, 13, "listen.htp", "did you mean \"http\"?"},
    {"{\"listen\": {\"tls\": {\"certificate\": \"\"}}}", 1, 21, "listen.tls.certificate",
     "unknown"},
    {"{\"limits\": {\"tier\": {}}}", 1, 13, "limits.tier", "did you mean \"tiers\"?"},
    {"{\"origin\": {}}", 1, 2, "origin", "unknown option"},
    {"{\"workers\": 1,\n\"workers\": 2}", 2, 1, "workers", "twice"},
    {"{\"limits\": {\"tiers\": {\"a\": {}, \"a\": {}}}}", 1, 32, "limits.tiers.a", "twice"},
    {"{\"listen\": \"127.0.0.1:1\"}", 1, 12, "listen", "must be an object, not a string"},
    {"{\"default_model\": \"m\"}", 1, 19, "default_model", "there is no model \"m\""},
    /* values */
    {"{\"workers\": \"2\"}", 1, 13, "workers", "must be a number, not a string"},
    {"{\"workers\": null}", 1, 13, "workers", "must be a number, not null"},
    {"{\"workers\": 1.5}", 1, 13, "workers", "whole number"},
    {"{\"workers\": 1e2}", 1, 13, "workers", "whole number"},
    {"{\"workers\": -1}", 1, 13, "workers", "0 to 128 processes"},
    {"{\"workers\": 129}", 1, 13, "workers", "0 to 128 processes"},
    {"{\"workers\": 99999999999999999999999}", 1, 13, "workers", "0 to 128 processes"},
    {"{\"limits\": {\"body_bytes\": 10}}", 1, 27, "limits.body_bytes", "1024 to 1073741824 bytes"},
    {"{\"timeouts\": {\"body_ms\": 5}}", 1, 26, "timeouts.body_ms", "10 to 3600000 ms"},
    {"{\"state_dir\": 5}", 1, 15, "state_dir", "must be a string, not a number"},
    {"{\"state_dir\": \"\"}", 1, 15, "state_dir", "must not be empty"},
    {"{\"state_dir\": \"a\\nb\"}", 1, 15, "state_dir", "control characters"},
    {"{\"log\": {\"level\": \"loud\"}}", 1, 19, "log.level", "must be debug, info, warn or error"},
    {"{\"listen\": {\"http\": \"8080\"}}", 1, 21, "listen.http", "host:port"},
    {"{\"listen\": {\"http\": \"127.0.0.1:65536\"}}", 1, 21, "listen.http", "host:port"},
    {"{\"listen\": {\"http\": \"::1:80\"}}", 1, 21, "listen.http", "host:port"},
    {"{\"listen\": {\"http\": \"a b:80\"}}", 1, 21, "listen.http", "host:port"},
    {"{\"billing\": {\"currency\": \"\"}}", 1, 26, "billing.currency", "must not be empty"},
    {"{\"limits\": {\"tiers\": []}}", 1, 22, "limits.tiers", "must be an object"},
    {"{\"limits\": {\"tiers\": {\"\": {}}}}", 1, 23, "limits.tiers.", "must not be empty"},
    {"{\"limits\": {\"tiers\": {\"f\": {\"rps\": 1}}}}", 1, 29, "limits.tiers.f.rps", "\"rpm\""},
    {"{\"limits\": {\"tiers\": {\"f\": {\"rpm\": -1}}}}", 1, 36, "limits.tiers.f.rpm", "0 to"},
    {"{\"runtime_dir\": \"/"
     "ttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttt"
     "ttt"
     "\"}",
     1, 17, "runtime_dir", "at most 95 are possible"},
    /* listeners */
    {"{\"listen\": {\"ops\": \"127.0.0.1:8080\"}}", 1, 20, "listen.ops", "taken by listen.http"},
    {"{\"listen\": {\"http\": \"0.0.0.0:9464\"}}", 0, 0, "listen.ops", "taken by listen.http"},
    {"{\"listen\": {\"https\": \"127.0.0.1:1\"}}", 1, 22, "listen.https", "listen.tls.cert"},
    {"{\"listen\": {\"tls\": {\"cert\": \"a\"}}}", 1, 29, "listen.tls.cert",
     "listen.tls.key is missing"},
    {"{\"listen\": {\"tls\": {\"key\": \"a\"}}}", 1, 28, "listen.tls.key",
     "listen.tls.cert is missing"},
    {"{\"listen\": {\"tls\": {\"cert\": \"a\", \"key\": \"b\"}}}", 1, 29, "listen.tls.cert",
     "/nowhere/a: the file cannot be read: No such file"},
    /* providers */
    {"{\"providers\": {}}", 1, 15, "providers", "must be an array, not an object"},
    {"{\"providers\": [\"giga\"]}", 1, 16, "providers[0]", "must be an object, not a string"},
    {"{\"providers\": [{\"type\": \"gigachat\"}]}", 1, 16, "providers[0]", "\"name\" is missing"},
    {"{\"providers\": [{\"name\": \"g\", \"type\": \"gpt\"}]}", 1, 38, "providers[0].type",
     "must be gigachat"},
    {"{\"providers\": [{\"nane\": \"g\"}]}", 1, 17, "providers[0].nane", "did you mean \"name\"?"},
    {"{\"providers\": [{\"base_url\": \"ftp://x\"}]}", 1, 29, "providers[0].base_url", "URL"},
    {"{\"providers\": [{\"base_url\": \"http://u:p@x\"}]}", 1, 29, "providers[0].base_url", "URL"},
    {"{\"providers\": [{\"base_url\": \"http://x/?q\"}]}", 1, 29, "providers[0].base_url", "URL"},
    {"{\"providers\": [{\"base_url\": \"http://x:0/\"}]}", 1, 29, "providers[0].base_url", "URL"},
    {"{\"providers\": [{\"credentials\": \"env:XR_TEST_UNSET\"}]}", 1, 32,
     "providers[0].credentials", "XR_TEST_UNSET"},
    {"{\"providers\": [{\"credentials\": \"file:gone\"}]}", 1, 32, "providers[0].credentials",
     "/nowhere/gone"},
    {"{\"providers\": [{\"scope\": \"ALL\"}]}", 1, 26, "providers[0].scope", "GIGACHAT_API_B2B or"},
    {"{\"providers\": [\n" PROVIDER("giga") ",\n" PROVIDER("giga") "]}", 3, 9, "providers[1].name",
     "taken by providers[0]"},
    {"{\"providers\": [{\"name\": \"o\", \"type\": \"openai\"}]}", 1, 16, "providers[0]",
     "\"credentials\" is missing: https://api.openai.com/v1 needs an API key"},
    {"{\"providers\": [{\"name\": \"a\", \"type\": \"anthropic\"}]}", 1, 16, "providers[0]",
     "https://api.anthropic.com needs an API key"},
    {"{\"providers\": [{\"name\": \"o\", \"type\": \"openai\", \"flavor\": \"gpt\"}]}", 1, 58,
     "providers[0].flavor", "must be openai, deepseek, "},
    {"{\"providers\": [{\"name\": \"o\", \"type\": \"openai\", \"flavor\": \"vllm\", \"auth_url\": "
     "\"http://x/\"}]}",
     1, 78, "providers[0].auth_url", "has no OAuth address"},
    {"{\"limits\": {\"providers\": 1}, \"providers\": [{}, {}]}", 1, 43, "providers",
     "limits.providers allows 1"},
    {"{\"providers\": [{\"name\": \"g\", \"type\": \"gigachat\", \"ca_bundle_file\": \"ca\"}]}", 1,
     68, "providers[0].ca_bundle_file", "/nowhere/ca: the file cannot be read"},
    {"{\"providers\": [{\"name\":\"g\",\"type\":\"gigachat\",\"auth\":\"key\"}]}", 1, 53,
     "providers[0].auth", "oauth, password, token or certificate"},
    {"{\"providers\": [{\"name\":\"g\",\"type\":\"gigachat\",\"auth\":\"token\"}]}", 1, 16,
     "providers[0]", "\"credentials\" is missing"},
    {"{\"providers\": [{\"name\":\"g\",\"type\":\"gigachat\",\"auth\":\"password\"}]}", 1, 16,
     "providers[0]", "\"user\" is missing"},
    {"{\"providers\": [{\"name\":\"g\",\"type\":\"gigachat\",\"auth\":\"password\","
     "\"user\":\"u\"}]}",
     1, 16, "providers[0]", "\"password\" is missing"},
    {"{\"providers\": [{\"name\":\"g\",\"type\":\"gigachat\",\"auth\":\"password\","
     "\"user\":\"u:v\",\n\"password\":\"p\"}]}",
     1, 71, "providers[0].user", "without \":\""},
    {"{\"providers\": [{\"name\":\"g\",\"type\":\"gigachat\",\"auth\":\"password\","
     "\"user\":\"u\",\"password\":\"p\",\n\"credentials\":\"k\"}]}",
     2, 15, "providers[0].credentials", "auth \"password\" has no use for it"},
    {"{\"providers\": [{\"name\":\"g\",\"type\":\"gigachat\",\"credentials\":\"a\",\n"
     "\"accounts\":[{}]}]}",
     2, 13, "providers[0].accounts[0]", "an account needs credentials of its own"},
    {"{\"providers\": [{\"name\":\"g\",\"type\":\"gigachat\",\"credentials\":\"a\",\n"
     "\"accounts\":[{\"credentials\":\"a\"}]}]}",
     2, 13, "providers[0].accounts[0]", "the same account as that of the provider"},
    {"{\"providers\": [{\"name\":\"g\",\"type\":\"gigachat\",\"credentials\":\"a\",\n"
     "\"accounts\":[{\"credentials\":\"b\"},{\"credentials\":\"b\"}]}]}",
     2, 33, "providers[0].accounts[1]", "the same account as another one of the provider"},
    {"{\"providers\": [{\"name\":\"g\",\"type\":\"gigachat\",\"credentials\":\"a\","
     "\"max_concurrent\":512,\n\"accounts\":[{\"credentials\":\"b\"}]}]}",
     2, 12, "providers[0].accounts", "2 accounts with max_concurrent 512 are more than the 1023"},
    {"{\"providers\": [{\"name\":\"g\",\"type\":\"gigachat\",\"auth\":\"password\","
     "\"user\":\"u\",\"password\":\"p\",\n\"accounts\":[{\"credentials\":\"b\"}]}]}",
     2, 28, "providers[0].accounts[0].credentials", "auth \"password\" has no use for it"},
    {"{\"providers\": [{\"name\":\"g\",\"type\":\"gigachat\",\"auth\":\"password\","
     "\"user\":\"u\",\"password\":\"p\",\n\"accounts\":[{\"user\":\"v\"}]}]}",
     2, 13, "providers[0].accounts[0]", "\"password\" is missing"},
    {"{\"providers\": [{\"name\":\"g\",\"type\":\"gigachat\",\"auth\":\"certificate\","
     "\"client_cert_file\":\"c\"}]}",
     1, 16, "providers[0]", "\"client_key_file\" is missing"},
    {"{\"providers\": [{\"name\":\"g\",\"type\":\"gigachat\",\"auth\":\"certificate\","
     "\"client_cert_file\":\"c\",\n\"client_key_file\":\"k\"}]}",
     1, 86, "providers[0].client_cert_file", "/nowhere/c: "},
    {"{\"providers\": [{\"name\":\"g\",\"type\":\"gigachat\",\"auth\":\"certificate\","
     "\"client_cert_file\":\"c\",\"client_key_file\":\"k\",\n\"base_url\":\"http://h\"}]}",
     2, 12, "providers[0].base_url", "https"},
    {"{\"providers\": [{\"name\":\"g\",\"type\":\"gigachat\",\n\"client_key_file\":\"k\"}]}", 2, 19,
     "providers[0].client_key_file", "auth \"oauth\" has no use for it"},
    {"{\"providers\": [{\"name\":\"g\",\"type\":\"gigachat\",\n\"user\":\"u\"}]}", 2, 8,
     "providers[0].user", "auth \"oauth\" has no use for it"},
    {"{\"providers\": [{\"name\":\"g\",\"type\":\"openai\",\"credentials\":\"k\",\n"
     "\"auth\":\"token\"}]}",
     2, 8, "providers[0].auth", "no kinds of auth"},
    /* models; models before providers, to show that the order in the file is free */
    {"{\"models\": [{\"id\": \"m\"}]}", 1, 13, "models[0]", "at least one candidate"},
    {"{\"models\": [{\"id\": \"m\", \"candidates\": []}]}", 1, 39, "models[0].candidates",
     "at least one candidate"},
    {"{\"models\": [{\"id\": \"m\"," CANDIDATES("gigs") "}],\n\"providers\": [" PROVIDER(
         "giga") "]}",
     1, 50, "models[0].candidates[0].provider", "did you mean \"giga\"?"},
    {"{\"models\": [{\"id\": \"m\"," CANDIDATES("x") "}]}", 1, 50,
     "models[0].candidates[0].provider", "there is no provider \"x\""},
    {"{\"models\": [{\"id\": \"m\", \"aliases\": [1]}]}", 1, 37, "models[0].aliases[0]",
     "must be a string, not a number"},
    {"{\"models\": [{\"id\": \"m\", \"tokenizer\": \"p50k\"}]}", 1, 38, "models[0].tokenizer",
     "o200k_base, cl100k_base, calibrated or chars3"},
    {"{\"providers\": [" PROVIDER("giga") "], \"models\": [\n" MODEL("a") ",\n" MODEL("a") "]}", 3,
     7, "models[1].id", "\"a\" is taken by models[0]"},
    {"{\"providers\": [" PROVIDER("giga") "], \"models\": [\n" MODEL(
         "a") ",\n"
              "{\"aliases\": [\"b\", \"a\"], \"id\": \"c\", " CANDIDATES("giga") "}]}",
     3, 19, "models[1].aliases[1]", "\"a\" is taken by models[0]"},
    {"{\"providers\": [" PROVIDER(
         "giga") "], \"models\": [\n"
                 "{\"aliases\": [\"b\", \"b\"], \"id\": \"c\", " CANDIDATES("giga") "}]}",
     2, 19, "models[0].aliases[1]", "\"b\" is taken by models[0]"},
    {"{\"providers\": [" PROVIDER("giga") "],\n\"models\": [{\"id\": \"a\", " CANDIDATES(
         "giga") ",\n"
                 "\"prices\": [{\"input\": 5}]}]}",
     3, 22, "models[0].prices[0].input", "must be a string, not a number"},
    {"{\"providers\": [" PROVIDER("giga") "],\n\"models\": [{\"id\": \"a\", " CANDIDATES(
         "giga") ",\n"
                 "\"prices\": [{\"input\": \"0.0000000001\"}]}]}",
     3, 22, "models[0].prices[0].input", "at most 9 places"},
    {"{\"providers\": [" PROVIDER("giga") "],\n\"models\": [{\"id\": \"a\", " CANDIDATES(
         "giga") ",\n"
                 "\"prices\": [{\"output\": \"-1\"}]}]}",
     3, 23, "models[0].prices[0].output", "0 to 1000000000"},
    {"{\"providers\": [" PROVIDER("giga") "],\n\"models\": [{\"id\": \"a\", " CANDIDATES(
         "giga") ",\n"
                 "\"prices\": [{\"from\": \"soon\"}]}]}",
     3, 21, "models[0].prices[0].from", "must be a date"},
    {"{\"providers\": [" PROVIDER("giga") "],\n\"models\": [{\"id\": \"a\", " CANDIDATES(
         "giga") ",\n"
                 "\"prices\": [{\"from\": \"2026-02-01\"}, {\"from\": "
                 "\"2026-02-01T00:00:00Z\"}]}]}",
     3, 36, "models[0].prices[1]", "two prices from the same moment"},
};

static const char good_config[] =
    "{ // everything once\n"
    "  \"state_dir\": \"state\", \"runtime_dir\": \"/run/xr\", \"workers\": 3,\n"
    "  \"listen\": {\"http\": \"127.0.0.1:0\", \"ops\": \"[::1]:9464\"},\n"
    "  \"log\": {\"level\": \"warn\", \"access_file\": \"off\", \"error_file\": \"./log/error\"},\n"
    "  \"limits\": {\"keys\": 20, \"tiers\": {\"free\": {\"rpm\": 20, \"parallel\": 5}, \"pro\": "
    "{}}},\n"
    "  \"providers\": [\n"
    "    {\"name\": \"giga\", \"type\": \"gigachat\", \"credentials\": \"c2VjcmV0\"},\n"
    "    {\"name\": \"спутник \\ud83d\\ude80\", \"type\": \"gigachat\",\n"
    "     \"base_url\": \"http://127.0.0.1:8090/api\", \"max_concurrent\": 64}],\n"
    "  \"models\": [{\n"
    "    \"id\": \"gigachat/GigaChat-2\", \"aliases\": [\"GigaChat\", \"lite\"],\n"
    "    \"candidates\": [\n"
    "      {\"provider\": \"giga\", \"model\": \"third\", \"priority\": 1},\n"
    "      {\"provider\": \"спутник \xF0\x9F\x9A\x80\", \"model\": \"first\"},\n"
    "      {\"provider\": \"giga\", \"model\": \"second\", \"weight\": 3}],\n"
    "    \"prices\": [\n"
    "      {\"from\": \"2026-02-01\", \"input\": \"65\", \"output\": \"65.5\"},\n"
    "      {\"from\": \"2025-01-01\", \"input\": \"0.000000001\", \"request\": \"2\"}]\n"
    "  }, {\"id\": \"a\", \"candidates\": [{\"provider\": \"giga\", \"model\": \"a\"}]}] /* done "
    "*/\n"
    "}\n";

static struct config *parse(const char *text)
{
    struct config_error e;
    struct config *config = NULL;

    if (config_parse(text, strlen(text), "x.json", "/nowhere", &config, &e) != 0)
        fail_msg("%u:%u: %s: %s", e.line, e.column, e.path, e.text);
    return config;
}

static void encode(const struct config *config, bool with_secrets, struct buf *out)
{
    buf_init(out, 1 << 20);
    assert_int_equal(config_encode(config, with_secrets, out), 0);
    assert_non_null(buf_text(out));
}

static void given_bad_config_when_parsed_then_error_says_where_and_what(void **state)
{
    for (size_t i = 0; i < sizeof(bad_configs) / sizeof(bad_configs[0]); i++) {
        const struct bad_config *bad = &bad_configs[i];
        struct config *config = NULL;
        struct config_error e;
        int rc = config_parse(bad->text, strlen(bad->text), "x.json", "/nowhere", &config, &e);

        if (rc != -EINVAL || config != NULL || e.line != bad->line || e.column != bad->column ||
            strcmp(e.path, bad->path) != 0 || strstr(e.text, bad->part) == NULL ||
            e.text[0] == '\0')
            fail_msg("%s\nrc %d, at %u:%u: %s: %s\nexpected %u:%u: %s: ...%s", bad->text, rc,
                     e.line, e.column, e.path, e.text, bad->line, bad->column, bad->path,
                     bad->part);
    }
}

static void given_empty_object_when_parsed_then_defaults(void **state)
{
    struct config *config = parse("{}");

    assert_string_equal(config->listen_http, "127.0.0.1:8080");
    assert_string_equal(config->listen_https, "");
    assert_string_equal(config->state_dir, "/nowhere/var");
    assert_string_equal(config->runtime_dir, "/nowhere/var/run");
    assert_string_equal(config->tls_cert, "");
    assert_int_equal(config->workers, 0);
    assert_int_equal(config->body_bytes, 16777216);
    assert_int_equal(config->watchdog_ms, 2000);
    assert_int_equal(config->provider_count, 0);
    assert_int_equal(config->model_count, 0);
    assert_int_equal(config->generation, 1);
    config_unref(config);
}

static void given_full_config_when_parsed_then_every_value_arrives(void **state)
{
    struct config *config = parse(good_config);
    const struct model_config *model = &config->models[0];

    assert_string_equal(config->state_dir, "/nowhere/state");
    assert_string_equal(config->runtime_dir, "/run/xr");
    assert_string_equal(config->log_access_file, "off");
    assert_string_equal(config->log_error_file, "/nowhere/log/error");
    assert_string_equal(config->log_level, "warn");
    assert_int_equal(config->workers, 3);
    assert_int_equal(config->tier_count, 2);
    assert_string_equal(config->tiers[0].name, "free");
    assert_int_equal(config->tiers[0].rpm, 20);
    assert_int_equal(config->tiers[0].parallel, 5);
    assert_int_equal(config->tiers[1].rpm, 0);
    assert_string_equal(config->providers[0].credentials, "c2VjcmV0");
    assert_string_equal(config->providers[1].name, "спутник \xF0\x9F\x9A\x80");
    assert_int_equal(config->providers[1].max_concurrent, 64);
    assert_int_equal(model->prices[1].input_nano, INT64_C(65000000000));
    assert_int_equal(model->prices[1].output_nano, INT64_C(65500000000));
    assert_int_equal(model->prices[0].input_nano, 1);
    config_unref(config);
}

static void given_accounts_when_parsed_then_the_provider_with_each_ones_secrets(void **state)
{
    struct config *config =
        parse("{\"providers\":[{\"name\":\"a\",\"type\":\"gigachat\",\"credentials\":\"one\","
              "\"max_concurrent\":3,\"accounts\":[{\"credentials\":\"two\"},"
              "{\"credentials\":\"three\"}]},"
              "{\"name\":\"b\",\"type\":\"gigachat\",\"auth\":\"password\",\"user\":\"u\","
              "\"password\":\"p\",\"accounts\":[{\"user\":\"v\",\"password\":\"q\"}]}]}");
    struct config *decoded = NULL;
    struct config_error e;
    struct buf text;

    encode(config, false, &text);
    assert_null(strstr(buf_text(&text), "two"));
    assert_non_null(strstr(buf_text(&text), "\"accounts\""));
    buf_clear(&text);
    encode(config, true, &text);
    assert_int_equal(config_decode(text.data, text.len, &decoded, &e), 0);
    buf_wipe(&text);
    config_unref(config);
    for (uint32_t i = 0; i < 3; i++) {
        static const char *const secrets[] = {"one", "two", "three"};
        const struct provider_config *p = provider_by_account(&decoded->providers[0], i);

        assert_string_equal(p->credentials, secrets[i]);
        assert_string_equal(p->name, "a");
        assert_string_equal(p->base_url, "https://api.giga.chat");
        assert_int_equal(p->max_concurrent, 3);
        assert_int_equal(p->account_index, i);
    }
    assert_string_equal(provider_by_account(&decoded->providers[0], 3)->credentials, "one");
    assert_string_equal(provider_by_account(&decoded->providers[1], 1)->user, "v");
    assert_string_equal(provider_by_account(&decoded->providers[1], 1)->password, "q");
    assert_int_equal(provider_by_account(&decoded->providers[1], 1)->account_index, 4);
    config_unref(decoded);
}

struct address_case {
    const char *options; /* of the provider */
    const char *base_url, *auth_url;
};

static void given_providers_without_addresses_when_parsed_then_those_of_their_apis(void **state)
{
    static const struct address_case cases[] = {
        {"\"type\":\"gigachat\"", "https://api.giga.chat",
         "https://ngw.devices.sberbank.ru:9443/api/v2/oauth"},
        {"\"type\":\"gigachat\",\"base_url\":\"http://x\",\"auth_url\":\"http://y\"", "http://x",
         "http://y"},
        {"\"type\":\"anthropic\",\"credentials\":\"k\"", "https://api.anthropic.com", ""},
        {"\"type\":\"openai\",\"credentials\":\"k\"", "https://api.openai.com/v1", ""},
        {"\"type\":\"openai\",\"flavor\":\"groq\",\"credentials\":\"k\"",
         "https://api.groq.com/openai/v1", ""},
        {"\"type\":\"openai\",\"flavor\":\"ollama\"", "http://localhost:11434/v1", ""},
        /* a server of one's own may want no key */
        {"\"type\":\"openai\",\"base_url\":\"http://127.0.0.1:1234/v1\"",
         "http://127.0.0.1:1234/v1", ""},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[300];
        struct config *config;

        snprintf(text, sizeof(text), "{\"providers\":[{\"name\":\"p\",%s}]}", cases[i].options);
        config = parse(text);
        assert_string_equal(config->providers[0].base_url, cases[i].base_url);
        assert_string_equal(config->providers[0].auth_url, cases[i].auth_url);
        config_unref(config);
    }
}

static void given_candidates_when_parsed_then_sorted_by_priority_in_file_order(void **state)
{
    struct config *config = parse(good_config);
    const struct model_config *model = &config->models[0];

    assert_int_equal(model->candidate_count, 3);
    assert_string_equal(model->candidates[0].model, "first");
    assert_int_equal(model->candidates[0].provider_index, 1);
    assert_string_equal(model->candidates[1].model, "second");
    assert_int_equal(model->candidates[1].provider_index, 0);
    assert_string_equal(model->candidates[2].model, "third");
    config_unref(config);
}

static void given_prices_when_asked_by_time_then_the_one_in_force(void **state)
{
    struct config *config = parse(good_config);
    const struct model_config *model = &config->models[0];

    assert_int_equal(model_price_at(model, INT64_C(1735689599999)).request_nano, 0);
    assert_int_equal(model_price_at(model, INT64_C(1735689600000)).request_nano, 2000000000);
    assert_int_equal(model_price_at(model, INT64_C(1769903999999)).input_nano, 1);
    assert_int_equal(model_price_at(model, INT64_C(1769904000000)).input_nano, 65000000000);
    assert_int_equal(model_price_at(&config->models[1], INT64_C(1769904000000)).input_nano, 0);
    config_unref(config);
}

#define OWN_PRICES                                                                                 \
    "{\"default_model\": \"other\", \"providers\": [{\"name\": \"giga\", \"type\": \"gigachat\", " \
    "\"credentials\": \"YTpi\"}],\n\"models\": [{\"id\": \"m\", \"aliases\": [\"other\"], "        \
    "\"strategy\": \"busy\", \"prices\": [{\"input\": \"1\"}],\n\"candidates\": [{\"provider\": "  \
    "\"giga\", \"model\": \"x\", \"tools\": false, \"prices\": [{\"from\": \"2026-02-01\", "       \
    "\"input\": "                                                                                  \
    "\"3\"}, {\"input\": \"2\"}]}, {\"provider\": \"giga\", \"model\": \"y\"}]}]}"

static void given_candidate_prices_when_asked_by_time_then_its_own_else_the_models(void **state)
{
    struct config *first = parse(OWN_PRICES), *config = NULL;
    const struct candidate_config *x, *y;
    const struct model_config *model;
    struct config_error e;
    struct buf text;

    encode(first, true, &text);
    assert_int_equal(config_decode(text.data, text.len, &config, &e), 0);
    model = &config->models[0];
    x = model_candidate(model, "giga", "x");
    y = model_candidate(model, "giga", "y");
    assert_int_equal(candidate_price_at(model, x, INT64_C(1769903999999)).input_nano, 2000000000);
    assert_int_equal(candidate_price_at(model, x, INT64_C(1769904000000)).input_nano, 3000000000);
    assert_int_equal(candidate_price_at(model, y, INT64_C(1769904000000)).input_nano, 1000000000);
    assert_null(model_candidate(model, "giga", "z"));
    assert_null(model_candidate(model, "giga2", "x"));
    assert_false(x->tools);
    assert_true(x->images && x->json_schema && y->tools);
    assert_string_equal(config->default_model, "other");
    assert_string_equal(model->strategy, "busy");
    buf_clear(&text);
    config_unref(first);
    config_unref(config);
}

static void given_models_when_looked_up_then_by_id_and_alias_with_case(void **state)
{
    struct config *config = parse(good_config);

    assert_ptr_equal(config_model(config, "gigachat/GigaChat-2", 19), &config->models[0]);
    assert_ptr_equal(config_model(config, "GigaChat???", 8), &config->models[0]);
    assert_ptr_equal(config_model(config, "lite", 4), &config->models[0]);
    assert_ptr_equal(config_model(config, "a", 1), &config->models[1]);
    assert_null(config_model(config, "gigachat", 8));
    assert_null(config_model(config, "lit", 3));
    assert_null(config_model(config, "a\0b", 3));
    assert_null(config_model(config, "", 0));
    config_unref(config);
}

static void given_environment_when_parsed_then_it_wins_over_the_file(void **state)
{
    struct config *config;

    setenv("XROUTER_LISTEN_HTTP", "127.0.0.1:1234", 1);
    setenv("XROUTER_WORKERS", "7", 1);
    setenv("XROUTER_LISTEN_OPS", "", 1);
    setenv("XROUTER_STATE_DIR", "other", 1);
    config = parse("{\"workers\": 2, \"listen\": {\"http\": \"127.0.0.1:1\"}}");
    unsetenv("XROUTER_LISTEN_HTTP");
    unsetenv("XROUTER_WORKERS");
    unsetenv("XROUTER_LISTEN_OPS");
    unsetenv("XROUTER_STATE_DIR");
    assert_string_equal(config->listen_http, "127.0.0.1:1234");
    assert_string_equal(config->listen_ops, "");
    assert_string_equal(config->state_dir, "/nowhere/other");
    assert_int_equal(config->workers, 7);
    config_unref(config);
}

static void given_bad_environment_when_parsed_then_error_names_the_variable(void **state)
{
    static const char *const values[] = {"many", "129", "", "\xFF", "1 "};

    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        struct config *config;
        struct config_error e;
        int rc;

        setenv("XROUTER_WORKERS", values[i], 1);
        rc = config_parse("{\"workers\": 2}", 14, "x.json", "/", &config, &e);
        unsetenv("XROUTER_WORKERS");
        assert_int_equal(rc, -EINVAL);
        assert_string_equal(e.path, "workers");
        assert_non_null(strstr(e.text, "XROUTER_WORKERS"));
        assert_int_equal(e.line, 0);
    }
}

static void given_text_not_utf8_in_environment_when_parsed_then_refused(void **state)
{
    struct config *config;
    struct config_error e;
    int rc;

    setenv("XROUTER_STATE_DIR", "a\xFF", 1);
    rc = config_parse("{}", 2, "x.json", "/", &config, &e);
    unsetenv("XROUTER_STATE_DIR");
    assert_int_equal(rc, -EINVAL);
    assert_non_null(strstr(e.text, "UTF-8"));
}

static void given_config_when_encoded_and_decoded_then_same_bytes_again(void **state)
{
    struct config *config = parse(good_config), *copy = NULL;
    struct buf first, second;
    struct config_error e;

    config->generation = 42;
    free(config->file);
    config->file = strdup("/etc/xrouter/x.json");
    encode(config, true, &first);
    setenv("XROUTER_WORKERS", "99", 1); /* must not count */
    assert_int_equal(config_decode(first.data, first.len, &copy, &e), 0);
    unsetenv("XROUTER_WORKERS");
    encode(copy, true, &second);
    assert_string_equal(buf_text(&first), buf_text(&second));
    assert_int_equal(copy->generation, 42);
    assert_int_equal(copy->workers, 3);
    assert_string_equal(copy->file, "/etc/xrouter/x.json");
    assert_string_equal(copy->providers[0].credentials, "c2VjcmV0");
    assert_string_equal(copy->models[0].candidates[0].model, "first");
    assert_int_equal(copy->models[0].candidates[0].provider_index, 1);
    assert_ptr_equal(config_model(copy, "lite", 4), &copy->models[0]);
    buf_wipe(&first);
    buf_wipe(&second);
    config_unref(config);
    config_unref(copy);
}

static void given_auth_with_a_password_when_parsed_then_the_api_issues_the_tokens(void **state)
{
    struct config *config, *copy = NULL;
    struct config_error e;
    struct buf text;

    config = parse("{\"providers\":[{\"name\":\"g\",\"type\":\"gigachat\",\"auth\":\"password\","
                   "\"base_url\":\"https://h/api\",\"user\":\"u\",\"password\":\"p\"}]}");
    assert_string_equal(config->providers[0].auth_url, "https://h/api");
    encode(config, true, &text);
    assert_int_equal(config_decode(text.data, text.len, &copy, &e), 0);
    assert_string_equal(copy->providers[0].password, "p");
    config_unref(copy);
    buf_wipe(&text);
    encode(config, false, &text);
    assert_null(strstr(buf_text(&text), "\"p\""));
    buf_clear(&text);
    config_unref(config);
}

static void given_secret_like_a_reference_when_decoded_then_taken_as_it_is(void **state)
{
    struct config *config, *copy = NULL;
    struct config_error e;
    struct buf text;

    setenv("XR_TEST_SECRET", "env:NOT_AGAIN", 1);
    config = parse("{\"providers\":[{\"name\":\"g\",\"type\":\"gigachat\","
                   "\"credentials\":\"env:XR_TEST_SECRET\"}]}");
    unsetenv("XR_TEST_SECRET");
    encode(config, true, &text);
    assert_int_equal(config_decode(text.data, text.len, &copy, &e), 0);
    assert_string_equal(copy->providers[0].credentials, "env:NOT_AGAIN");
    buf_wipe(&text);
    config_unref(config);
    config_unref(copy);
}

static void given_config_when_encoded_for_people_then_masked_and_loadable(void **state)
{
    struct config *config = parse(good_config), *again;
    struct buf text;

    encode(config, false, &text);
    assert_null(strstr(buf_text(&text), "c2VjcmV0"));
    assert_non_null(strstr(buf_text(&text), "\"credentials\": \"***\""));
    assert_non_null(strstr(buf_text(&text), "\"credentials\": \"\""));
    assert_non_null(strstr(buf_text(&text), "\n    \"http\": \"127.0.0.1:0\",\n"));
    again = parse(buf_text(&text));
    assert_int_equal(again->model_count, 2);
    config_unref(again);
    config_unref(config);
    buf_clear(&text);
}

static void given_encoding_too_long_for_the_buf_then_error(void **state)
{
    struct config *config = parse(good_config);
    struct buf text;

    buf_init(&text, 100);
    assert_int_equal(config_encode(config, true, &text), -EMSGSIZE);
    buf_clear(&text);
    config_unref(config);
}

static void given_reload_when_compared_then_options_that_need_a_restart_are_named(void **state)
{
    struct config *now = parse("{}");
    struct config *same =
        parse("{\"log\": {\"level\": \"debug\"}, \"timeouts\": {\"body_ms\": 99}}");
    struct config *other = parse("{\"workers\": 2, \"listen\": {\"http\": \"127.0.0.1:1\"},"
                                 "\"limits\": {\"keys\": 99, \"body_bytes\": 5000}}");
    struct buf text;

    buf_init(&text, 1000);
    config_restart_needed(now, same, &text);
    assert_int_equal(text.len, 0);
    config_restart_needed(now, other, &text);
    assert_string_equal(buf_text(&text), "workers, listen.http, limits.keys");
    buf_clear(&text);
    config_unref(now);
    config_unref(same);
    config_unref(other);
}

static void given_reference_when_one_is_given_back_then_config_lives(void **state)
{
    struct config *config = parse("{}");

    assert_ptr_equal(config_ref(config), config);
    config_unref(config);
    assert_string_equal(config->listen_http, "127.0.0.1:8080");
    config_unref(config);
    config_unref(NULL);
}

static void given_error_when_formatted_then_absent_parts_are_left_out(void **state)
{
    struct config_error e = {3, 7, "listen.http", "is wrong"};
    struct buf text;

    buf_init(&text, 1000);
    config_error_format(&e, "/etc/x.json", &text);
    assert_string_equal(buf_text(&text), "/etc/x.json:3:7: listen.http: is wrong");
    buf_reset(&text);
    e.line = 0;
    config_error_format(&e, "/etc/x.json", &text);
    assert_string_equal(buf_text(&text), "/etc/x.json: listen.http: is wrong");
    buf_reset(&text);
    e.path[0] = '\0';
    config_error_format(&e, NULL, &text);
    assert_string_equal(buf_text(&text), "is wrong");
    buf_clear(&text);
}

static void given_control_characters_in_a_name_when_refused_then_not_in_the_error(void **state)
{
    static const char text[] = "{\"a\\u001b[2J\\nb\": 1}";
    struct config *config;
    struct config_error e;

    assert_int_equal(config_parse(text, strlen(text), "x.json", "/", &config, &e), -EINVAL);
    assert_string_equal(e.path, "a?[2J?b");
}

static void given_long_name_when_refused_then_error_is_cut_between_characters(void **state)
{
    struct config *config;
    struct config_error e;
    struct buf text;

    buf_init(&text, 1024);
    buf_str(&text, "{\"x");
    for (int i = 0; i < 200; i++)
        buf_str(&text, "\xD1\x8F");
    buf_str(&text, "\": 1}");
    assert_int_equal(config_parse(text.data, text.len, "x.json", "/", &config, &e), -EINVAL);
    buf_clear(&text);
    assert_true(strlen(e.path) < sizeof(e.path));
    assert_int_equal(strlen(e.path) % 2, 1);
}

/* A private directory with files. */
struct place {
    char dir[64];
    char path[128];
};

static int make_place(void **state)
{
    struct place *place = calloc(1, sizeof(*place));

    assert_non_null(place);
    snprintf(place->dir, sizeof(place->dir), "/tmp/xrouter-config-XXXXXX");
    assert_non_null(mkdtemp(place->dir));
    *state = place;
    return 0;
}

static int remove_place(void **state)
{
    static const char *const names[] = {"x.json",    "cert.pem",  "key.pem",
                                        "other.pem", "chain.pem", "secret"};
    struct place *place = *state;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        snprintf(place->path, sizeof(place->path), "%s/%s", place->dir, names[i]);
        unlink(place->path);
    }
    rmdir(place->dir);
    free(place);
    return 0;
}

static const char *in_place(struct place *place, const char *name)
{
    snprintf(place->path, sizeof(place->path), "%s/%s", place->dir, name);
    return place->path;
}

static void write_file(struct place *place, const char *name, const char *text, mode_t mode)
{
    FILE *file = fopen(in_place(place, name), "w");

    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
    assert_int_equal(fclose(file), 0);
    assert_int_equal(chmod(place->path, mode), 0);
}

static void assert_load_fails(struct place *place, int expected, const char *part)
{
    struct config *config;
    struct config_error e;
    int rc = config_load(in_place(place, "x.json"), &config, &e);

    assert_null(config);
    if (rc != expected || strstr(e.text, part) == NULL)
        fail_msg("rc %d, %s: %s; expected %d %s", rc, e.path, e.text, expected, part);
}

static void given_no_file_when_loaded_then_embedded_default(void **state)
{
    struct config *config;
    struct config_error e;
    char cwd[256], expected[300];

    assert_int_equal(config_load(NULL, &config, &e), 0);
    assert_non_null(getcwd(cwd, sizeof(cwd)));
    snprintf(expected, sizeof(expected), "%s/var/run", cwd);
    assert_string_equal(config->runtime_dir, expected);
    assert_string_equal(config->file, "");
    assert_int_equal(config->provider_count, 0);
    config_unref(config);
}

static void given_file_when_loaded_then_paths_start_from_its_directory(void **state)
{
    struct place *place = *state;
    struct config *config;
    struct config_error e;
    char expected[128];

    write_file(place, "x.json", "{\"state_dir\": \".\", \"runtime_dir\": \"run\"}", 0644);
    assert_int_equal(config_load(in_place(place, "x.json"), &config, &e), 0);
    assert_string_equal(config->state_dir, place->dir);
    snprintf(expected, sizeof(expected), "%s/run", place->dir);
    assert_string_equal(config->runtime_dir, expected);
    assert_string_equal(config->file, place->path);
    config_unref(config);
}

static void given_file_that_is_none_when_loaded_then_clear_error(void **state)
{
    struct place *place = *state;
    struct config *config;
    struct config_error e;

    assert_load_fails(place, -ENOENT, "No such file");
    assert_int_equal(config_load(place->dir, &config, &e), -EISDIR);
    assert_non_null(strstr(e.text, "directory"));
    assert_int_equal(config_load("/dev/null", &config, &e), -EINVAL);
    assert_non_null(strstr(e.text, "not a regular file"));
    write_file(place, "x.json", "", 0600);
    assert_load_fails(place, -EINVAL, "nothing in it");
}

static void given_file_over_4_mib_when_loaded_then_refused_unread(void **state)
{
    struct place *place = *state;

    write_file(place, "x.json", "{}", 0600);
    assert_int_equal(truncate(place->path, 100 << 20), 0);
    assert_load_fails(place, -EFBIG, "4 MiB");
    assert_int_equal(truncate(place->path, (4 << 20) + 1), 0);
    assert_load_fails(place, -EFBIG, "4 MiB");
}

static void given_literal_secret_in_a_shared_file_when_loaded_then_refused(void **state)
{
    struct place *place = *state;
    struct config *config;
    struct config_error e;

    write_file(place, "x.json", "{\"providers\": [" PROVIDER("g") "]}", 0640);
    assert_load_fails(place, -EINVAL, "chmod 600");
    assert_int_equal(chmod(place->path, 0600), 0);
    assert_int_equal(config_load(place->path, &config, &e), 0);
    assert_string_equal(config->providers[0].credentials, "c2VjcmV0");
    config_unref(config);
}

static void given_secret_in_a_file_when_loaded_then_read_beside_the_config(void **state)
{
    struct place *place = *state;
    struct config *config;
    struct config_error e;

    write_file(place, "secret", "top\n", 0600);
    write_file(place, "x.json",
               "{\"providers\": [{\"name\": \"g\", \"type\": \"gigachat\","
               "\"credentials\": \"file:secret\"}]}",
               0644);
    assert_int_equal(config_load(place->path, &config, &e), 0);
    assert_string_equal(config->providers[0].credentials, "top");
    config_unref(config);
    write_file(place, "secret", "top\r\nHost: evil\n", 0600);
    assert_load_fails(place, -EINVAL, "control characters");
}

static void given_public_load_then_secrets_and_certificates_are_not_needed(void **state)
{
    struct place *place = *state;
    struct config *config;
    struct config_error e;

    write_file(
        place, "x.json",
        "{\"listen\": {\"https\": \"127.0.0.1:0\","
        "\"tls\": {\"cert\": \"gone\", \"key\": \"gone\"}}, \"providers\": [{\"name\": \"g\","
        "\"type\": \"gigachat\", \"credentials\": \"env:XR_TEST_UNSET\"}]}",
        0644);
    assert_load_fails(place, -EINVAL, "XR_TEST_UNSET");
    assert_int_equal(config_load_public(in_place(place, "x.json"), &config, &e), 0);
    assert_string_equal(config->providers[0].credentials, "");
    config_unref(config);
}

/* A new key in key_name, and in cert_name a certificate for it. */
static void make_certificate(struct place *place, const char *cert_name, const char *key_name)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    FILE *file;

    assert_non_null(key);
    assert_non_null(cert);
    X509_gmtime_adj(X509_getm_notBefore(cert), 0);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_set_pubkey(cert, key);
    assert_true(X509_sign(cert, key, EVP_sha256()) > 0);
    file = fopen(in_place(place, cert_name), "w");
    assert_non_null(file);
    assert_int_equal(PEM_write_X509(file, cert), 1);
    fclose(file);
    file = fopen(in_place(place, key_name), "w");
    assert_non_null(file);
    assert_int_equal(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL), 1);
    fclose(file);
    X509_free(cert);
    EVP_PKEY_free(key);
}

static void write_tls_config(struct place *place, const char *cert, const char *key)
{
    char text[256];

    snprintf(
        text, sizeof(text),
        "{\"listen\": {\"https\": \"127.0.0.1:0\", \"tls\": {\"cert\": \"%s\", \"key\": \"%s\"}}}",
        cert, key);
    write_file(place, "x.json", text, 0644);
}

static void given_matching_certificate_and_key_when_loaded_then_accepted(void **state)
{
    struct place *place = *state;
    struct config *config;
    struct config_error e;

    make_certificate(place, "cert.pem", "key.pem");
    write_tls_config(place, "cert.pem", "key.pem");
    assert_int_equal(config_load(in_place(place, "x.json"), &config, &e), 0);
    assert_string_equal(config->tls_cert, in_place(place, "cert.pem"));
    config_unref(config);
}

static void given_wrong_certificate_files_when_loaded_then_each_error_is_clear(void **state)
{
    struct place *place = *state;

    make_certificate(place, "other.pem", "key.pem");
    make_certificate(place, "cert.pem", "other.pem");
    write_tls_config(place, "cert.pem", "key.pem");
    assert_load_fails(place, -EINVAL, "does not belong");
    write_tls_config(place, "key.pem", "key.pem");
    assert_load_fails(place, -EINVAL, "no PEM certificate");
    write_tls_config(place, "cert.pem", "cert.pem");
    assert_load_fails(place, -EINVAL, "no PEM private key that can be read");
    write_file(place, "chain.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
               0644);
    write_tls_config(place, "chain.pem", "key.pem");
    assert_load_fails(place, -EINVAL, "certificate 1 of the file cannot be read");
    write_tls_config(place, ".", "key.pem");
    assert_load_fails(place, -EINVAL, "this is no file");
}

static void given_client_certificate_when_loaded_then_checked_with_its_key(void **state)
{
    static const char text[] =
        "{\"providers\":[{\"name\":\"g\",\"type\":\"gigachat\",\"auth\":\"certificate\","
        "\"client_cert_file\":\"cert.pem\",\"client_key_file\":\"key.pem\"}]}";
    struct place *place = *state;
    struct config *config;
    struct config_error e;

    make_certificate(place, "cert.pem", "key.pem");
    write_file(place, "x.json", text, 0644);
    if (config_load(in_place(place, "x.json"), &config, &e) < 0)
        fail_msg("%s: %s", e.path, e.text);
    assert_string_equal(config->providers[0].client_key_file, in_place(place, "key.pem"));
    /* No other host is asked for anything, and so none is looked up. */
    assert_string_equal(config->providers[0].auth_url, config->providers[0].base_url);
    config_unref(config);
    make_certificate(place, "other.pem", "key.pem");
    assert_load_fails(place, -EINVAL, "does not belong");
}

static void given_key_with_password_when_loaded_then_refused_without_asking(void **state)
{
    struct place *place = *state;
    EVP_PKEY *key = EVP_EC_gen("P-256");
    FILE *file;

    make_certificate(place, "cert.pem", "other.pem");
    file = fopen(in_place(place, "key.pem"), "w");
    assert_non_null(file);
    assert_int_equal(
        PEM_write_PrivateKey(file, key, EVP_aes_128_cbc(), (unsigned char *)"pw", 2, NULL, NULL),
        1);
    fclose(file);
    EVP_PKEY_free(key);
    write_tls_config(place, "cert.pem", "key.pem");
    assert_load_fails(place, -EINVAL, "password");
}

static char *read_text(const char *path)
{
    FILE *file = fopen(path, "r");
    char *text = calloc(1, 1 << 20);

    if (file == NULL)
        fail_msg("%s: %s (tests run from the project's root)", path, strerror(errno));
    assert_non_null(text);
    assert_true(fread(text, 1, (1 << 20) - 1, file) > 0);
    fclose(file);
    return text;
}

static void given_manual_when_compared_then_its_tables_are_the_rendered_ones(void **state)
{
    static const char from[] = "<!-- options -->\n", to[] = "\n<!-- /options -->";
    char *manual = read_text("docs/configuration.md");
    char *start = strstr(manual, from), *end;
    struct buf text;

    assert_non_null(start);
    start += strlen(from);
    end = strstr(start, to);
    assert_non_null(end);
    *end = '\0';
    buf_init(&text, 1 << 20);
    assert_int_equal(config_describe_markdown(&text), 0);
    buf_byte(&text, '\0');
    text.data[text.len - 2] = '\0'; /* the last line break, which stands before the marker */
    assert_string_equal(start, text.data);
    buf_clear(&text);
    free(manual);
}

static void given_schema_when_rendered_then_json_with_every_level(void **state)
{
    struct buf text;
    cJSON *schema;
    const cJSON *n;

    buf_init(&text, 1 << 20);
    assert_int_equal(config_describe_schema(&text), 0);
    schema = json_parse(text.data, text.len, &JSON_LIMITS_DEFAULT, NULL, NULL);
    assert_non_null(schema);
    n = json_get(json_get(json_get(schema, "properties"), "listen"), "properties");
    n = json_get(json_get(json_get(json_get(n, "tls"), "properties"), "cert"), "type");
    assert_string_equal(n->valuestring, "string");
    n = json_get(json_get(json_get(schema, "properties"), "limits"), "properties");
    assert_non_null(json_get(n, "tiers"));
    n = json_get(json_get(json_get(schema, "properties"), "models"), "items");
    assert_non_null(json_get(json_get(n, "properties"), "prices"));
    cJSON_Delete(schema);
    buf_clear(&text);
}

static void given_samples_when_loaded_then_accepted(void **state)
{
    struct config *config;
    struct config_error e;

    setenv("GIGACHAT_CREDENTIALS", "c2VjcmV0", 1);
    if (config_load("etc/xrouter.json", &config, &e) != 0)
        fail_msg("%u:%u: %s: %s", e.line, e.column, e.path, e.text);
    unsetenv("GIGACHAT_CREDENTIALS");
    assert_int_equal(config->provider_count, 1);
    assert_int_equal(config->model_count, 3);
    assert_int_equal(config->tier_count, 2);
    config_unref(config);
}

/* The template as etc/demo.sh fills it in. */
static char *fill_template(const char *template)
{
    static const char *const values[][2] = {
        {"@BASE_URL@", "http://127.0.0.1:8090"},
        {"@AUTH_URL@", "http://127.0.0.1:8090/oauth"},
        {"@CONCURRENT@", "64"},
        {"@SCOPE@", "GIGACHAT_API_PERS"},
        {"@CA_BUNDLE@", ""},
        {"@HTTP@", "127.0.0.1:0"},
        {"@HTTPS@", "127.0.0.1:0"},
        {"@OPS@", "127.0.0.1:0"},
    };
    struct buf out;
    char *filled;

    buf_init(&out, 1 << 20);
    while (*template != '\0') {
        size_t i = 0, count = sizeof(values) / sizeof(values[0]);

        while (i < count && strncmp(template, values[i][0], strlen(values[i][0])) != 0)
            i++;
        if (i == count) {
            buf_byte(&out, *template ++);
            continue;
        }
        buf_str(&out, values[i][1]);
        template += strlen(values[i][0]);
    }
    filled = strdup(buf_text(&out));
    assert_non_null(filled);
    buf_clear(&out);
    return filled;
}

static void given_demo_template_when_filled_in_then_accepted(void **state)
{
    struct place *place = *state;
    char *template = read_text("etc/demo.json");
    char *text = fill_template(template);
    struct config *config;
    struct config_error e;

    write_file(place, "x.json", text, 0600);
    if (config_load_public(place->path, &config, &e) != 0)
        fail_msg("%u:%u: %s: %s", e.line, e.column, e.path, e.text);
    assert_non_null(config_model(config, "GigaChat", 8));
    assert_int_equal(config->model_count, 4);
    assert_int_equal(config->providers[0].max_concurrent, 64);
    assert_string_equal(config->models[0].tokenizer, "chars3");
    assert_string_equal(config->state_dir, place->dir);
    config_unref(config);
    free(template);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_bad_config_when_parsed_then_error_says_where_and_what),
        cmocka_unit_test(given_empty_object_when_parsed_then_defaults),
        cmocka_unit_test(given_full_config_when_parsed_then_every_value_arrives),
        cmocka_unit_test(given_providers_without_addresses_when_parsed_then_those_of_their_apis),
        cmocka_unit_test(given_candidates_when_parsed_then_sorted_by_priority_in_file_order),
        cmocka_unit_test(given_accounts_when_parsed_then_the_provider_with_each_ones_secrets),
        cmocka_unit_test(given_prices_when_asked_by_time_then_the_one_in_force),
        cmocka_unit_test(given_candidate_prices_when_asked_by_time_then_its_own_else_the_models),
        cmocka_unit_test(given_models_when_looked_up_then_by_id_and_alias_with_case),
        cmocka_unit_test(given_environment_when_parsed_then_it_wins_over_the_file),
        cmocka_unit_test(given_bad_environment_when_parsed_then_error_names_the_variable),
        cmocka_unit_test(given_text_not_utf8_in_environment_when_parsed_then_refused),
        cmocka_unit_test(given_config_when_encoded_and_decoded_then_same_bytes_again),
        cmocka_unit_test(given_auth_with_a_password_when_parsed_then_the_api_issues_the_tokens),
        cmocka_unit_test(given_secret_like_a_reference_when_decoded_then_taken_as_it_is),
        cmocka_unit_test(given_config_when_encoded_for_people_then_masked_and_loadable),
        cmocka_unit_test(given_encoding_too_long_for_the_buf_then_error),
        cmocka_unit_test(given_reload_when_compared_then_options_that_need_a_restart_are_named),
        cmocka_unit_test(given_reference_when_one_is_given_back_then_config_lives),
        cmocka_unit_test(given_error_when_formatted_then_absent_parts_are_left_out),
        cmocka_unit_test(given_control_characters_in_a_name_when_refused_then_not_in_the_error),
        cmocka_unit_test(given_long_name_when_refused_then_error_is_cut_between_characters),
        cmocka_unit_test(given_no_file_when_loaded_then_embedded_default),
        cmocka_unit_test_setup_teardown(given_file_when_loaded_then_paths_start_from_its_directory,
                                        make_place, remove_place),
        cmocka_unit_test_setup_teardown(given_file_that_is_none_when_loaded_then_clear_error,
                                        make_place, remove_place),
        cmocka_unit_test_setup_teardown(given_file_over_4_mib_when_loaded_then_refused_unread,
                                        make_place, remove_place),
        cmocka_unit_test_setup_teardown(
            given_literal_secret_in_a_shared_file_when_loaded_then_refused, make_place,
            remove_place),
        cmocka_unit_test_setup_teardown(
            given_secret_in_a_file_when_loaded_then_read_beside_the_config, make_place,
            remove_place),
        cmocka_unit_test_setup_teardown(
            given_public_load_then_secrets_and_certificates_are_not_needed, make_place,
            remove_place),
        cmocka_unit_test_setup_teardown(
            given_matching_certificate_and_key_when_loaded_then_accepted, make_place, remove_place),
        cmocka_unit_test_setup_teardown(
            given_wrong_certificate_files_when_loaded_then_each_error_is_clear, make_place,
            remove_place),
        cmocka_unit_test_setup_teardown(
            given_client_certificate_when_loaded_then_checked_with_its_key, make_place,
            remove_place),
        cmocka_unit_test_setup_teardown(
            given_key_with_password_when_loaded_then_refused_without_asking, make_place,
            remove_place),
        cmocka_unit_test(given_manual_when_compared_then_its_tables_are_the_rendered_ones),
        cmocka_unit_test(given_schema_when_rendered_then_json_with_every_level),
        cmocka_unit_test(given_samples_when_loaded_then_accepted),
        cmocka_unit_test_setup_teardown(given_demo_template_when_filled_in_then_accepted,
                                        make_place, remove_place),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
