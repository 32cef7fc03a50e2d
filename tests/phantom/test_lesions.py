from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pytest
from scipy import ndimage

from raypipe.geometry import Geometry
from raypipe.knowledge.graph import load_graph
from raypipe.phantom import (
    KINDS,
    Organ,
    Phantom,
    PhantomSpec,
    estimate_noise,
    estimate_organs,
    insert_lesions,
    make_phantom,
    slice_boxes,
)
from raypipe.phantom.lesion_kinds import plan_lesion, severity
from raypipe.phantom.lesions import Inserted

ABDOMEN = {"region": "abdomen", "shape_zyx": (45, 80, 80), "spacing_zyx_mm": (5.0, 4.4, 4.4)}
HEAD = {
    "intracranial_haemorrhage", "subdural_haematoma", "brain_infarct"
}  # fmt: skip


def _spec(label: str, seed: int = 1, **changes: object) -> PhantomSpec:
    chosen: dict[str, object] = {
        "region": "head" if label in HEAD else "chest_abdomen",
        "shape_zyx": (40, 96, 96) if label in HEAD else (90, 96, 96),
        "spacing_zyx_mm": (4.0, 2.4, 2.4) if label in HEAD else (4.0, 3.6, 3.6),
        "noise_hu": 3.0 if label in HEAD else 8.0,
        "lesions": (label,),
        "seed": seed,
    }
    return PhantomSpec.model_validate(chosen | changes)


@lru_cache
def _background(spec: PhantomSpec) -> Phantom:
    return make_phantom(spec)


@pytest.mark.parametrize("label", sorted(KINDS))
def test_the_truth_of_every_kind_holds(label: str) -> None:
    spec = _spec(label)
    phantom = make_phantom(spec)
    assert len(phantom.lesions) == 1
    lesion = phantom.lesions[0]
    mask = phantom.lesion_map == 1
    found = np.argwhere(mask)
    assert lesion.label == label
    assert lesion.box_zyx.lower_zyx == tuple(found.min(axis=0))
    assert lesion.box_zyx.upper_zyx == tuple(found.max(axis=0) + 1)
    assert lesion.voxels == len(found)
    assert lesion.mean_hu == pytest.approx(float(phantom.volume.hu[mask].mean()), abs=1e-3)
    assert lesion.diameter_mm == max(phantom.volume.geometry.size_mm(lesion.box_zyx)[1:])
    # the same body without the lesion differs inside it by the stated contrast
    without = _background(spec.model_copy(update={"lesions": 0}))
    change = phantom.volume.hu[mask].astype(float) - without.volume.hu[mask]
    assert change.mean() == pytest.approx(
        lesion.contrast_hu, abs=6 + 0.05 * abs(lesion.contrast_hu)
    )
    assert abs(lesion.contrast_hu) > 4


@pytest.mark.parametrize("label", sorted(KINDS))
def test_attributes_are_values_of_the_knowledge_graph(label: str) -> None:
    allowed = load_graph().finding(label).attributes
    rng = np.random.default_rng(0)
    for _ in range(60):
        plan = plan_lesion(label, rng, subtle=None)
        assert plan.margin in allowed["margin"]
        assert plan.density in allowed["density"]
        assert plan.shape in allowed["shape"]
        assert severity(label, plan.diameter_mm) in allowed["severity"]


def test_sides_follow_the_patient() -> None:
    seen = set()
    for seed in range(4):
        phantom = make_phantom(_spec("renal_cyst", seed, **ABDOMEN))
        for lesion in phantom.lesions:
            assert lesion.side == ("left" if lesion.center_lps_mm[0] > 0 else "right")
            seen.add(lesion.side)
    assert seen == {"left", "right"}


def test_subtle_means_small_or_faint() -> None:
    small = [
        lesion
        for seed in range(3)
        for lesion in make_phantom(
            _spec("pulmonary_nodule", seed, region="chest", shape_zyx=(24, 96, 96), subtle=True)
        ).lesions
    ]
    assert small
    assert all(lesion.diameter_mm < 16 for lesion in small)
    faint = make_phantom(_spec("brain_infarct")).lesions[0]
    assert faint.subtle and abs(faint.contrast_hu) < 60


def test_a_lesion_that_is_darker_here_and_brighter_there_is_not_subtle() -> None:
    """A mass on the edge of a bright kidney: its mean difference from both together is small."""
    organs = np.full((30, 100, 100), Organ.ABDOMINAL_FAT, np.uint8)
    organs[:, :, 40:] = Organ.KIDNEY_LEFT
    hu = np.where(organs == Organ.KIDNEY_LEFT, np.float32(200.0), np.float32(-110.0))
    geometry = _block()
    cancelled = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        for lesion in insert_lesions(hu, geometry, organs, rng, labels=("renal_mass",)).lesions:
            assert not lesion.subtle
            cancelled += abs(lesion.contrast_hu) < 60
    assert cancelled


def test_lesions_do_not_overlap_and_are_counted() -> None:
    phantom = make_phantom(_spec("pulmonary_nodule", lesions=("pulmonary_nodule",) * 6))
    counts = np.bincount(phantom.lesion_map.ravel(), minlength=7)[1:]
    assert [lesion.voxels for lesion in phantom.lesions] == list(counts[: len(phantom.lesions)])
    assert len(phantom.lesions) >= 4


def test_slice_boxes_are_tight() -> None:
    phantom = make_phantom(_spec("liver_mass", 2))
    z = round(phantom.lesions[0].box_zyx.center_zyx[0])
    ((index, box),) = slice_boxes(phantom.lesion_map, z)
    rows, columns = np.nonzero(phantom.lesion_map[z] == 1)
    assert index == 0
    assert box.lower_zyx == (z, rows.min(), columns.min())
    assert box.upper_zyx == (z + 1, rows.max() + 1, columns.max() + 1)


def _block() -> Geometry:
    """30 slices of 3 mm, 100 x 100 pixels of 1.5 mm."""
    affine = np.diag([0.0, 0.0, 0.0, 1.0])
    affine[2, 0], affine[1, 1], affine[0, 2] = 3.0, 1.5, 1.5
    return Geometry(shape_zyx=(30, 100, 100), affine_zyx_to_lps=affine)


def _in_one_organ(
    organ: Organ, labels: Sequence[str], columns: int, seeds: range
) -> list[Inserted]:
    """Lesions in a block of one organ, air around it, on slices of 3 mm with pixels of 1.5 mm."""
    organs = np.full((30, 100, 100), Organ.AIR, np.uint8)
    organs[:, 10:90, 10 : 10 + columns] = organ
    hu = np.full(organs.shape, -850.0 if organ is Organ.LUNG_LEFT else 60.0, np.float32)
    geometry = _block()
    return [
        insert_lesions(hu, geometry, organs, np.random.default_rng(seed), labels=labels)
        for seed in seeds
    ]


def test_lung_lesions_are_named_by_their_size() -> None:
    for label in ("pulmonary_nodule", "lung_mass"):
        low, high = load_graph().finding(label).size_range_mm or (0.0, 0.0)
        found = [
            lesion
            for inserted in _in_one_organ(Organ.LUNG_LEFT, (label,), 80, range(25))
            for lesion in inserted.lesions
        ]
        assert len(found) > 15
        assert all(low <= lesion.diameter_mm <= high for lesion in found)


def test_spicules_are_seen_and_not_measured() -> None:
    spiculated = 0
    for inserted in _in_one_organ(Organ.LUNG_LEFT, ("lung_mass",), 80, range(25)):
        for lesion in inserted.lesions:
            if lesion.attributes["margin"] != "spiculated":
                continue
            spiculated += 1
            mask = inserted.lesion_map == 1
            around = ndimage.binary_dilation(mask, iterations=2)
            assert (inserted.hu[~around] > -700).any()
            for z in np.flatnonzero(mask.any(axis=(1, 2))):
                ((_, box),) = slice_boxes(inserted.lesion_map, int(z))
                filled = np.count_nonzero(mask[z]) / (box.size_zyx[1] * box.size_zyx[2])
                assert filled > 0.3  # a few spicules far apart would fill less
    assert spiculated >= 3


def test_a_lesion_told_by_contrast_leaves_most_of_its_organ() -> None:
    shares = []
    for inserted in _in_one_organ(Organ.LIVER, ("liver_mass",), 26, range(40)):
        shares += [float(m.sum()) / (80 * 26) for m in inserted.lesion_map > 0]
    assert 0.2 < max(shares) <= 0.5


def test_lesions_told_by_contrast_leave_most_of_their_organ_together() -> None:
    shares = []
    for inserted in _in_one_organ(Organ.LIVER, ("liver_mass",) * 3, 26, range(25)):
        shares += [float(m.sum()) / (80 * 26) for m in inserted.lesion_map > 0]
    assert 0.4 < max(shares) <= 0.5


def test_no_lesion_of_bone_lies_in_a_disc() -> None:
    """Where such lesions may lie, it is as dense as bone; a disc has about 90 HU."""
    background = _background(_spec("osteolytic_lesion", 0, lesions=0, noise_hu=0.0))
    inside = ndimage.binary_erosion(background.organs == Organ.VERTEBRA)
    assert np.mean(background.volume.hu[inside] < 110) < 0.1


def test_an_effusion_is_nowhere_a_mere_film() -> None:
    depths = []
    for inserted in _in_one_organ(Organ.LUNG_LEFT, ("pleural_effusion",), 80, range(20)):
        for of_slice in inserted.lesion_map > 0:
            if of_slice.any():
                depths.append(int(of_slice.sum(axis=0).max()))
    assert len(set(depths)) > 3
    assert min(depths) >= 2  # of pixels of 1.5 mm


def test_an_unknown_label_is_refused() -> None:
    with pytest.raises(ValueError, match="liver_spot"):
        make_phantom(_spec("liver_mass", lesions=("liver_spot",)))


def test_organs_are_found_again_without_their_map() -> None:
    phantom = make_phantom(
        PhantomSpec(shape_zyx=(60, 128, 128), spacing_zyx_mm=(4.0, 2.8, 2.8), lesions=0, seed=3)
    )
    guess = estimate_organs(phantom.volume.hu, phantom.volume.geometry)
    for side in (Organ.LUNG_LEFT, Organ.LUNG_RIGHT):
        true, found = phantom.organs == side, guess == side
        overlap = 2 * (true & found).sum() / (true.sum() + found.sum())
        assert overlap > 0.85, side
    assert (guess == Organ.BONE).any()
    assert 6 < estimate_noise(phantom.volume.hu, guess) < 30


def test_lesions_go_into_a_background_without_a_map() -> None:
    phantom = make_phantom(
        PhantomSpec(
            region="head", shape_zyx=(40, 96, 96), spacing_zyx_mm=(4.0, 2.4, 2.4), noise_hu=3.0,
            lesions=0, seed=2,
        )
    )  # fmt: skip
    hu, geometry = phantom.volume.hu, phantom.volume.geometry
    organs = estimate_organs(hu, geometry)
    inserted = insert_lesions(
        hu, geometry, organs, np.random.default_rng(0), labels=sorted(HEAD), noise_hu=3.0
    )
    assert {lesion.label for lesion in inserted.lesions} == HEAD
    outside = inserted.lesion_map == 0
    assert np.array_equal(phantom.volume.hu, hu)
    changed = np.abs(inserted.hu - hu) > 0.5
    assert changed[~outside].mean() > 0.9
    assert changed[outside].mean() < 0.05


@pytest.mark.shared_data
def test_lungs_and_brain_are_found_in_real_ct(shared_data: object) -> None:
    import SimpleITK

    from raypipe.geometry import Geometry

    for folder, expected, absent in (
        ("ge_chest_abdomen_pelvis", Organ.LUNG_LEFT, Organ.BRAIN),
        ("ge_head_tilt", Organ.BRAIN, Organ.LUNG_LEFT),
    ):
        files = [p for p in (shared_data / "dicom" / folder).rglob("*") if p.is_file()]  # type: ignore[operator]
        reader = SimpleITK.ImageSeriesReader()
        parent = str(files[0].parent)
        reader.SetFileNames(
            reader.GetGDCMSeriesFileNames(parent, reader.GetGDCMSeriesIDs(parent)[0])
        )
        image = reader.Execute()
        hu = np.clip(SimpleITK.GetArrayFromImage(image), -1024, 3071).astype(np.int16)
        affine = np.eye(4)
        direction = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
        affine[:3, :3], affine[:3, 3] = direction[:, ::-1], image.GetOrigin()
        organs = estimate_organs(hu, Geometry(shape_zyx=hu.shape, affine_zyx_to_lps=affine))
        assert (organs == expected).mean() > 0.02
        assert not (organs == absent).any()
