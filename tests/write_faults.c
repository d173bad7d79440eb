/* Loaded before libc: the n-th call that changes a file below one folder fails once, with the error that is asked for. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static char below[4096];
static int at, error_number, seen;

void fault_set(const char *folder, int number, int error) {
    strncpy(below, folder, sizeof below - 1);
    at = number;
    error_number = error;
    seen = 0;
}

int fault_seen(void) { return seen; }

static int fails(const char *path) {
    if (!below[0] || !path || strncmp(path, below, strlen(below)) != 0) return 0;
    if (__sync_add_and_fetch(&seen, 1) != at) return 0;
    errno = error_number;
    return 1;
}

static int fails_open(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return fails(path);
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

ssize_t write(int fd, const void *data, size_t size) {
    REAL(write);
    return fails_open(fd) ? -1 : real(fd, data, size);
}
ssize_t sendfile64(int out, int in, off64_t *offset, size_t size);
ssize_t sendfile(int out, int in, off_t *offset, size_t size) {
    REAL(sendfile);
    return fails_open(out) ? -1 : real(out, in, offset, size);
}
ssize_t sendfile64(int out, int in, off64_t *offset, size_t size) {
    REAL(sendfile64);
    return fails_open(out) ? -1 : real(out, in, offset, size);
}
int fsync(int fd) {
    REAL(fsync);
    return fails_open(fd) ? -1 : real(fd);
}
int fdatasync(int fd) {
    REAL(fdatasync);
    return fails_open(fd) ? -1 : real(fd);
}
int ftruncate64(int fd, off64_t size) {
    REAL(ftruncate64);
    return fails_open(fd) ? -1 : real(fd, size);
}
int rename(const char *from, const char *to) {
    REAL(rename);
    return fails(to) ? -1 : real(from, to);
}
int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    return fails(path) ? -1 : real(path, mode);
}
int open64(const char *path, int flags, ...) {
    REAL(open64);
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0;
    va_end(more);
    return flags & O_CREAT && fails(path) ? -1 : real(path, flags, mode);
}
