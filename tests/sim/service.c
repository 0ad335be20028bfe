#include "tests/sim/service.h"

#include <string.h>

#include "common/json.h"
#include "tests/sim/dialect.h"
#include "tests/sim/rules.h"
#include "tests/sim/sim.h"

/* NULL after an answer. */
static struct sim_client *admit(struct conn *conn)
{
    struct caller caller = {.has_user_agent = conn->request.user_agent.len > 0};
    struct verdict verdict;

    conn->dialect->identify(conn, &caller);
    if (rules_admit(&conn->sim->config, &caller, &verdict))
        return caller.client;
    http_reply_verdict(conn, &verdict);
    return NULL;
}

static bool put_counts(struct buf *out, const cJSON *input)
{
    const cJSON *item = cJSON_IsArray(input) ? input->child : input;

    buf_byte(out, '[');
    for (const cJSON *text = item; text != NULL; text = cJSON_IsArray(input) ? text->next : NULL) {
        uint64_t characters;

        if (!cJSON_IsString(text))
            return false;
        characters = count_code_points(text->valuestring, strlen(text->valuestring));
        buf_str(out, text == item ? "{" : ",{");
        json_put_field_text(out, "object", "tokens");
        json_put_field_u64(out, "tokens", count_tokens(characters));
        json_put_field_u64(out, "characters", characters);
        buf_byte(out, '}');
    }
    buf_byte(out, ']');
    return item != NULL;
}

void service_answer_count(struct conn *conn)
{
    struct buf *body = sim_scratch(&conn->sim->body);
    const char *model;
    cJSON *root;

    if (admit(conn) == NULL)
        return;
    root = json_parse(conn->request.body.data, conn->request.body.len, &JSON_LIMITS_DEFAULT, NULL,
                      NULL);
    model = json_string(root, "model");
    if (model == NULL || !put_counts(body, json_get(root, "input")))
        http_reply_error(conn, 400, "Your request contains invalid JSON syntax.");
    else if (sim_config_model(&conn->sim->config, DIALECT_GIGACHAT, model) == NULL)
        http_reply_error(conn, 404, "No such model");
    else if (plan_has(&conn->plan, PLAN(MALFORMED)))
        http_reply(conn, 200, HTTP_TYPE_JSON, "", body->data, body->len - 2);
    else
        http_reply(conn, 200, HTTP_TYPE_JSON, "", body->data, body->len);
    cJSON_Delete(root);
}

void service_answer_balance(struct conn *conn)
{
    const struct sim_client *client = admit(conn);
    struct buf *body = sim_scratch(&conn->sim->body);

    if (client == NULL)
        return;
    if (client->balance_count == 0) {
        http_reply_error(conn, 403, "Permission denied");
        return;
    }
    buf_str(body, "{\"balance\":[");
    for (size_t i = 0; i < client->balance_count; i++) {
        buf_str(body, i == 0 ? "{" : ",{");
        json_put_field_text(body, "usage", client->balances[i].model);
        json_put_field_i64(body, "value", client->balances[i].tokens);
        buf_byte(body, '}');
    }
    buf_str(body, "]}");
    http_reply(conn, 200, HTTP_TYPE_JSON, "", body->data, body->len);
}
