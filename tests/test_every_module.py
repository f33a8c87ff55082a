"""Where each module is tested: in a file of its name, or in the one that is named here."""

from pathlib import Path

import mrcz

SOURCES = Path(mrcz.__file__).parent
TESTS = Path(__file__).parent

# Modules that have no file of their name, because what they do is seen through another: tests in the folder of the
# module, or from ``tests/`` on.
ELSEWHERE = {
    "__main__": "test_package",
    "_version": "test_package",
    "archive/admission": "test_dask",
    "archive/batch": "test_plan",
    "archive/giving": "test_restoring",
    "archive/estimating": "cli/test_archive",
    "archive/jobs": "test_run",
    "archive/opening": "cli/test_archive_reading",
    "archive/task": "test_store",
    "check/origin": "cli/test_replacing",
    "cli/_archive_places": "test_archive",
    "cli/_archive_reading": "test_archive_reading",
    "cli/_build": "test_help",
    "cli/_man": "test_help",
    "cli/_pipes": "test_tomography",
    "cli/_progress": "test_text",
    "cli/_shared": "test_commands",
    "cli/_shells": "test_help",
    "cli/cmrcz": "test_commands",
    "convert/source": "test_copy",
    "cli/completion": "test_help",
    "cli/compress": "test_commands",
    "cli/correct": "test_correcting",
    "cli/decompress": "test_commands",
    "cli/demo": "test_showing",
    "cli/header": "file/test_editing",
    "cli/info": "test_showing",
    "cli/man": "test_help",
    "cli/restore": "test_archive_reading",
    "container/header/fields": "test_build",
    "convert/judging": "cli/test_replacing",
    "convert/proof": "test_copy",
    "convert/xarray": "file/test_arrays",
    "convert/zarr": "file/test_arrays",
    "correct/_event_tests": "test_events",
    "correct/_light": "test_gain",
    "correct/_pattern": "test_koma",
    "correct/_stack": "test_files",
    "correct/event_model": "test_events",
    "correct/gamma": "test_gain",
    "correct/plots": "test_measures",
    "correct/posterior": "test_statistics",
    "correct/selecting": "test_outliers",
    "correct/thresholds": "test_outliers",
    "errors": "malformed/test_headers",
    "formats/told": "file/test_acquisition",
    "formats/_eer_metadata": "test_eer",
    "formats/_tiff_decoding": "test_tiff",
    "formats/_tiff_metadata": "test_tiff",
    "formats/_tiff_pages": "test_tiff",
    "formats/_tiff_tags": "test_tiff",
    "formats/base": "test_registry",
    "formats/metadata": "test_registry",
    "file/appending": "test_container",
    "file/batches": "test_writer",
    "file/beginning": "test_writer",
    "file/changing": "test_editing",
    "file/claims": "malformed/test_hostile",
    "file/codec": "test_calls",
    "file/decoding": "test_opening",
    "file/foreign": "formats/test_registry",
    "file/growing": "property/test_growth",
    "file/mrcfile_names": "test_mrcfile_page",
    "file/original": "convert/test_copy",
    "file/reader": "test_opening",
    "file/reducing": "property/test_like_numpy",
    "container/header/words": "test_spelt_out",
    "file/salvage": "property/test_killed_append",
    "file/selecting": "property/test_like_numpy",
    "file/storing": "test_container",
    "file/sums": "property/test_like_numpy",
    "file/wrong_names": "test_mrcfile_page",
    "formats/_beside": "test_seq",
    "formats/_dm_tags": "test_dm",
    "formats/_xml": "test_ser",
    "convert/gain_store": "test_integers",
    "correct/_finding_gain": "test_integers",
    "file/gains": "convert/test_integers",
    "file/restoring": "convert/test_integers",
    "formats/_h5chunks": "test_hdf5",
    "formats/_h5file": "test_hdf5",
    "formats/_h5stack": "test_hdf5",
    "formats/_h5texts": "test_hdf5",
    "formats/_h5write": "test_hdf5_write",
    "formats/_units": "test_hdf5",
    "formats/_words": "test_emd",
    "formats/_zarrwrite": "test_zarr",
    "ioMRC": "legacy/test_surface",
    "legacy/background": "test_surface",
    "legacy/header": "test_surface",
    "mount/background": "test_mounted",
    "mount/fuse": "test_mounted",
    "mount/libfuse": "test_mounted",
    "mount/plain": "test_tree",
    "mount/readahead": "test_mount",
    "session/correct": "cli/test_correcting",
    "session/references": "correct/test_defects",
    "simulate/detector": "correct/test_simulate",
    "simulate/specimens": "correct/test_simulated_scenes",
    "storage/http": "test_remote",
    "storage/source": "file/test_opening",
}


def modules():
    """Of the package, as paths without a suffix."""
    for path in sorted(SOURCES.rglob("*.py")):
        if path.name != "__init__.py":
            yield path.relative_to(SOURCES).with_suffix("")


def own_tests(module):
    """Files of the name of a module: in the same folder of the tests, or, where tests have another place, anywhere."""
    name = f"test_{module.name.lstrip('_')}.py"
    return [path for path in (TESTS / module.parent / name, TESTS / name, *TESTS.glob(f"*/{name}")) if path.is_file()]


def place(module):
    """The file that tests a module; None where nobody says."""
    if own := own_tests(module):
        return own[0]
    named = ELSEWHERE.get(module.as_posix())
    if named is None:
        return None
    here, there = TESTS / module.parent / f"{named}.py", TESTS / f"{named}.py"
    return here if here.is_file() else there


def test_every_module_is_tested_somewhere():
    places = {str(module): place(module) for module in modules()}
    assert len(places) > 100
    assert {module for module, where in places.items() if where is None or not where.is_file()} == set()


def test_the_list_names_no_module_that_is_gone():
    assert set(ELSEWHERE) <= {module.as_posix() for module in modules()}
