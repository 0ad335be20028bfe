/* meter_double.h - a token meter that keeps the text it is told, and answers with numbers that no
 * provider reports. */
#ifndef XROUTER_TESTS_METER_DOUBLE_H
#define XROUTER_TESTS_METER_DOUBLE_H

#include "common/container.h"
#include "providers/provider.h"

#define METER_INPUT 1111
#define METER_OUTPUT 222

struct meter_double {
    struct token_meter meter;
    struct buf text;
    unsigned counts, resets;
};

static inline void meter_double_text(struct token_meter *meter, const char *text, size_t len)
{
    buf_append(&container_of(meter, struct meter_double, meter)->text, text, len);
}

static inline void meter_double_count(struct token_meter *meter, struct token_usage *usage)
{
    container_of(meter, struct meter_double, meter)->counts++;
    *usage = (struct token_usage){METER_INPUT, 0, METER_OUTPUT};
}

static inline void meter_double_reset(struct token_meter *meter)
{
    struct meter_double *m = container_of(meter, struct meter_double, meter);

    m->resets++;
    buf_clear(&m->text);
}

static inline void meter_double_init(struct meter_double *m)
{
    *m = (struct meter_double){.meter = {.on_text = meter_double_text,
                                         .count = meter_double_count,
                                         .reset = meter_double_reset}};
    buf_init(&m->text, 1 << 26);
}

static inline void meter_double_clear(struct meter_double *m)
{
    buf_clear(&m->text);
}

#endif
