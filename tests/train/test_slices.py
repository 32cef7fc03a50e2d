import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from raypipe.errors import ConfigError
from raypipe.phantom import PhantomSpec, make_phantom, write_dicom
from raypipe.train.slices import SliceFolder, read_folder, split
from raypipe.train.slices_config import SplitConfig
from raypipe.volume.preprocess import PreprocessConfig
from tests.train.slice_folder import write_folder

RUNS = (range(1, 9), range(9, 12), range(20, 31), range(40, 58))
"""Two bodies in one unbroken row of numbers, then two that stand apart: 40 pictures a class."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> SliceFolder:
    source = write_folder(tmp_path_factory.mktemp("classes"), ("Cyst", "Normal"), RUNS)
    return read_folder(str(source), tmp_path_factory.mktemp("store"))


def test_every_picture_has_its_class_its_number_and_itself_as_neighbour(
    folder: SliceFolder,
) -> None:
    assert folder.classes == ("Cyst", "Normal")
    assert np.bincount(folder.label_s).tolist() == [40, 40]
    assert folder.number_s[:40].tolist() == [n for run in RUNS for n in run]  # 9 before 10
    assert (folder.below_above_s2 == np.arange(80)[:, None]).all()
    assert folder.fingerprint == PreprocessConfig().fingerprint
    assert folder.hu.shape == (80, 256, 256)
    assert folder.hu.min() == -160 and folder.hu.max() <= 240


def test_slices_of_a_series_know_their_neighbours(tmp_path: Path) -> None:
    for seed, name in enumerate(("a", "b")):
        for series in range(2):
            spec = PhantomSpec(
                region="head", shape_zyx=(4, 64, 64), spacing_zyx_mm=(5, 4, 4), lesions=(),
                seed=10 * seed + series,
            )  # fmt: skip
            write_dicom(make_phantom(spec), tmp_path / "in" / name / str(series))
    found = read_folder(str(tmp_path / "in"), tmp_path / "store")
    assert found.below_above_s2[:4].tolist() == [[0, 1], [0, 2], [1, 3], [2, 3]]
    np.testing.assert_array_equal(found.stack(1), found.hu[[0, 1, 2]])
    assert np.diff(found.number_s[:8])[3] > 1000  # two series never follow each other
    parts = split(found, SplitConfig(whole_runs=True, validation=0.0, test=0.5, gap=100))
    assert len(parts.train) == len(parts.test) == 8


@pytest.mark.parametrize("whole_runs", [False, True])
def test_parts_are_apart_by_more_than_the_gap(folder: SliceFolder, whole_runs: bool) -> None:
    config = SplitConfig(blocks=10, gap=2, whole_runs=whole_runs)
    parts = split(folder, config)
    sides = (parts.train, parts.validation, parts.test)
    assert all(len(side) for side in sides)
    assert len(np.unique(np.concatenate(sides))) == sum(map(len, sides))
    for i, one in enumerate(sides):
        for other in sides[i + 1 :]:
            same = folder.label_s[one][:, None] == folder.label_s[other][None, :]
            away = np.abs(folder.number_s[one][:, None] - folder.number_s[other][None, :])
            assert (away[same] > 2).all()


def test_blocks_reach_their_shares_in_every_class(folder: SliceFolder) -> None:
    parts = split(folder, SplitConfig(blocks=10, gap=0))
    for part, count in ((parts.train, 28), (parts.validation, 4), (parts.test, 8)):
        assert np.bincount(folder.label_s[part]).tolist() == [count, count]


def test_a_run_is_never_cut_where_runs_are_whole(folder: SliceFolder) -> None:
    parts = split(folder, SplitConfig(whole_runs=True, gap=0))
    run_s = np.cumsum(np.diff(folder.number_s, prepend=-9) != 1)
    sides = [set(run_s[part]) for part in (parts.train, parts.validation, parts.test)]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 6  # three in each class


def test_the_seed_alone_decides_the_parts(folder: SliceFolder) -> None:
    one, same, other = (split(folder, SplitConfig(blocks=10, seed=s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(one.test, same.test)
    assert not np.array_equal(one.test, other.test)


@pytest.mark.parametrize("runs", [(45, 25, 30), (10, 10, 10)])
def test_every_part_gets_a_run_where_there_are_as_many_runs_as_parts(
    runs: tuple[int, ...], folder: SliceFolder
) -> None:
    starts = np.cumsum((0, *runs)) + 50 * np.arange(len(runs) + 1)
    few = SliceFolder(folder.folder)
    few.classes = ("Cyst",)
    few.number_s = np.concatenate([np.arange(n) + a for a, n in zip(starts, runs, strict=False)])
    few.label_s = np.zeros(len(few.number_s), np.int64)
    few.hu = np.zeros((len(few.number_s), 1, 1), np.int16)
    for seed in range(6):
        parts = split(
            few, SplitConfig(whole_runs=True, test=0.55, validation=0.25, gap=0, seed=seed)
        )
        assert sorted(map(len, (parts.train, parts.validation, parts.test))) == sorted(runs)


def test_a_gap_that_leaves_a_part_nothing_is_refused(folder: SliceFolder) -> None:
    with pytest.raises(ConfigError, match=r"gap of 50 leaves class 'Cyst' no slice for training"):
        split(folder, SplitConfig(blocks=5, gap=50))


def test_a_series_whose_files_lie_in_two_classes_is_refused(tmp_path: Path) -> None:
    """Its slices would all get the class of the first one."""
    for seed in range(2):
        spec = PhantomSpec(
            region="head", shape_zyx=(4, 64, 64), spacing_zyx_mm=(5, 4, 4), lesions=(), seed=seed
        )
        write_dicom(make_phantom(spec), tmp_path / "in" / f"class{seed}")
    first = sorted((tmp_path / "in" / "class0").iterdir())[0]
    first.rename(tmp_path / "in" / "class1" / "moved.dcm")
    with pytest.raises(ConfigError, match="one series has files in class0 and class1"):
        read_folder(str(tmp_path / "in"), tmp_path / "store")


def test_a_zip_counts_as_a_folder_and_names_need_not_be_utf_8(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "in", ("Cyst", "Normal"), (range(2),))
    packed = shutil.make_archive(str(tmp_path / "all"), "zip", source)
    assert read_folder(packed, tmp_path / "zipped").classes == ("Cyst", "Normal")
    old = os.fsdecode(b"Gr\xf6\xdfe (7).png")
    (source / "Cyst" / "Cyst- (0).png").rename(source / "Cyst" / old)
    found = read_folder(str(source), tmp_path / "store")
    assert found.number_s.tolist() == [1, 7, 0, 1]


def test_too_few_blocks_are_refused(folder: SliceFolder) -> None:
    with pytest.raises(ConfigError, match="'Cyst' has 2 block"):
        split(folder, SplitConfig(blocks=2))
    with pytest.raises(ValueError, match="leave a share"):
        SplitConfig(validation=0.5, test=0.5)


def test_folders_that_hold_no_classes_are_refused(tmp_path: Path) -> None:
    one = write_folder(tmp_path / "one", ("Cyst",), (range(2),))
    with pytest.raises(ConfigError, match="at least two classes"):
        read_folder(str(one), tmp_path / "store")
    picture = one / "Cyst" / "Cyst- (0).png"
    picture.rename(one / "0.png")
    with pytest.raises(ConfigError, match=r"0\.png lies beside the classes"):
        read_folder(str(one), tmp_path / "store")
    (one / "Normal").mkdir()
    (one / "0.png").rename(one / "Normal" / "nameless.png")
    for name in ("nameless.png", "1.2.826.0.1.3680043.8.498.45787841905473114233124723359.png"):
        next((one / "Normal").iterdir()).rename(one / "Normal" / name)
        with pytest.raises(ConfigError, match=rf"{name} holds no number of a slice"):
            read_folder(str(one), tmp_path / "store")
