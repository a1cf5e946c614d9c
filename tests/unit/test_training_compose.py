import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from model.training import augment
from model.training.compose import Composer, Recipe
from model.training.pack import Entry, Pack, _cut_out
from model.training.sources import Kind, Role
from model.training.split import Split
from model.training.studio import studio

RED = (200, 10, 10, 255)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    """A red square and a background to train on, a green square to validate on."""
    square = np.zeros((40, 40, 4), np.uint8)
    square[:] = RED
    green = np.zeros((40, 40, 4), np.uint8)
    green[:] = (0, 200, 0, 255)
    blue = np.full((64, 96, 3), (0, 0, 220), np.uint8)
    labelled = np.full((64, 96, 4), (90, 90, 90, 255), np.uint8)
    plan: tuple[tuple[Role, Kind, Split, bool, np.ndarray], ...] = (
        ("cutout", "photo", "train", False, square),
        ("cutout", "photo", "validation", False, green),
        ("background", "photo", "train", False, blue),
        ("photo", "photo", "train", True, labelled),
    )
    entries, data = [], b""
    for role, kind, split, pseudo, picture in plan:
        entries.append(asdict(Entry(role, kind, split, pseudo, len(data), picture.shape)))
        data += picture.tobytes()
    (tmp_path / "pack.bin").write_bytes(data)
    (tmp_path / "pack.json").write_text(json.dumps(entries))
    return Pack(tmp_path)


def test_a_pack_gives_back_what_was_packed(pack: Pack) -> None:
    (entry,) = pack.select("train", "cutout")

    assert pack.picture(entry).shape == (40, 40, 4)
    assert (pack.picture(entry) == RED).all()
    assert not pack.picture(entry).flags.writeable
    assert pack.select("train", "cutout", "painted") == []


def test_the_same_chance_gives_the_same_sample(pack: Pack) -> None:
    composer = Composer(pack, "train", Recipe({"photo": 1.0}))

    first, second, other = (composer.sample(rng(seed), 64, 96) for seed in (5, 5, 6))

    assert np.array_equal(first.image, second.image)
    assert np.array_equal(first.alpha, second.alpha)
    assert not np.array_equal(first.image, other.image)


def test_samples_have_the_asked_size_and_type(pack: Pack) -> None:
    composer = Composer(pack, "train", Recipe({"photo": 1.0}, photos=0.5))

    for seed in range(40):
        sample = composer.sample(rng(seed), 32, 64)
        assert sample.image.shape == (32, 64, 3)
        assert sample.alpha.shape == sample.contrast.shape == (32, 64)
        assert {sample.image.dtype, sample.alpha.dtype, sample.contrast.dtype} == {np.dtype(np.uint8)}


def test_alpha_tells_where_the_subject_is(pack: Pack) -> None:
    recipe = Recipe({"photo": 1.0}, photos=0, empty=0, studio=0, distractors=0)
    composer = Composer(pack, "train", recipe)
    seen = 0
    for seed in range(30):
        sample = composer.sample(rng(seed), 96, 96)
        inside, outside = sample.alpha > 250, sample.alpha < 5
        if inside.sum() < 100 or outside.sum() < 100:
            continue
        redness = sample.image[..., 0].astype(int) - sample.image[..., 2]
        if redness.std() < 5:
            continue  # made grey
        seen += 1
        assert redness[inside].mean() > redness[outside].mean() + 20
    assert seen > 15


def test_validation_objects_never_come_into_training(pack: Pack) -> None:
    composer = Composer(pack, "train", Recipe({"photo": 1.0}, photos=0, empty=0, studio=0))

    for seed in range(60):
        image = composer.sample(rng(seed), 64, 64).image.astype(int)
        greenness = image[..., 1] - np.maximum(image[..., 0], image[..., 2])
        assert float((greenness > 60).mean()) < 0.02


def test_empty_pictures_have_no_alpha_and_photos_their_weight(pack: Pack) -> None:
    empty = Composer(pack, "train", Recipe({"photo": 1.0}, photos=0, empty=1)).sample(rng(), 64, 64)
    photo = Composer(pack, "train", Recipe({"photo": 1.0}, photos=1, photo_weight=0.7)).sample(rng(), 64, 64)

    assert empty.alpha.max() == 0
    assert empty.weight == 1
    assert photo.alpha.min() == 255
    assert photo.weight == 0.7


def test_laying_premultiplied_colour_over_another() -> None:
    top = np.array([[[100, 0, 0, 128]]], np.uint8)

    assert augment.over(top, np.array([[[200, 200, 0]]], np.uint8)).tolist() == [[[200, 100, 0]]]
    assert augment.over(top, np.zeros((1, 1, 4), np.uint8)).tolist() == top.tolist()


def test_recolouring_never_shines_beyond_alpha() -> None:
    picture = np.zeros((8, 8, 4), np.uint8)
    picture[:4] = (120, 120, 120, 128)

    for seed in range(30):
        changed = augment.recolour(rng(seed), picture)
        assert np.array_equal(changed[..., 3], picture[..., 3])
        assert (changed[..., :3] <= changed[..., 3:]).all()


def test_a_subject_lies_inside_the_frame_unless_it_may_be_cut_off() -> None:
    square = np.full((50, 50, 4), 255, np.uint8)

    for seed in range(30):
        layer = augment.place(rng(seed), square, 100, 200, 0.5, crop=False)
        assert layer.shape == (100, 200, 4)
        assert layer[..., 3].astype(int).sum() / 255 == pytest.approx(50 * 50, rel=0.12)


def test_a_subject_larger_than_the_frame_fills_it() -> None:
    square = np.full((50, 50, 4), 255, np.uint8)

    shares = [(augment.place(rng(seed), square, 96, 96, 1.5, crop=True)[..., 3] > 127).mean() for seed in range(20)]

    assert min(shares) > 0.6
    assert np.mean(shares) > 0.9


def test_contrast_is_the_visible_difference() -> None:
    subject = np.array([[[50, 50, 50, 127], [0, 0, 0, 0]]], np.uint8)  # grey of about 100 at half alpha
    background = np.full((1, 2, 3), 40, np.uint8)

    assert augment.contrast(subject, background)[0, 0] == pytest.approx(60, abs=1)
    assert augment.contrast(subject, background)[0, 1] == 96  # unknown


@pytest.mark.parametrize("seed", range(12))
def test_a_studio_is_smooth(seed: int) -> None:
    picture = studio(rng(seed), 64, 96)

    assert picture.shape == (64, 96, 3)
    assert picture.dtype == np.uint8
    assert np.median(np.abs(np.diff(picture.astype(int), axis=1))) <= 6


def test_a_labelled_photo_becomes_a_cutout_where_the_subject_is_whole() -> None:
    photo = np.full((60, 80, 4), (10, 200, 30, 0), np.uint8)
    photo[20:40, 30:60, 3] = 255

    cut = _cut_out(photo)

    assert cut is not None
    assert cut.shape == (20, 30, 4)
    assert (cut == (10, 200, 30, 255)).all()
    photo[20:, 30:60, 3] = 255
    assert _cut_out(photo) is None
