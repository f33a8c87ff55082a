"""Archive a tree on the nodes of a SLURM cluster; to be run where jobs may be submitted."""

import argparse
import sys

from dask_jobqueue import SLURMCluster
from distributed import Client, Security

from mrcz.archive.archiving import Archiving
from mrcz.archive.dask import DaskExecutor
from mrcz.archive.task import Options


def cluster(shared):
    """Jobs of 8 processes and 4 hours, as many as there is work for, and 10 at most."""
    jobs = SLURMCluster(
        queue="cpu",  # --partition
        account="cryoem",
        cores=8,
        processes=8,  # a file each, on one core
        memory="16GB",
        walltime="04:00:00",
        # A worker ends by itself, between two files, 10 to 20 minutes before SLURM would kill it.
        worker_extra_args=["--lifetime", "225m", "--lifetime-stagger", "5m", "--memory-limit", "0"],
        # Whoever reaches a scheduler's port may run programs as you: certificates of this run alone keep others out.
        protocol="tls://",
        security=Security.temporary(),
        shared_temp_directory=shared,  # for these certificates: a folder that the nodes see, and only you may read
        scheduler_options={"dashboard": False},
        log_directory=f"{shared}/logs",
    )
    jobs.adapt(minimum_jobs=1, maximum_jobs=10)
    return jobs


def archive(source, destination, client):
    """What is not in the archive yet goes there; true if all of it does."""
    options = Options()
    with Archiving(source, destination, options=options) as run:
        run.clean_up()
        outline = run.plan()
        try:
            with DaskExecutor(client, top=run.top, root=run.root, options=options) as executor:
                run.work(outline, executor, told=lambda record: print(record.event, record.source, record.error))
        finally:
            outline.close()
        run.write_bags()
    return run.outcome.ok


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source")
    parser.add_argument("destination")
    parser.add_argument("--shared", required=True, help="a folder of yours that this machine and the nodes see")
    arguments = parser.parse_args()
    with cluster(arguments.shared) as jobs, Client(jobs) as client:
        sys.exit(0 if archive(arguments.source, arguments.destination, client) else 1)
