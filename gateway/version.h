/* version.h - what `xrouter -v`, `stat` and the instance row say. */
#ifndef XROUTER_GATEWAY_VERSION_H
#define XROUTER_GATEWAY_VERSION_H

#ifndef XROUTER_VERSION
#define XROUTER_VERSION "0.1.0"
#endif

#endif
