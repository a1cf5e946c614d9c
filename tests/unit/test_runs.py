from pipeline.ids import ETag, Key
from pipeline.runs import Item, RunSpec, item_id, new_run_id


def spec(source: str = "", target: str = "", *, one_bucket: bool = False) -> RunSpec:
    bucket = "photos" if one_bucket else "cutouts"
    return RunSpec(new_run_id(), "photos", source, bucket, target, "u2netp", "0" * 64, ("320x320",))


def test_folders_below_the_source_prefix_are_kept() -> None:
    assert spec("in/", "out/").output_key(Key("in/a/产品 01.v2.jpg")) == "out/a/产品 01.v2.png"
    assert spec("in/2026-", "out/").output_key(Key("in/2026-11/a.jpg")) == "out/2026-11/a.png"


def test_an_output_below_the_swept_prefix_is_never_a_source() -> None:
    assert spec("", "cut/", one_bucket=True).is_own_output(Key("cut/a.png"))
    assert not spec("", "cut/", one_bucket=True).is_own_output(Key("a.png"))
    assert not spec("", "cut/").is_own_output(Key("cut/a.png"))
    assert spec("in/", "", one_bucket=True).is_own_output(Key("_mattemill/x/report.html"))


def test_a_fingerprint_changes_with_the_source_and_the_model_and_not_with_the_run() -> None:
    one = spec().fingerprint(ETag("a"), 1)
    assert spec().fingerprint(ETag("a"), 1) == one
    assert spec().fingerprint(ETag("b"), 1) != one
    assert spec().fingerprint(ETag("a"), 2) != one


def test_a_spec_and_an_item_survive_the_ledger() -> None:
    original = spec("in/", "out/")
    assert RunSpec.load(original.dump()) == original
    item = Item(item_id(Key("x.png")), Key('"odd"\n.jpg'), ETag("e"), 3, "320x320")
    assert Item.load(item.id, item.dump()) == item
