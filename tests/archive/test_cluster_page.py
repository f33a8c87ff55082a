"""The scripts of docs/archive-cluster.md: what they ask SLURM for, and that they archive, without a SLURM."""

import gc
import importlib.util
import os
import re
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("dask_jobqueue")
pytest.importorskip("distributed")

import mrcz
from mrcz.archive.journal import read_journal

DOCS = Path(__file__).resolve().parents[2] / "docs"
EXAMPLES = DOCS / "examples"

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="SLURM is of Unix"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("archive_slurm", EXAMPLES / "archive_slurm.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(tmp_path):
    for number in range(6):
        path = tmp_path / "source" / f"grid {number % 2}" / f"movie {number}.mrc"
        path.parent.mkdir(parents=True, exist_ok=True)
        mrcz.write(path, np.random.default_rng(number).poisson(1, (3, 64, 64)).astype(np.uint8), sync=False)
    return tmp_path


def check_archive(folder):
    records = [one for one in read_journal(folder / "archive/mrcz-archive/journal.jsonl") if one.event == "stored"]
    assert len(records) == 6
    for record in records:
        with mrcz.open(folder / "archive" / record.path) as stored:
            assert np.array_equal(stored[:], mrcz.read(folder / "source" / record.source))
    return {record.worker for record in records}


def test_the_page_shows_the_scripts():
    page = (DOCS / "archive-cluster.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert [text for kind, text in blocks if kind == "python"] == [
        (EXAMPLES / name).read_text(encoding="utf-8") for name in ("archive_slurm.py", "archive_srun.py")
    ]
    assert [text for kind, text in blocks if kind == "bash"] == [(EXAMPLES / "archive.sbatch").read_text("utf-8")]


def test_what_slurm_is_asked_for(script, tmp_path):
    jobs = script.cluster(str(tmp_path))
    try:
        text = jobs.job_script()
    finally:
        jobs.close()
        del jobs
        with warnings.catch_warnings():  # dask-jobqueue leaves files of certificates open, in a circle
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
    for line in ("#SBATCH -p cpu", "#SBATCH -A cryoem", "#SBATCH --cpus-per-task=8", "#SBATCH -t 04:00:00"):
        assert line in text, text
    assert re.search(r"distributed.cli.dask_worker tls://\S+ ", text)
    assert "--nworkers 8" in text and "--nthreads 1" in text and "--tls-ca-file" in text
    lifetime, stagger = (int(re.search(rf"--{name} (\d+)m", text)[1]) for name in ("lifetime", "lifetime-stagger"))
    hours, minutes, _ = map(int, re.search(r"#SBATCH -t (\d+):(\d+):(\d+)", text).groups())
    assert lifetime + stagger <= 60 * hours + minutes - 10


def test_the_script_with_a_cluster_here(script, tree):
    import distributed

    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs=50
        ) as here,
        distributed.Client(here, set_as_default=False) as client,
    ):
        assert script.archive(tree / "source", tree / "archive", client)
        check_archive(tree)
        assert script.archive(tree / "source", tree / "archive", client)
        check_archive(tree)


def test_the_processes_that_srun_starts(tree):
    """The four processes, with the environment that SLURM gives them."""
    folder = tree / "job"
    folder.mkdir()
    environment = {
        **os.environ,
        "SLURM_NTASKS": "4",
        "SLURM_JOB_ID": "17",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(EXAMPLES), os.environ.get("PYTHONPATH")])),
        "DASK_DISTRIBUTED__SCHEDULER__DASHBOARD__STATUS__TASK_STREAM_LENGTH": "1",
    }
    command = [sys.executable, str(EXAMPLES / "archive_srun.py"), str(tree / "source"), str(tree / "archive")]
    processes = [
        subprocess.Popen(
            command,
            cwd=folder,
            env={**environment, "SLURM_PROCID": str(number)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(4)
    ]
    try:
        outputs = [process.communicate(timeout=60)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert processes[1].returncode == 0, outputs[1]
    assert [process.returncode for process in processes] == [0, 0, 0, 0], outputs
    assert outputs[1].count("stored grid") == 6
    workers = {int(name.split(":")[1]) for name in check_archive(tree)}
    assert workers <= {processes[2].pid, processes[3].pid}
    assert all(name.split(":")[0] == socket.gethostname() for name in check_archive(tree))
