"""Archive a tree in one allocation of SLURM, with the processes that srun starts: scheduler, client and workers."""

import sys

from archive_slurm import archive
from dask_jobqueue.slurm import SLURMRunner
from distributed import Client

if __name__ == "__main__":
    with SLURMRunner(worker_options={"nthreads": 1, "memory_limit": 0}) as runner, Client(runner) as client:
        sys.exit(0 if archive(sys.argv[1], sys.argv[2], client) else 1)
