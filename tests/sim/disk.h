/*
 * What the journal believes to be a disk and a thread: forced in front of its sources.
 *
 * The disk is memory that knows, per file, what was synced. The thread is a second stack in the same thread: it
 * gives way where the real one would wait, and before system calls if the schedule says so.
 */
#ifndef TESTS_SIM_DISK_H
#define TESTS_SIM_DISK_H

#include "names.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

int sim_open(const char *path, int flags, ...);
int sim_close(int fd);
ssize_t sim_read(int fd, void *data, size_t len);
ssize_t sim_pread(int fd, void *data, size_t len, off_t at);
ssize_t sim_preadv2(int fd, const struct iovec *iov, int n, off_t at, int flags);
ssize_t sim_pwrite(int fd, const void *data, size_t len, off_t at);
int sim_fdatasync(int fd);
int sim_fsync(int fd);
int sim_unlink(const char *path);
int sim_rename(const char *from, const char *to);
int sim_mkdir(const char *path, mode_t mode);
int sim_flock(int fd, int operation);
int sim_fstat(int fd, struct stat *out);
DIR *sim_opendir(const char *path);
struct dirent *sim_readdir(DIR *d);
int sim_closedir(DIR *d);

int sim_thread_create(pthread_t *t, const pthread_attr_t *attr, void *(*fn)(void *), void *arg);
int sim_thread_join(pthread_t t, void **result);
int sim_lock(pthread_mutex_t *m);
int sim_unlock(pthread_mutex_t *m);
int sim_cond_signal(pthread_cond_t *c);
int sim_cond_wait(pthread_cond_t *c, pthread_mutex_t *m);
int sim_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *until);

#ifdef SIM_ON_DISK
#define open sim_open
#define close sim_close
#define read sim_read
#define pread sim_pread
#define preadv2 sim_preadv2
#define pwrite sim_pwrite
#define fdatasync sim_fdatasync
#define fsync sim_fsync
#define unlink sim_unlink
#define rename sim_rename
#define mkdir sim_mkdir
#define flock sim_flock
#define fstat sim_fstat
#define opendir sim_opendir
#define readdir sim_readdir
#define closedir sim_closedir
#define pthread_create sim_thread_create
#define pthread_join sim_thread_join
#define pthread_mutex_lock sim_lock
#define pthread_mutex_unlock sim_unlock
#define pthread_cond_signal sim_cond_signal
#define pthread_cond_wait sim_cond_wait
#define pthread_cond_timedwait sim_cond_timedwait
#endif

#endif
