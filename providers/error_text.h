/* error_text.h - a provider's words on the way to the client: short, and without anything that
 * looks like a credential. */
#ifndef XROUTER_PROVIDERS_ERROR_TEXT_H
#define XROUTER_PROVIDERS_ERROR_TEXT_H

#define ERROR_TEXT_BYTES 301

void error_text_clean(const char *text, char out[ERROR_TEXT_BYTES]);

#endif
