#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "gateway/notify.h"

/* A datagram socket at the name, '@' for the abstract ones' NUL. */
static int listen_at(const char *name)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);

    memcpy(addr.sun_path, name, strlen(name));
    if (name[0] == '@')
        addr.sun_path[0] = '\0';
    assert_int_equal(bind(fd, (struct sockaddr *)&addr,
                          (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name))),
                     0);
    return fd;
}

static void assert_received(int fd, const char *text)
{
    char got[128] = "";

    assert_int_equal(recv(fd, got, sizeof(got) - 1, MSG_DONTWAIT), strlen(text));
    assert_string_equal(got, text);
}

static void given_no_socket_when_sent_then_nothing_happens(void **state)
{
    unsetenv("NOTIFY_SOCKET");
    assert_int_equal(notify_send("READY=1"), 0);
    setenv("NOTIFY_SOCKET", "", 1);
    assert_int_equal(notify_send("READY=1"), 0);
}

static void given_path_when_sent_then_one_datagram_arrives(void **state)
{
    char path[64];
    int fd;

    snprintf(path, sizeof(path), "/tmp/test_notify.%d", (int)getpid());
    unlink(path);
    fd = listen_at(path);
    setenv("NOTIFY_SOCKET", path, 1);
    assert_int_equal(notify_send("READY=1\nSTATUS=Serving"), 0);
    assert_received(fd, "READY=1\nSTATUS=Serving");
    close(fd);
    assert_int_equal(notify_send("READY=1"), -ECONNREFUSED);
    unlink(path);
}

static void given_abstract_name_when_sent_then_one_datagram_arrives(void **state)
{
    char name[64];
    int fd;

    snprintf(name, sizeof(name), "@test_notify.%d", (int)getpid());
    fd = listen_at(name);
    setenv("NOTIFY_SOCKET", name, 1);
    assert_int_equal(notify_send("STOPPING=1"), 0);
    assert_received(fd, "STOPPING=1");
    close(fd);
}

static void given_strange_or_long_name_when_sent_then_einval(void **state)
{
    char name[200];

    setenv("NOTIFY_SOCKET", "relative", 1);
    assert_int_equal(notify_send("READY=1"), -EINVAL);
    memset(name, 'x', sizeof(name) - 1);
    name[0] = '/';
    name[sizeof(name) - 1] = '\0';
    setenv("NOTIFY_SOCKET", name, 1);
    assert_int_equal(notify_send("READY=1"), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_no_socket_when_sent_then_nothing_happens),
        cmocka_unit_test(given_path_when_sent_then_one_datagram_arrives),
        cmocka_unit_test(given_abstract_name_when_sent_then_one_datagram_arrives),
        cmocka_unit_test(given_strange_or_long_name_when_sent_then_einval),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
