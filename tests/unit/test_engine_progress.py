"""The share of a build: rises, never falls, ends at one; and a build that is told to stop does."""

from engine_build.progress import Progress


def test_nested_phases_add_up_and_never_fall() -> None:
    told: list[tuple[str, float]] = []
    progress = Progress(lambda phase, share: told.append((phase, share)))
    progress.start("build", None, 4)
    assert progress.step("build", 0)
    progress.start("inner", "build", 2)
    progress.step("inner", 0)
    assert told[-1] == ("inner", (1 + 0.5) / 4)
    progress.start("innermost", "inner", 10)
    progress.step("innermost", 4)
    assert told[-1] == ("innermost", (1 + (1 + 0.5) / 2) / 4)
    progress.finish("innermost")
    progress.finish("inner")
    progress.step("build", 1)
    assert told[-1] == ("build", 0.5)
    progress.start("again", "build", 1)  # some phases come several times
    assert told[-1] == ("again", 0.5)
    progress.finish("again")
    progress.finish("build")
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_what_nobody_announced_does_no_harm() -> None:
    progress = Progress(lambda _, __: None)
    assert progress.step("unknown", 3)
    progress.finish("unknown")
    progress.start("orphan", "a parent that is unknown", 0)
    assert progress.step("orphan", 7)


def test_a_cancelled_build_is_told_so_at_its_next_step() -> None:
    progress = Progress(lambda _, __: None)
    progress.start("build", None, 4)
    assert progress.step("build", 0)
    progress.cancel()
    assert not progress.step("build", 1)
    assert progress.cancelled
