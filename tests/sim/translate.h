/* translate.h - a request of another dialect in the words that the simulator thinks in: messages of
 * role and text, functions of name and parameters. What can be is borrowed from request->root.
 *
 * Nothing here fails by itself: want of memory is kept in request->is_incomplete, to be looked at
 * once, at the end. */
#ifndef XROUTER_SIM_TRANSLATE_H
#define XROUTER_SIM_TRANSLATE_H

#include "tests/sim/rules.h"

/* Takes root over: request becomes an empty one with an empty tree. */
void translate_begin(struct sim_request *request, cJSON *root);
/* One more message; text is borrowed. */
void translate_message(struct sim_request *request, enum role role, const char *text);
/* One whose content is a text or a list of parts: those of {"type":"text"}, joined. */
void translate_content(struct sim_request *request, enum role role, const cJSON *content);
/* One more function; without parameters (NULL) it is called with {}. */
void translate_function(struct sim_request *request, const char *name, const cJSON *parameters);
/* The answer is to be a JSON object, of whatever shape. */
void translate_any_object(struct sim_request *request);
/* Sets what follows from the messages and functions: last, last_user, prompt_tokens. */
void translate_end(struct sim_request *request);

#endif
