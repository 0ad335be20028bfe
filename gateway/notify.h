/* notify.h - tells systemd how the service is (sd_notify's protocol: one datagram). */
#ifndef XROUTER_GATEWAY_NOTIFY_H
#define XROUTER_GATEWAY_NOTIFY_H

/* Sends the lines of state ("READY=1", "STATUS=...") to $NOTIFY_SOCKET, a path or an abstract name
 * ("@..."). Never waits. 0 (also when the variable is not set) or -errno. */
int notify_send(const char *state);

#endif
