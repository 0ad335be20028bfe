/* failure.h - what an attempt's failure means for what comes after it. */
#ifndef XROUTER_ROUTER_FAILURE_H
#define XROUTER_ROUTER_FAILURE_H

#include <stdbool.h>
#include <stdint.h>

struct failure_class {
    int number;        /* XR_E... */
    unsigned rank;     /* of several failures the client is told the one with the highest */
    bool goes_on;      /* another candidate may do better */
    bool may_repeat;   /* so may the same one, a little later */
    bool is_providers; /* it counts against the target's breaker */
    /* It is one account's: that gets no requests for so long, and another one of the same provider
     * may do better at once. 0 = it is not. */
    int64_t account_rest_ms;
    bool is_final; /* nobody could do better: the client or the gateway is to blame */
};

/* Never NULL: what is in no row is final. */
const struct failure_class *failure_class_of(int number);

#endif
