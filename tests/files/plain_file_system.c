/* A file system without hard links, locks, modes, times and synced folders, for the process that preloads this. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>

static int refused(int number) { errno = number; return -1; }

int link(const char *a, const char *b) { return refused(EPERM); }
int linkat(int a, const char *b, int c, const char *d, int e) { return refused(EPERM); }
int flock(int descriptor, int operation) { return refused(ENOLCK); }
int chmod(const char *path, mode_t mode) { return refused(EPERM); }
int fchmod(int descriptor, mode_t mode) { return refused(EPERM); }
int fchmodat(int a, const char *b, mode_t mode, int flags) { return refused(EPERM); }
int utimensat(int a, const char *b, const struct timespec times[2], int flags) { return refused(EPERM); }
int futimens(int descriptor, const struct timespec times[2]) { return refused(EPERM); }

int fsync(int descriptor) {
    struct stat found;
    if (fstat(descriptor, &found) == 0 && S_ISDIR(found.st_mode)) return refused(EINVAL);
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    return next(descriptor);
}
