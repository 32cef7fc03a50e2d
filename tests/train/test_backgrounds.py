from pathlib import Path

import numpy as np

from raypipe.phantom import PhantomSpec, make_phantom
from raypipe.phantom.nifti_writer import write_nifti
from raypipe.train.backgrounds import fill, fitting_labels, load_volumes, measure_background
from raypipe.train.synthesis import SynthesisConfig, make_store


def _write(folder: Path) -> None:
    spec = PhantomSpec(
        region="chest", shape_zyx=(16, 128, 128), spacing_zyx_mm=(6.0, 3.0, 3.0), lesions=0, seed=8
    )
    write_nifti(make_phantom(spec), folder / "chest.nii.gz")


def test_lesions_are_inserted_into_ct_from_files(tmp_path: Path) -> None:
    _write(tmp_path)
    (volume,) = load_volumes(str(tmp_path))
    background = measure_background(volume)
    labels = fitting_labels(background.organs)
    assert "pulmonary_nodule" in labels and "brain_infarct" not in labels
    filled = fill(background, np.random.default_rng(0))
    assert filled.lesions
    changed = filled.volume.hu != volume.hu
    assert changed.any() and changed.mean() < 0.5
    for number, lesion in enumerate(filled.lesions, start=1):
        assert (filled.lesion_map == number).sum() == lesion.voxels
        assert lesion.label in labels


def test_a_store_of_backgrounds(tmp_path: Path) -> None:
    _write(tmp_path)
    config = SynthesisConfig(
        phantom_series=0, backgrounds=(str(tmp_path),), insertions_per_background=2
    )
    store = make_store(tmp_path / "store", config)
    assert len(store) > 4 and len(set(store.series.tolist())) == 1
    assert len(store.labels) > 0
    assert not store.regions.any()  # an estimate does not tell which part of a torso it is
