/* parameters.h - which fields of a chat request a provider honours, for who chooses a model. */
#ifndef XROUTER_PROVIDERS_PARAMETERS_H
#define XROUTER_PROVIDERS_PARAMETERS_H

#include <stdbool.h>

#include "common/config.h"

/* Those of OpenAI's chat request that steer the answer, in the order they are listed; NULL ends. */
extern const char *const PARAMETERS[];

/* Whether the provider's adapter honours it; false for a type that has no adapter. */
bool parameter_is_supported(const struct provider_config *p, const char *parameter);
bool parameter_takes_images(const struct provider_config *p);

/* The same of a candidate: less what its configuration says it does not take. Here
 * "structured_outputs" is a response_format of type json_schema. */
bool candidate_supports(const struct provider_config *p, const struct candidate_config *candidate,
                        const char *parameter);
bool candidate_takes_images(const struct provider_config *p,
                            const struct candidate_config *candidate);

#endif
