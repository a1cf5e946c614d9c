import itertools
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import SetupError
from pipeline.ids import ETag, Location
from pipeline.recipe import Recipe
from pipeline.recipe_text import parse_recipe, recipe_of, recipe_text


@pytest.mark.parametrize(
    ("text", "recipe"),
    [
        ("png", Recipe()),
        ("webp", Recipe(format="webp")),
        ("webp=lossless", Recipe(format="webp")),
        ("webp=90", Recipe(format="webp", quality=90)),
        ("alpha", Recipe(format="alpha", name="{stem}.png")),
        ("background=#FFF", Recipe(format="jpeg", quality=92, background="#ffffff", name="{stem}.jpg")),
        ("jpeg=80,background=#102030", Recipe(format="jpeg", quality=80, background="#102030")),
        ("png,background=#102030", Recipe(format="png", background="#102030")),
        ("background=walls/oak 1%25.jpg", Recipe(background="walls/oak 1%.jpg")),
        ("crop, margin=5%, square", Recipe(crop=True, margin=5, square=True)),
        ("crop,margin=2.5", Recipe(crop=True, margin=2.5)),
        ("max-side=1600,despill=off", Recipe(max_side=1600, despill=False)),
        ("metadata=keep,icc=keep", Recipe(metadata=True, icc=True)),
        ("metadata=drop,icc=drop,despill=on", Recipe()),
        ("name=cut/{stem}%2C {ext}.png", Recipe(name="cut/{stem}, {ext}.png")),
    ],
)
def test_text_is_read_and_written_back(text: str, recipe: Recipe) -> None:
    assert parse_recipe(text) == recipe
    assert parse_recipe(recipe_text(recipe)) == recipe
    assert recipe_of(text) == recipe


def test_the_default_is_a_png_with_this_very_text() -> None:
    # It is part of the fingerprints of all cutouts there are.
    assert recipe_text(recipe_of(None)) == "png"


def test_the_order_of_parts_does_not_matter() -> None:
    parts = ["webp=90", "crop", "margin=5%", "max-side=1600", "name={stem}_x.webp"]
    assert len({recipe_text(parse_recipe(",".join(order))) for order in itertools.permutations(parts)}) == 1


@pytest.mark.parametrize(
    "parts",
    [
        {"webp": 90, "crop": True, "square": False, "margin": "5%", "max-side": 1600, "name": "{stem}, x.webp"},
        {"webp": "90", "crop": True, "margin": 5, "max-side": "1600", "name": "{stem}, x.webp"},
    ],
)
def test_a_sweep_file_has_the_same_names(parts: Mapping[str, object]) -> None:
    assert recipe_of(parts) == parse_recipe("webp=90,crop,margin=5%,max-side=1600,name={stem}%2C x.webp")


@given(
    st.builds(
        Recipe,
        format=st.sampled_from(["", "png", "webp"]),
        background=st.sampled_from(["", "#123", "s3://bucket/a,b %2C.jpg"]),
        crop=st.just(True),
        margin=st.sampled_from([0, 0.5, 33]),
        square=st.booleans(),
        max_side=st.sampled_from([0, 16, 4000]),
        despill=st.booleans(),
        metadata=st.booleans(),
    )
)
def test_every_recipe_survives_its_text(recipe: Recipe) -> None:
    assert parse_recipe(recipe_text(recipe)) == recipe


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("gif", "'gif'"),
        ("", "''"),
        ("webp,,crop", "''"),
        ("webp=0", "webp=0"),
        ("webp=101", "webp=101"),
        ("webp=best", "webp=best"),
        ("png=9", "png=9"),
        ("png,webp", "webp gives the format a second time"),
        ("jpeg", "jpeg has no transparency"),
        ("alpha,background=#fff", "alpha"),
        ("alpha,metadata=keep", "alpha"),
        ("background=#ffff", "background=#ffff"),
        ("background=#redred", "background=#redred"),
        ("background=", "background"),
        ("background=s3://x", "background=s3://x"),
        ("background=walls/", "background=walls/"),
        ("background-etag=abc", "background-etag"),
        ("icc=keep,background=#fff", "icc=keep"),
        ("crop=yes", "crop=yes"),
        ("margin=5%", "margin belongs to crop"),
        ("square", "square belongs to crop"),
        ("crop,margin=wide", "margin=wide"),
        ("crop,margin=101%", "margin=101%"),
        ("crop,margin=nan", "margin=nan%"),
        ("max-side=0", "max-side=0"),
        ("max-side=1e3", "max-side=1e3"),
        ("max-side=²", "max-side=²"),
        ("despill=keep", "despill=keep"),
        ("metadata", "metadata="),
        ("name=out.png", "lacks {stem}"),
        ("name={stem}.jpg", "does not end with .png"),
        ("name={stem}{key}.png", "{key}"),
        ("name={stem}}.png", "half a pair"),
        ("name=../{stem}.png", r"\.\."),
        ("name=/{stem}.png", "empty"),
        ("name={stem}\n.png", "control character"),
        ("webp=90,name={stem}.png", "does not end with .webp"),
    ],
)
def test_what_cannot_be_is_refused_by_name(text: str, named: str) -> None:
    with pytest.raises(SetupError, match=named) as caught:
        parse_recipe(text)
    assert caught.value.hint
    assert str(caught.value).startswith("Recipe: ")


@pytest.mark.parametrize(
    ("template", "source", "output"),
    [
        ("{stem}.png", "shoes/产品 01.v2.jpg", "shoes/产品 01.v2.png"),
        ("{stem}.png", "a.jpg", "a.png"),
        ("{stem}.png", "x/.hidden", "x/.hidden.png"),
        ("{stem}-{ext}.png", "x/a.jpg", "x/a-jpg.png"),
        ("cut/{stem}.png", "x/e\u0301.jpg", "x/cut/e\u0301.png"),
        ("{stem}.png", "x/{ext}{stem}.jpg", "x/{ext}{stem}.png"),
        ("{stem}_cut.PNG", "a", "a_cut.PNG"),
    ],
)
def test_names(template: str, source: str, output: str) -> None:
    assert Recipe(name=template).output_name(source) == output


def test_where_a_background_image_lies() -> None:
    assert Recipe(background="walls/oak.jpg").background_image("photos") == Location("photos", "walls/oak.jpg")
    assert Recipe(background="s3://walls/oak.jpg").background_image("photos") == Location("walls", "oak.jpg")
    assert Recipe(background="#fff").background_image("photos") is None
    assert Recipe().background_image("photos") is None


def test_another_background_image_under_the_same_key_is_another_recipe() -> None:
    recipe = Recipe(background="oak.jpg")
    assert recipe_text(recipe.pinned(ETag("1"))) != recipe_text(recipe.pinned(ETag("2")))
    assert parse_recipe(recipe_text(recipe.pinned(ETag("1")))) == recipe.pinned(ETag("1"))
