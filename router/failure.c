#include "router/failure.h"

#include <stddef.h>

#include "common/error.h"

/* clang-format off */
static const struct failure_class CLASSES[] = {
    /*                     goes on  repeat  breaker  account rests */
    {XR_EUNSUPPORTED,   1, true,    false,  false,   0,     false},
    {XR_ENOPROVIDER,    2, true,    false,  false,   0,     false},
    {XR_ECONTEXT,       3, true,    false,  false,   0,     false},
    {XR_EQUOTA,         4, true,    false,  false,   60000, false},
    {XR_EUPSTREAMAUTH,  5, true,    false,  true,    30000, false},
    {XR_EBUSY,          6, true,    true,   false,   1000,  false},
    {XR_ETIMEOUT,       7, true,    false,  true,    0,     false},
    {XR_EUPSTREAM,      8, true,    true,   true,    0,     false},
};
/* clang-format on */
static const struct failure_class FINAL = {.rank = 9, .is_final = true};

const struct failure_class *failure_class_of(int number)
{
    for (size_t i = 0; i < sizeof(CLASSES) / sizeof(CLASSES[0]); i++)
        if (CLASSES[i].number == number)
            return &CLASSES[i];
    return &FINAL;
}
