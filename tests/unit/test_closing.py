"""The closing table of a run on the command line."""

import pytest

from pipeline.ids import RunId
from producer.commands.closing import print_summary
from producer.summary import Summary


def test_many_failures_do_not_bury_the_sum(capsys: pytest.CaptureFixture[str]) -> None:
    rows: tuple[dict[str, object], ...] = tuple(
        {"key": f"{number:03d}.jpg", "code": "not_found", "reason": "gone"} for number in range(300)
    )
    print_summary(Summary(RunId("run"), 300, 0, 0, 300, rows, 1.0, 0.0, "", "u2netp"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "listed 300 = done 0 + skipped 0 + failed 300"
    assert lines[-2] == "  019.jpg: not_found: gone"
    assert lines[-1] == "  … and 280 more"
