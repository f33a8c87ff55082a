"""RELION, where it is installed, reads compressed files through a mount as it reads plain ones."""

import shutil
import subprocess

import numpy as np
import pytest
from mount.mounting import Mounted, folder, fuse, nothing_stays_mounted

import mrcz

__all__ = ["folder", "nothing_stays_mounted"]  # fixtures


@fuse
@pytest.mark.skipif(shutil.which("relion_image_handler") is None, reason="needs relion")
def test_relion_statistics(folder, tmp_path):
    mrcz.write(tmp_path / "movie.mrcs", mrcz.read(folder / "movie.mrcz"), pixel_size=1.25)

    def stats(path):
        done = subprocess.run(
            ["relion_image_handler", "--i", str(path), "--stats"], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return [line.split(" : ")[1] for line in done.stdout.splitlines() if " : " in line]

    with Mounted(folder, tmp_path / "plain") as mounted:
        shown = stats(mounted.point / "movie.mrcs")
    assert len(shown) == 5 and shown == stats(tmp_path / "movie.mrcs")


@fuse
@pytest.mark.skipif(shutil.which("relion_run_motioncorr") is None, reason="needs relion")
def test_relion_motion_correction(tmp_path, rng):
    archive = tmp_path / "archive"
    archive.mkdir()
    # Something to align: blobs that drift a pixel a frame.
    scene = rng.poisson(0.3, (160, 176)).astype(np.float64)
    for y, x in rng.integers(30, 130, (30, 2)):
        scene[y : y + 6, x : x + 6] += 3
    movie = np.stack([rng.poisson(np.roll(scene, (k, -k), (0, 1))[:128, :144]) for k in range(6)]).astype(np.uint8)
    mrcz.write(archive / "movie.mrcz", movie, pixel_size=1.0)
    mrcz.write(tmp_path / "movie.mrcs", movie, pixel_size=1.0)

    def correct(name, movie_path):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "movie.mrcs").symlink_to(movie_path)
        (folder / "movies.star").write_text(
            "data_optics\n\nloop_\n_rlnOpticsGroupName #1\n_rlnOpticsGroup #2\n_rlnMicrographOriginalPixelSize #3\n"
            "_rlnVoltage #4\n_rlnSphericalAberration #5\n_rlnAmplitudeContrast #6\n"
            "opticsGroup1 1 1.0 300 2.7 0.1\n\ndata_movies\n\nloop_\n_rlnMicrographMovieName #1\n_rlnOpticsGroup #2\n"
            "movie.mrcs 1\n"
        )
        done = subprocess.run(
            [
                "relion_run_motioncorr",
                "--i",
                "movies.star",
                "--o",
                "out/",
                "--use_own",
                "--j",
                "1",
                "--patch_x",
                "1",
                "--patch_y",
                "1",
                "--bfactor",
                "150",
                "--dose_per_frame",
                "1",
                "--only_do_unfinished",
            ],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        found = sorted((folder / "out").rglob("movie.mrc"))
        assert found, done.stdout + done.stderr
        return mrcz.read(found[0])

    with Mounted(archive, tmp_path / "plain") as mounted:
        through = correct("mounted", mounted.point / "movie.mrcs")
    assert np.array_equal(through, correct("direct", tmp_path / "movie.mrcs"))
