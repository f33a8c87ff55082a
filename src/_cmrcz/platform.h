/* What differs between operating systems: positioned file I/O, atomics, threads, giving up the processor. */
#ifndef MZ_PLATFORM_H
#define MZ_PLATFORM_H
#include <errno.h>
#include <stddef.h>
#include <stdint.h>

#define MZ_STACK ((size_t)8 << 20)

#if defined(_WIN32)
#include <io.h>
#include <windows.h>
static inline int64_t mz_transfer(int fd, void *buf, size_t n, int64_t offset, int writing) {
    HANDLE h = (HANDLE)_get_osfhandle(fd);
    size_t done = 0;
    while (done < n) {
        OVERLAPPED at = {0};
        DWORD got = 0, want = (DWORD)(n - done < (1u << 30) ? n - done : (1u << 30));
        uint64_t o = (uint64_t)offset + done;
        at.Offset = (DWORD)o;
        at.OffsetHigh = (DWORD)(o >> 32);
        BOOL ok = writing ? WriteFile(h, (char *)buf + done, want, &got, &at) : ReadFile(h, (char *)buf + done, want, &got, &at);
        if (!ok && !writing && GetLastError() == ERROR_HANDLE_EOF) break;
        if (!ok) return GetLastError() == ERROR_DISK_FULL ? -ENOSPC : -EIO;
        if (!got) break;
        done += got;
    }
    return (int64_t)done;
}
static inline void mz_yield(unsigned spins) { if (spins < 64) SwitchToThread(); else Sleep(1); }
#else
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>
static inline int64_t mz_transfer(int fd, void *buf, size_t n, int64_t offset, int writing) {
    size_t done = 0;
    while (done < n) {
        size_t want = n - done < ((size_t)1 << 30) ? n - done : (size_t)1 << 30;
        ssize_t got = writing ? pwrite(fd, (char *)buf + done, want, offset + (int64_t)done)
                              : pread(fd, (char *)buf + done, want, offset + (int64_t)done);
        if (got < 0) {
            if (errno == EINTR) continue;
            return -(int64_t)errno;
        }
        if (got == 0) break;
        done += (size_t)got;
    }
    return (int64_t)done;
}
static inline void mz_yield(unsigned spins) {
    if (spins < 64) sched_yield();
    else {
        struct timespec t = {0, 50000};
        nanosleep(&t, NULL);
    }
}
#endif

/* Bytes transferred (fewer than n at the end of the file or a full disk that reports no error), or -errno. */
static inline int64_t mz_pread(int fd, void *buf, size_t n, int64_t offset) { return mz_transfer(fd, buf, n, offset, 0); }
static inline int64_t mz_pwrite(int fd, const void *buf, size_t n, int64_t offset) {
    return mz_transfer(fd, (void *)buf, n, offset, 1);
}

#if defined(_MSC_VER) && !defined(__clang__)
static inline int64_t mz_fetch_add(volatile int64_t *p, int64_t v) { return InterlockedExchangeAdd64(p, v); }
static inline int64_t mz_load(volatile int64_t *p) { return InterlockedExchangeAdd64(p, 0); }
static inline void mz_store(volatile int64_t *p, int64_t v) { InterlockedExchange64(p, v); }
#else
static inline int64_t mz_fetch_add(volatile int64_t *p, int64_t v) { return __atomic_fetch_add(p, v, __ATOMIC_ACQ_REL); }
static inline int64_t mz_load(volatile int64_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static inline void mz_store(volatile int64_t *p, int64_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
#endif

/* A thread of the system, unknown to Python: it starts in a fraction of the time and never asks for the GIL. */
typedef void (*mz_work)(void *job, int thread);
typedef struct {
    mz_work work;
    void *job;
    int number;
    int started;
#if defined(_WIN32)
    HANDLE handle;
#else
    pthread_t handle;
#endif
} mz_thread;

#if defined(_WIN32)
static inline DWORD WINAPI mz_enter(LPVOID p) {
    mz_thread *t = (mz_thread *)p;
    t->work(t->job, t->number);
    return 0;
}
static inline void mz_thread_start(mz_thread *t) {
    t->handle = CreateThread(NULL, MZ_STACK, mz_enter, t, 0, NULL);
    t->started = t->handle != NULL;
}
static inline void mz_thread_join(mz_thread *t) {
    if (!t->started) return;
    WaitForSingleObject(t->handle, INFINITE);
    CloseHandle(t->handle);
}
#else
static inline void *mz_enter(void *p) {
    mz_thread *t = (mz_thread *)p;
    t->work(t->job, t->number);
    return NULL;
}
static inline void mz_thread_start(mz_thread *t) {
    pthread_attr_t attributes;
    sigset_t all, before;
    t->started = 0;
    if (pthread_attr_init(&attributes)) return;
    pthread_attr_setstacksize(&attributes, MZ_STACK);
    /* Signals are for the threads of Python. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    t->started = pthread_create(&t->handle, &attributes, mz_enter, t) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
}
static inline void mz_thread_join(mz_thread *t) {
    if (t->started) pthread_join(t->handle, NULL);
}
#endif
#endif
