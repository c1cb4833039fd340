/* Loaded before the C library (LD_PRELOAD): the n-th call that changes a disk kills the process or fails.
   Modes: 1 kill, the bytes of a write half written; 2 this one call fails; 3 so does every later one that needs space. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/types.h>
#include <unistd.h>

static int mode = 0, fired = 0;
static long left = 0;

void arm_faults(long nth, int how) { left = nth; mode = how; fired = 0; }
int faults_fired(void) { return fired; }

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
enum { NO = 0, KILL = 1, FAIL = 2 };

static int now(int needs_space) {
    if (mode == 0) return NO;
    if (mode == 3 && fired) return needs_space ? FAIL : NO;
    if (--left != 0) return NO;
    fired = 1;
    return mode == 1 ? KILL : FAIL;
}

#define GUARD(needs_space, before_kill, failed)          \
    switch (now(needs_space)) {                          \
    case KILL: before_kill; _exit(17);                   \
    case FAIL: errno = (needs_space) ? ENOSPC : EIO; return failed; \
    default: break;                                      \
    }

ssize_t write(int fd, const void *bytes, size_t n) {
    if (fd > 2) GUARD(1, REAL(write)(fd, bytes, n / 2), -1);
    return REAL(write)(fd, bytes, n);
}
ssize_t pwrite(int fd, const void *bytes, size_t n, off_t at) {
    GUARD(1, REAL(pwrite)(fd, bytes, n / 2, at), -1);
    return REAL(pwrite)(fd, bytes, n, at);
}
ssize_t pwrite64(int fd, const void *bytes, size_t n, off64_t at) {
    GUARD(1, REAL(pwrite64)(fd, bytes, n / 2, at), -1);
    return REAL(pwrite64)(fd, bytes, n, at);
}
int fsync(int fd) { GUARD(1, , -1); return REAL(fsync)(fd); }
int fdatasync(int fd) { GUARD(1, , -1); return REAL(fdatasync)(fd); }
int ftruncate(int fd, off_t n) { GUARD(1, , -1); return REAL(ftruncate)(fd, n); }
int ftruncate64(int fd, off64_t n) { GUARD(1, , -1); return REAL(ftruncate64)(fd, n); }
int rename(const char *a, const char *b) { GUARD(0, , -1); return REAL(rename)(a, b); }
int link(const char *a, const char *b) { GUARD(1, , -1); return REAL(link)(a, b); }
int unlink(const char *a) { GUARD(0, , -1); return REAL(unlink)(a); }
int chmod(const char *a, mode_t m) { GUARD(0, , -1); return REAL(chmod)(a, m); }
int mkdir(const char *a, mode_t m) { GUARD(1, , -1); return REAL(mkdir)(a, m); }

#define OPEN(name)                                                   \
    int name(const char *path, int flags, ...) {                     \
        va_list more;                                                \
        va_start(more, flags);                                       \
        mode_t m = (flags & O_CREAT) ? va_arg(more, mode_t) : 0;     \
        va_end(more);                                                \
        if (flags & O_CREAT) GUARD(1, , -1);                         \
        return REAL(name)(path, flags, m);                           \
    }
OPEN(open)
OPEN(open64)
