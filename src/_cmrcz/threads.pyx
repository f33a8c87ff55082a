"""Work shared out to threads: a job holds what they share and a counter, of which each takes the next piece of work.

The threads are the system's own, unknown to Python: they start in a fraction of the time of Python's, which counts
where a single frame is shared out, and never ask for the GIL, which the caller gives up once. They are made for the
call and gone after it, so nothing is shared between calls, fork is safe, and no thread pool of another library is
disturbed.
"""
from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free

from _cmrcz.platform cimport mz_store, mz_thread, mz_thread_join, mz_thread_start, mz_work
from _cmrcz.status cimport BAD_HASH, OK

from _cmrcz.status import error_for


cdef void work_of(Job job, int thread) noexcept nogil:
    """What each thread calls; the job is the caller's, who waits."""
    job.work(thread)


cdef class Job:
    """What the threads of one call share. A kind of work is a class of its own, which says what `work` is."""

    cdef int allocate(self, int n_threads) except -1:
        self.n_threads = n_threads
        self.failures = <Failure *> calloc(n_threads, sizeof(Failure))
        if self.failures is NULL:
            raise MemoryError("no memory for the threads' state")
        return 0

    def __dealloc__(self):
        free(self.failures)

    cdef void work(self, int thread) noexcept nogil:
        """Take pieces of work until none is left or a thread has failed."""

    cdef void fail(self, int thread, int status, int64_t frame, const Finding *why) noexcept nogil:
        self.failures[thread].status = status
        self.failures[thread].frame = frame
        self.failures[thread].why = why[0]
        mz_store(&self.stop, 1)

    cdef int run(self, int n_threads, int64_t first) except -1:
        """Work from the first piece on, on n_threads threads, this one among them, and wait for all; then `check`.

        Fewer threads work if the system has no more.
        """
        cdef mz_thread *threads = <mz_thread *> calloc(n_threads, sizeof(mz_thread))
        cdef int i
        if threads is NULL:
            raise MemoryError("no memory for the threads")
        self.next = 0
        for i in range(1, n_threads):
            threads[i].work = <mz_work> <void *> work_of
            threads[i].job = <void *> self
            threads[i].number = i
        with nogil:
            for i in range(1, n_threads):
                mz_thread_start(&threads[i])
            self.work(0)
            for i in range(1, n_threads):
                mz_thread_join(&threads[i])
        free(threads)
        return self.check(first)

    cdef int check(self, int64_t first) except -1:
        """Raise the failure of the lowest frame, if any, `first` being frame 0; a wrong hash says more than what it
        led to."""
        cdef int best = -1, i
        for i in range(self.n_threads):
            if self.failures[i].status != OK and (
                best < 0 or self.failures[i].frame < self.failures[best].frame
                or (self.failures[i].frame == self.failures[best].frame and self.failures[i].status == BAD_HASH)
            ):
                best = i
        if best >= 0:
            f = self.failures[best]
            raise error_for(f.status, f.frame + first, f.why.found, f.why.expected)
        return 0
