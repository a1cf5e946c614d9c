"""`mattemill demo`: what a newcomer sees, and that nothing of it stays behind."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.command_line import COMMAND, MARK, left_behind, run
from tests.conftest import WaitUntil
from tests.processes import photo


@pytest.mark.timeout(300)
def test_the_demo_shows_every_sample_and_leaves_nothing_behind(
    alone: dict[str, str], short_tmp: Path, tmp_path: Path, wait_until: WaitUntil
) -> None:
    out = tmp_path / "out"
    fresh = alone | {"MATTEMILL_HOME": str(tmp_path / "home")}
    done = run(fresh, "demo", "--out", str(out), timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "listed 21 = done 17 + skipped 0 + failed 4" in done.stdout
    for code in ("truncated", "empty_object", "not_an_image", "too_large"):
        assert f": {code}: " in done.stdout
    assert "broken on purpose" in done.stdout
    assert "onnxruntime" in done.stdout
    assert len(list((out / "cutouts").rglob("*.png"))) == 17
    assert len((out / "manifest.jsonl").read_text("utf-8").splitlines()) == 21
    assert json.loads((out / "summary.json").read_text("utf-8"))["done"] == 17
    assert "产品 照片 01.jpg" in (out / "report.html").read_text("utf-8")
    wait_until(lambda: left_behind(alone[MARK], short_tmp) == [], 20)
    assert list(short_tmp.iterdir()) == []


@pytest.mark.timeout(300)
def test_own_photos_end_with_1_only_if_one_failed(alone: dict[str, str], photos: Path) -> None:
    out = photos / "out"  # inside, as with `--photos .`: its cutouts are no photos
    os.link(photos / "a.jpg", os.fsencode(photos) + b"/no utf-8 \xff.jpg")
    good = run(alone, "demo", "--photos", str(photos), "--out", str(out), timeout=140)
    assert good.returncode == 0, good.stdout + good.stderr
    assert "listed 3 = done 3 + skipped 0 + failed 0" in good.stdout
    assert (out / "cutouts" / "sub" / "b 产品.png").exists()

    (photos / "cut off.jpg").write_bytes(photo(3)[:-300])
    bad = run(alone, "demo", "--photos", str(photos), "--out", str(out), timeout=140)
    assert bad.returncode == 1, bad.stdout + bad.stderr
    assert "listed 4 = done 3 + skipped 0 + failed 1" in bad.stdout
    assert "  cut off.jpg: truncated: " in bad.stdout
    assert "on purpose" not in bad.stdout


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("number", "whole_group"),
    [(signal.SIGINT, True), (signal.SIGINT, False), (signal.SIGTERM, False), (signal.SIGKILL, False)],
    ids=["Ctrl-C in a terminal", "INT to the parent", "TERM", "KILL"],
)
def test_whatever_ends_the_demo_nothing_of_it_lives_on(
    number: signal.Signals,
    whole_group: bool,
    alone: dict[str, str],
    short_tmp: Path,
    photos: Path,
    tmp_path: Path,
    wait_until: WaitUntil,
) -> None:
    for more in range(3, 150):
        (photos / f"{more}.jpg").write_bytes(photo(more))
    out, said = tmp_path / "out", tmp_path / "said"
    with said.open("wb") as errors:
        parent = subprocess.Popen(
            [*COMMAND, "demo", "--photos", str(photos), "--out", str(out)],
            env=alone, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True,
        )  # fmt: skip
    try:
        log = out / "workers.log"
        wait_until(lambda: parent.poll() is not None or (log.exists() and '"event": "matte"' in log.read_text()), 120)
        assert parent.poll() is None, said.read_text()
        assert left_behind(alone[MARK], short_tmp)
        if whole_group:
            os.killpg(parent.pid, number)
        else:
            parent.send_signal(number)
        status = parent.wait(100)
    finally:
        parent.kill()
        parent.wait()
    wait_until(lambda: left_behind(alone[MARK], short_tmp) == [], 20)
    assert "Traceback" not in said.read_text()
    if number == signal.SIGKILL:
        assert status == -signal.SIGKILL
        return  # its folder goes when the next demo starts
    assert status == 128 + number
    assert list(short_tmp.iterdir()) == []
    if number == signal.SIGINT:
        assert said.read_text().splitlines()[-1] == "mattemill: stopped by Ctrl-C."


@pytest.mark.parametrize("module", ["click", "redis"])
def test_ctrl_c_while_it_starts_is_no_traceback(module: str, alone: dict[str, str], tmp_path: Path) -> None:
    # Stands for the user: the signal comes when this module is looked for, early and late in the imports.
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    done = run(alone | {"PYTHONPATH": f"{tmp_path}:{alone['PYTHONPATH']}"}, "status")
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.strip() == "mattemill: stopped by Ctrl-C."
