/* forked.h - processes that share memory with a test and are killed in the middle of their work. */
#ifndef XROUTER_TESTS_UNIT_FORKED_H
#define XROUTER_TESTS_UNIT_FORKED_H

#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"

/* Zeroed, shared with children, page-aligned; ends with the test's process. */
static inline void *forked_memory(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED)
        abort();
    return p;
}

/* Runs work(arg) in a child, which exits with what it returned and never outlives the test. */
static inline pid_t forked_start(int (*work)(void *arg), void *arg)
{
    pid_t parent = getpid();
    pid_t pid = fork();

    if (pid == -1)
        abort();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        _exit(work(arg));
    }
    return pid;
}

/* The exit status, -1 if a signal ended it. */
static inline int forked_wait(pid_t pid)
{
    int status;

    if (waitpid(pid, &status, 0) != pid)
        abort();
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* kill -9 after 0 to max_us microseconds, spun through so that any instruction may be the last. */
static inline void forked_kill_soon(pid_t pid, unsigned max_us)
{
    int64_t until = clock_monotonic_us() + (int64_t)((unsigned)rand() % (max_us + 1));

    while (clock_monotonic_us() < until)
        ;
    kill(pid, SIGKILL);
    forked_wait(pid);
}

#endif
