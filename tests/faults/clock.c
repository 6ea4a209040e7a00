/* The wall clock of a process, off by as many seconds as a file says at each look; all other clocks stay as they are. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#ifdef __x86_64__
#define CURRENT(name) dlvsym(RTLD_NEXT, name, "GLIBC_2.3.2")
#else
#define CURRENT(name) dlsym(RTLD_NEXT, name)
#endif

static long offset(void)
{
    char text[32];
    const char *path = getenv("CLOCK_OFFSET");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    ssize_t size = file < 0 ? 0 : read(file, text, sizeof text - 1);
    if (file >= 0)
        close(file);
    text[size > 0 ? size : 0] = 0;
    return atol(text);
}

/* A moment to wait until, as the kernel knows it. Clocks that count from the start of the machine are far behind. */
static struct timespec real(const struct timespec *moment)
{
    struct timespec found = *moment;
    if (found.tv_sec > 1000000000)
        found.tv_sec -= offset();
    return found;
}

int clock_gettime(clockid_t which, struct timespec *now)
{
    int answer = syscall(SYS_clock_gettime, which, now);
    if (answer == 0 && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE))
        now->tv_sec += offset();
    return answer;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec found;
    int answer = clock_gettime(CLOCK_REALTIME, &found);
    (void)zone;
    now->tv_sec = found.tv_sec;
    now->tv_usec = found.tv_nsec / 1000;
    return answer;
}

time_t time(time_t *now)
{
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    if (now)
        *now = found.tv_sec;
    return found.tv_sec;
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until)
{
    struct timespec moment = real(until);
    return sem_clockwait(semaphore, CLOCK_REALTIME, &moment);
}

int pthread_cond_timedwait(pthread_cond_t *restrict told, pthread_mutex_t *restrict lock, const struct timespec *until)
{
    static int (*waits)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    struct timespec moment = real(until);
    if (!waits)
        *(void **)&waits = CURRENT("pthread_cond_timedwait");
    return waits(told, lock, &moment);
}
