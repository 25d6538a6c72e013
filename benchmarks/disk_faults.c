/* Loaded before libc (LD_PRELOAD), this counts what a process changes in one folder, and makes the n-th change the last
   that it lives to see, or the first that finds the disk full. Whichever library makes it: Python's, Rust's, a decoder's.

   Nothing happens until `disk_faults` is called. An operation is one that makes, writes, flushes, renames or removes a
   file or folder whose path begins with the folder's. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum { COUNT, KILL_BEFORE, KILL_AMID, KILL_AFTER, FULL_ONCE, FULL_FROM };

static char folder[4096];
static int action = COUNT, error_number = ENOSPC;
static long wanted, counted;

/* Arm: `what` happens at the `nth` operation (from 1) in the folder; of FULL_*, removals are none. */
void disk_faults(const char *where, int what, long nth, int number) {
    strncpy(folder, where, sizeof folder - 1);
    action = what, wanted = nth, error_number = number, counted = 0;
}

long disk_operations(void) { return counted; }

static int inside(int parent, const char *path) {
    if (!folder[0]) return 0;
    char whole[8192] = "";
    if (path == NULL || path[0] != '/') {
        if (parent == AT_FDCWD) {
            if (getcwd(whole, 4096) == NULL) return 0;
        } else {
            char link[64];
            snprintf(link, sizeof link, "/proc/self/fd/%d", parent);
            ssize_t length = readlink(link, whole, 4096);
            if (length < 0) return 0;
            whole[length] = 0;
        }
        if (path != NULL) strcat(whole, "/");
    }
    if (path != NULL) strncat(whole, path, 4000);
    return strncmp(whole, folder, strlen(folder)) == 0;
}

/* Whether this operation, which frees space or needs some, shall find the disk full. */
static int due(int frees) {
    if (action >= FULL_ONCE && frees) return 0;
    long now = __sync_add_and_fetch(&counted, 1);
    if (action == KILL_BEFORE && now == wanted) kill(getpid(), SIGKILL);
    return (action == FULL_ONCE && now == wanted) || (action == FULL_FROM && now >= wanted);
}

static int is_now(int what) { return action == what && counted == wanted; }

static void done(void) {
    if (is_now(KILL_AFTER) || is_now(KILL_AMID)) kill(getpid(), SIGKILL);
}

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define GUARDED(parent, path, frees, call)                   \
    do {                                                     \
        if (!inside(parent, path)) return call;              \
        if (due(frees)) { errno = error_number; return -1; } \
        __typeof__(call) result = call;                      \
        done();                                              \
        return result;                                       \
    } while (0)
#define OPEN(call)                                                                                    \
    va_list rest; va_start(rest, flags);                                                              \
    mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0; va_end(rest);                           \
    if (!(flags & (O_WRONLY | O_RDWR | O_CREAT))) return call

int open(const char *path, int flags, ...) {
    REAL(open);
    OPEN(real(path, flags, mode));
    GUARDED(AT_FDCWD, path, 0, real(path, flags, mode));
}
int open64(const char *path, int flags, ...) {
    REAL(open64);
    OPEN(real(path, flags, mode));
    GUARDED(AT_FDCWD, path, 0, real(path, flags, mode));
}
int openat(int parent, const char *path, int flags, ...) {
    REAL(openat);
    OPEN(real(parent, path, flags, mode));
    GUARDED(parent, path, 0, real(parent, path, flags, mode));
}
int openat64(int parent, const char *path, int flags, ...) {
    REAL(openat64);
    OPEN(real(parent, path, flags, mode));
    GUARDED(parent, path, 0, real(parent, path, flags, mode));
}
ssize_t write(int file, const void *bytes, size_t count) {
    REAL(write);
    if (!inside(file, NULL)) return real(file, bytes, count);
    if (due(0)) { errno = error_number; return -1; }
    ssize_t result = real(file, bytes, is_now(KILL_AMID) ? count / 2 : count);
    done();
    return result;
}
ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t at) {
    REAL(pwrite64);
    GUARDED(file, NULL, 0, real(file, bytes, count, at));
}
int fsync(int file) {
    REAL(fsync);
    GUARDED(file, NULL, 0, real(file));
}
int ftruncate64(int file, off64_t size) {
    REAL(ftruncate64);
    GUARDED(file, NULL, 0, real(file, size));
}
int rename(const char *from, const char *to) {
    REAL(rename);
    GUARDED(AT_FDCWD, to, 0, real(from, to));
}
int linkat(int from_parent, const char *from, int parent, const char *to, int flags) {
    REAL(linkat);
    GUARDED(parent, to, 0, real(from_parent, from, parent, to, flags));
}
int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    GUARDED(AT_FDCWD, path, 0, real(path, mode));
}
int unlink(const char *path) {
    REAL(unlink);
    GUARDED(AT_FDCWD, path, 1, real(path));
}
int rmdir(const char *path) {
    REAL(rmdir);
    GUARDED(AT_FDCWD, path, 1, real(path));
}
int unlinkat(int parent, const char *path, int flags) {
    REAL(unlinkat);
    GUARDED(parent, path, 1, real(parent, path, flags));
}
