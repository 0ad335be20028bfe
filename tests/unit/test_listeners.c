#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "gateway/listeners.h"

static char off[] = "", any_port[] = "127.0.0.1:0", ipv6[] = "[::1]:0";

static void given_port_zero_when_opened_then_real_address_can_be_connected_to(void **state)
{
    struct config config = {.listen_http = any_port, .listen_https = off, .listen_ops = any_port};
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct listeners l;
    struct buf why;
    unsigned long port;
    int fd;

    buf_init(&why, 1024);
    assert_int_equal(listeners_open(&l, &config, &why), 0);
    assert_int_equal(strncmp(l.http_address, "127.0.0.1:", 10), 0);
    port = strtoul(l.http_address + 10, NULL, 10);
    assert_int_not_equal(port, 0);
    assert_int_equal(l.https, -1);
    assert_string_equal(l.https_address, "");
    assert_string_not_equal(l.http_address, l.ops_address);
    assert_int_equal(fcntl(l.http, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
    assert_int_equal(fcntl(l.http, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    addr.sin_port = htons((uint16_t)port);
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    close(fd);
    listeners_close(&l);
    assert_int_equal(l.http, -1);
    buf_clear(&why);
}

static void given_address_in_use_when_opened_then_error_names_option_and_address(void **state)
{
    struct config config = {.listen_http = any_port, .listen_https = off, .listen_ops = off};
    struct listeners first, second;
    struct buf why;

    buf_init(&why, 1024);
    assert_int_equal(listeners_open(&first, &config, &why), 0);
    config.listen_ops = first.http_address;
    assert_int_equal(listeners_open(&second, &config, &why), -EADDRINUSE);
    assert_non_null(strstr(buf_text(&why), "listen.ops"));
    assert_non_null(strstr(buf_text(&why), first.http_address));
    assert_int_equal(second.http, -1); /* the one that could be opened was closed again */
    listeners_close(&first);
    buf_clear(&why);
}

static void given_ipv6_address_when_opened_then_shown_in_brackets(void **state)
{
    struct config config = {.listen_http = ipv6, .listen_https = off, .listen_ops = off};
    struct listeners l;
    struct buf why;
    int rc;

    buf_init(&why, 1024);
    rc = listeners_open(&l, &config, &why);
    buf_clear(&why);
    if (rc == -EADDRNOTAVAIL || rc == -EAFNOSUPPORT)
        skip(); /* a machine without IPv6 */
    assert_int_equal(rc, 0);
    assert_int_equal(strncmp(l.http_address, "[::1]:", 6), 0);
    listeners_close(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_port_zero_when_opened_then_real_address_can_be_connected_to),
        cmocka_unit_test(given_address_in_use_when_opened_then_error_names_option_and_address),
        cmocka_unit_test(given_ipv6_address_when_opened_then_shown_in_brackets),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
