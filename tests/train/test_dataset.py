from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from raypipe.errors import ConfigError
from raypipe.geometry import Geometry
from raypipe.knowledge.graph import load_graph
from raypipe.model.network import config_for
from raypipe.phantom import PhantomSpec, anatomy, make_phantom
from raypipe.phantom.pose import Pose
from raypipe.train.batches import AugmentConfig, make_batch, make_vocabulary, sample_weights
from raypipe.train.dataset import SampleStore, on_grid, slice_samples, write_store
from raypipe.train.losses import cell_weights
from raypipe.train.synthesis import SynthesisConfig, draw_spec, make_store
from raypipe.train.targets import CUT_LESION, NO_LESION, make_grid
from raypipe.volume.preprocess import PreprocessConfig, preprocess

GRAPH = load_graph()
NETWORK = config_for(GRAPH)
VOCABULARY = make_vocabulary(GRAPH, NETWORK)
GRID = make_grid((4, 8, 16, 32))


def test_a_store_holds_what_was_written(store: SampleStore, tmp_path: Path) -> None:
    samples = [store[i] for i in range(len(store))]
    again = write_store(tmp_path, samples, store.fingerprint)
    assert len(again) == len(store) > 6
    assert again.fingerprint == PreprocessConfig().fingerprint
    for a, b in zip(samples, (again[i] for i in range(len(again))), strict=True):
        np.testing.assert_array_equal(a.hu, b.hu)
        np.testing.assert_array_equal(a.boxes_m4, b.boxes_m4)
        assert (a.labels, a.attributes, a.regions, a.series) == (
            b.labels,
            b.attributes,
            b.regions,
            b.series,
        )


def test_the_same_config_makes_the_same_store(tmp_path: Path) -> None:
    config = SynthesisConfig(phantom_series=2, slices_per_series=4, slab_slices=(5, 6), seed=3)
    one = make_store(tmp_path / "a", config)
    two = make_store(tmp_path / "b", config.model_copy(update={"workers": 2}))
    np.testing.assert_array_equal(one.hu, two.hu)
    np.testing.assert_array_equal(one.boxes, two.boxes)
    assert one.labels.tolist() == two.labels.tolist()


def test_boxes_hold_the_lesion_and_nothing_else() -> None:
    spec = PhantomSpec(
        region="chest",
        shape_zyx=(12, 128, 128),
        spacing_zyx_mm=(4.0, 3.0, 3.0),
        seed=4,
        lesions=("pulmonary_nodule", "lung_mass"),
    )
    phantom = make_phantom(spec)
    model_input = preprocess(phantom.volume, PreprocessConfig())
    lesion_map = on_grid(phantom.lesion_map, phantom.volume.geometry, model_input.geometry)
    organs = on_grid(phantom.organs, phantom.volume.geometry, model_input.geometry)
    samples = slice_samples(
        model_input, lesion_map, organs, phantom.lesions, series=9, all_organs=True
    )
    assert sum(len(s.labels) for s in samples) >= 2
    for z, sample in enumerate(samples):
        for (x, y, w, h), label in zip(sample.boxes_m4, sample.labels, strict=True):
            number = [lesion.label for lesion in phantom.lesions].index(label) + 1
            mask = lesion_map[z] == number
            inside = mask[round(y - h / 2) : round(y + h / 2), round(x - w / 2) : round(x + w / 2)]
            assert inside.sum() == mask.sum()
            edges = inside[0], inside[-1], inside[:, 0], inside[:, -1]
            assert all(edge.any() for edge in edges)  # tight
        assert "chest" in sample.regions or not sample.labels
        assert "head" not in sample.regions


def test_label_maps_follow_their_grid() -> None:
    lesion_map = np.zeros((4, 8, 8), np.uint8)
    lesion_map[2, 3, 5] = 7
    source = Geometry(shape_zyx=(4, 8, 8), affine_zyx_to_lps=np.diag([2.0, 1.0, 1.0, 1.0]))
    moved = on_grid(lesion_map, source, source.resized((4, 16, 16)))
    assert moved.sum() == 4 * 7
    assert (moved[2, 6:8, 10:12] == 7).all()


def test_augmented_boxes_stay_on_their_lesion() -> None:
    """A bright square is found where its box says, however the slice is moved."""
    hu = np.full((256, 256), -1000, np.int16)
    hu[100:120, 60:90] = 100
    sample = _square_sample(hu)
    store = _MemoryStore([sample])
    found = 0
    for patch in (256, 128):
        augment = AugmentConfig(noise_hu=0.0, patch_pixels=patch)
        grid = make_grid((4, 8, 16, 32), patch)
        for seed in range(8):
            slices, truth = make_batch(store, [0], [seed], VOCABULARY, grid, augment)  # type: ignore[arg-type]
            assert slices.shape == (1, 3, patch, patch)
            if not (truth.label_bn[0] >= 0).any():
                continue  # a patch away from the lesion
            found += 1
            x, y, w, h = truth.box_bn4[0][truth.label_bn[0] >= 0][0].tolist()
            bright = np.argwhere(slices[0, 1].numpy() > -450)
            low, high = bright.min(axis=0), bright.max(axis=0) + 1
            edge = [0.0, 0.0], [float(patch)] * 2
            expected_low = np.clip([y - h / 2, x - w / 2], *edge)
            expected_high = np.clip([y + h / 2, x + w / 2], *edge)
            np.testing.assert_allclose(low, expected_low, atol=1.2)
            np.testing.assert_allclose(high, expected_high, atol=1.2)
    assert found >= 10


def test_a_lesion_whose_middle_is_cut_off_is_neither_there_nor_not() -> None:
    hu = np.full((256, 256), -1000, np.int16)
    sample = replace(_square_sample(hu), boxes_m4=np.array([[-4.0, 60.0, 40.0, 40.0]], np.float32))
    _, truth = make_batch(_MemoryStore([sample]), [0], [0], VOCABULARY, GRID, None)  # type: ignore[arg-type]
    cut = truth.label_bn[0] == CUT_LESION
    assert cut.any() and (truth.label_bn[0][~cut] == NO_LESION).all()
    assert (cell_weights(truth, 0.5, lambda count: count)[0] > 0).eq(~cut).all()
    labels = dict(zip(NETWORK.image_labels, truth.image_bl[0].tolist(), strict=True))
    assert {key for key, value in labels.items() if value < 0} == {
        "lung_mass", "pulmonary_opacity"
    }  # fmt: skip
    assert max(labels.values()) == 0.0
    away = replace(sample, boxes_m4=np.array([[-40.0, 60.0, 40.0, 40.0]], np.float32))
    _, truth = make_batch(_MemoryStore([away]), [0], [0], VOCABULARY, GRID, None)  # type: ignore[arg-type]
    assert (truth.label_bn == NO_LESION).all() and (truth.image_bl == 0).all()


class _MemoryStore(list):  # type: ignore[type-arg]
    """A list serves as a store for make_batch."""


def _square_sample(hu: np.ndarray):  # type: ignore[type-arg,no-untyped-def]
    from raypipe.train.dataset import SliceSample
    from raypipe.train.tissues import unknown_tissues

    return SliceSample(
        hu=np.stack([hu, hu, hu]),
        boxes_m4=np.array([[75.0, 110.0, 30.0, 20.0]], np.float32),
        labels=("lung_mass",),
        attributes=({"density": "soft_tissue"},),
        subtle_m=np.array([False]),
        regions=("chest",),
        series=0,
        tissues=unknown_tissues(),
    )


def test_batches_carry_the_truth_in_the_networks_order() -> None:
    hu = np.zeros((256, 256), np.int16)
    hu[100:120, 60:90] = 100
    _, truth = make_batch(_MemoryStore([_square_sample(hu)]), [0], [0], VOCABULARY, GRID, None)  # type: ignore[arg-type]
    own = truth.label_bn[0] >= 0
    assert own.any()
    assert {NETWORK.labels[i] for i in truth.label_bn[0][own].tolist()} == {"lung_mass"}
    density = truth.attribute_bna[0][own][:, 0]
    assert {NETWORK.attributes["density"][i] for i in density.tolist()} == {"soft_tissue"}
    assert (truth.attribute_bna[0][own][:, 1] == -1).all()  # the margin is not known
    image = [NETWORK.image_labels[i] for i in truth.image_bl[0].nonzero().squeeze(1).tolist()]
    assert image == ["lung_mass", "pulmonary_opacity"]
    assert truth.region_br[0].tolist() == [1.0, 0.0, 0.0]
    inside = (GRID.centers_n2 - torch_tensor([75.0, 110.0])).abs() < torch_tensor([7.0, 4.0])
    assert (truth.hu_bn[0][inside.all(dim=1) & (GRID.stride_n == 4)] == 100).all()
    assert truth.attention[0][0, 0, 27, 18] == 1.0 and truth.attention[0][0, 0, 0, 0] == 0.0


def torch_tensor(values: list[float]):  # type: ignore[no-untyped-def]
    import torch

    return torch.tensor(values)


def test_rare_labels_are_drawn_more_often(store: SampleStore) -> None:
    weights = sample_weights(store, VOCABULARY)
    assert weights.sum() == pytest.approx(1.0)
    counts = {str(label): store.labels.tolist().count(label) for label in store.labels}
    rare, common = min(counts, key=counts.get), max(counts, key=counts.get)  # type: ignore[arg-type]
    first = {
        label: next(i for i in range(len(store)) if label in store[i].labels)
        for label in (rare, common)
    }
    only_common = [i for i in range(len(store)) if set(store[i].labels) == {common}]
    assert all(weights[first[rare]] >= weights[i] for i in only_common)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_empty_slices_are_drawn_as_often_as_told(
    store: SampleStore, tmp_path: Path, share: float
) -> None:
    samples = [store[i] for i in range(len(store))]
    healed = [
        replace(s, boxes_m4=s.boxes_m4[:0], labels=(), attributes=(), subtle_m=s.subtle_m[:0])
        for s in samples[:3]
    ]
    mixed = write_store(tmp_path, [*healed, *samples[3:]], store.fingerprint)
    plain, told = sample_weights(mixed, VOCABULARY), sample_weights(mixed, VOCABULARY, share)
    empty = np.array([not mixed[i].labels for i in range(len(mixed))])
    assert told[empty].sum() == pytest.approx(share)
    assert told.sum() == pytest.approx(1.0)
    # lesions among themselves are drawn as before
    np.testing.assert_allclose(told[~empty] * plain[~empty].sum() / (1.0 - share), plain[~empty])


def test_a_label_is_drawn_oftener_by_its_weight(store: SampleStore) -> None:
    plain = sample_weights(store, VOCABULARY)
    label = str(store.labels[0])
    told = sample_weights(store, VOCABULARY, label_weights={label: 3.0})
    ratio = told / plain
    with_label = np.array([label in store[i].labels for i in range(len(store))])
    alone = np.array([set(store[i].labels) == {label} for i in range(len(store))])
    assert alone.any() and not with_label.all()
    np.testing.assert_allclose(ratio[alone], 3.0 * ratio[~with_label].min())
    np.testing.assert_allclose(ratio[~with_label], ratio[~with_label].min())


def test_specs_vary_and_repeat() -> None:
    config = SynthesisConfig()
    specs = [draw_spec(seed, config) for seed in range(40)]
    assert {s.region for s in specs} == {"chest", "abdomen", "head", "chest_abdomen"}
    assert draw_spec(7, config) == specs[7]


def test_a_region_has_bodies_of_every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: dict[str, list[float]] = defaultdict(list)
    draw = anatomy.random_pose

    def noted(rng: np.random.Generator, *, size_range: tuple[float, float]) -> Pose:
        pose = draw(rng, size_range=size_range)
        sizes[spec.region].append(float(np.mean(pose.scale_xyz)))
        return pose

    monkeypatch.setattr(anatomy, "random_pose", noted)
    for seed in range(40):
        spec = draw_spec(seed, SynthesisConfig()).model_copy(
            update={"shape_zyx": (1, 16, 16), "spacing_zyx_mm": (5.0, 20.0, 20.0), "lesions": ()}
        )
        make_phantom(spec)
    assert len(sizes) == 4
    assert all(max(own) - min(own) > 0.06 for own in sizes.values() if len(own) > 5)


def test_a_missing_store_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="build the data set first"):
        SampleStore(tmp_path)
