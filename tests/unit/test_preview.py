"""The small pictures of a cutout, for its run's report."""

import io

import numpy as np
import pytest
from PIL import Image

import model.cutout
from model.cutout import Cutout, make_cutout
from pipeline.recipe import Recipe
from pipeline.recipe_text import parse_recipe
from tests.decoding import profile
from tests.drawings import BACKGROUND, SUBJECT, UInt8, composed, disc, photo, saved

MEGAPIXELS = 50


def preview(
    recipe: str, data: bytes, alpha: UInt8, side: int = 100, wall: UInt8 | None = None
) -> tuple[Cutout, UInt8, UInt8]:
    """A cutout, and its two small pictures."""
    cutout = make_cutout(data, alpha, parse_recipe(recipe), wall, MEGAPIXELS, preview_side=side)
    assert cutout.preview is not None
    with (
        Image.open(io.BytesIO(cutout.preview.before)) as before,
        Image.open(io.BytesIO(cutout.preview.after)) as after,
    ):
        assert (before.format, after.format) == ("JPEG", "WEBP")
        assert before.size == after.size
        return cutout, np.array(before), np.array(after)


@pytest.mark.parametrize(
    "recipe",
    [
        "png", "png,despill=off", "webp", "webp=90", "alpha", "background=#ffffff", "jpeg,background=wall.jpg",
        "webp,background=wall.jpg,crop", "crop", "crop,margin=20,square", "max-side=200",
    ],
)  # fmt: skip
@pytest.mark.parametrize(("height", "width"), [(300, 400), (703, 517), (1200, 1600)])
def test_small_pictures_are_those_of_the_output(recipe: str, height: int, width: int) -> None:
    rgb, alpha = photo(height, width)
    wall = np.ascontiguousarray(rgb[::-1, ::2]) if "wall" in recipe else None
    cutout, before, after = preview(recipe, saved(rgb), alpha, wall=wall)
    whole = np.asarray(Image.open(io.BytesIO(cutout.body)).convert("RGBA" if "background" not in recipe else "RGB"))
    scale = 100 / max(cutout.height, cutout.width)
    assert max(before.shape) == 100
    assert np.abs(np.array(before.shape[:2]) - np.array([cutout.height, cutout.width]) * scale).max() <= 1
    size = before.shape[1], before.shape[0]
    # On green, as a browser would show it: colours under alpha 0 do not count.
    shown = [
        composed(part[:, :, 3], part[:, :, :3], (0, 200, 0)) if part.shape[2] == 4 else part for part in (whole, after)
    ]
    large = np.asarray(Image.fromarray(shown[0]).resize(size, Image.Resampling.BOX)).astype(int)
    assert np.abs(large - shown[1]).mean() < 5  # an edge may lie half a small pixel away
    assert np.abs(before[size[1] // 2, size[0] // 2].astype(int) - SUBJECT).max() < 12
    if "crop" not in recipe:
        assert np.abs(before[2, 2].astype(int) - BACKGROUND).max() < 12


@pytest.mark.parametrize("recipe", ["png", "png,despill=off", "crop"])
def test_small_pictures_of_what_is_cut_out_already_have_no_fringe(recipe: str) -> None:
    alpha = disc(600, 800, softness=3)
    # White under alpha 0, and in its edge nothing of it.
    rgb = np.where(alpha[:, :, None] > 0, np.uint8(40), np.uint8(255)).repeat(3, axis=2)
    _, _, after = preview(recipe, saved(np.dstack([rgb, alpha])), np.zeros((75, 100), np.uint8))
    edge = (after[:, :, 3] > 100) & (after[:, :, 3] < 250)
    assert edge.any()
    assert after[edge, :3].max() < 70  # WebP's own rounding; averaged with the white it would be 100 and more


def test_an_output_is_there_without_its_small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise MemoryError

    rgb, alpha = photo()
    whole = make_cutout(saved(rgb), alpha, Recipe(), None, MEGAPIXELS).body
    monkeypatch.setattr(model.cutout, "preview_of_cut", broken)
    cutout = make_cutout(saved(rgb), alpha, Recipe(), None, MEGAPIXELS, preview_side=100)
    assert (cutout.body, cutout.preview) == (whole, None)


def test_small_pictures_are_no_larger_than_the_output_and_change_nothing_of_it() -> None:
    rgb, alpha = photo()
    cutout, before, _ = preview("png", saved(rgb), alpha, 480)
    assert before.shape == (300, 400, 3)
    assert cutout.body == make_cutout(saved(rgb), alpha, Recipe(), None, MEGAPIXELS).body


def test_small_pictures_of_other_colours_are_in_srgb() -> None:
    rgb, alpha = photo()
    data = saved(rgb, icc_profile=profile(1.4))
    kept, before, after = preview("png,icc=keep", data, alpha)
    with Image.open(io.BytesIO(kept.body)) as image:
        assert image.info["icc_profile"]
    _, expected_before, expected_after = preview("png", data, alpha)
    assert np.abs(before.astype(int) - expected_before).mean() < 2
    assert np.abs(after[alpha[::4, ::4] > 128].astype(int) - expected_after[alpha[::4, ::4] > 128]).mean() < 2


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 900), (900, 1), (3, 2000)])
def test_small_pictures_of_extreme_shapes(height: int, width: int) -> None:
    rgb = np.full((height, width, 3), 90, np.uint8)
    _, before, after = preview("png", saved(rgb), np.full((8, 8), 255, np.uint8))
    assert max(before.shape) == min(max(height, width, 3), 100)
    assert after.shape[:2] == before.shape[:2]
