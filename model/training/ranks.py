"""Start a training run: one process a rank, each with one thread, joined over loopback."""

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import FrameType

import torch
import torch.distributed
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from model.networks.build import build, encoder_of
from model.training.batches import Batches
from model.training.compose import Composer
from model.training.config import TrainingConfig
from model.training.pack import Pack
from model.training.packages import encoder_weights
from model.training.teacher import Teacher
from model.training.trainer import Folders, Trainer
from pipeline.errors import SetupError

# Without these glibc gives every large tensor back to the kernel and gets it anew, zeroed: a third of the time.
_MALLOC = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(8 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}


def train(config: TrainingConfig, data: Path, run: Path, home: Path) -> None:
    """Train, or go on with what `run` holds, until the time is up; SIGTERM and Ctrl-C save and leave.

    Args:
        config: what to do.
        data: what `mattemill model data` wrote.
        run: folder of this run.
        home: MATTEMILL_HOME, for the teacher where the configuration distils.

    Raises:
        SetupError: when there is no data.
    """
    if not (data / "pack.json").is_file():
        raise SetupError(f"There is no training data in {data}.", f"mattemill model data {data}")
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.json").write_text(config.model_dump_json(indent=2) + "\n", "utf-8")
    folders = Folders(data, run, _encoder_weights(config, data))
    os.environ.update(_MALLOC)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with tempfile.TemporaryDirectory() as meeting:
        context = multiprocessing.get_context("spawn")
        ranks = [
            context.Process(target=_rank, args=(rank, config, folders, home, Path(meeting) / "ranks"), daemon=True)
            for rank in range(config.ranks)
        ]

        def forward(number: int, _frame: FrameType | None) -> None:
            for process in ranks:
                if process.pid is not None and process.is_alive():
                    os.kill(process.pid, number)

        previous = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            for process in ranks:
                process.start()
            _wait(ranks)
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def _wait(ranks: Sequence[SpawnProcess]) -> None:
    """Until all have left; when one fails the others would wait for it for ever, so they are ended."""
    running = list(ranks)
    while running:
        wait([process.sentinel for process in running])
        running = [process for process in running if process.is_alive()]
        if any(process.exitcode for process in ranks):
            for process in running:
                process.kill()
                process.join()
            raise SetupError("A training process failed; its error stands above.")


def _rank(rank: int, config: TrainingConfig, folders: Folders, home: Path, meeting: Path) -> None:
    stopping = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    parent = os.getppid()
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    if config.device == "cpu":
        torch.set_num_threads(1)
    if config.ranks > 1:
        torch.distributed.init_process_group(
            "gloo",
            init_method=f"file://{meeting}",
            rank=rank,
            world_size=config.ranks,
            # A run that is paused from outside must not fall apart when it goes on.
            timeout=timedelta(days=7),
        )

    def asked() -> bool:
        return stopping or os.getppid() != parent  # nobody is left to stop an orphan

    teacher = Teacher(home) if config.distillation else None
    batches = Batches(Composer(Pack(folders.data), "train", config.composition.recipe()), config, rank, teacher)
    with _Bar(rank == 0) as bar:
        progress = Trainer(config, folders, batches, rank, asked, bar.report).run()
        bar.report(f"left at step {progress.step} after {progress.seconds / 60:.1f} min", 1.0)
    if config.ranks > 1:
        torch.distributed.destroy_process_group()


class _Bar:
    """A progress bar on a terminal, lines elsewhere; silent on all ranks but one."""

    def __init__(self, shown: bool) -> None:
        console = Console(width=None if shown and os.isatty(1) else 160)
        columns = (BarColumn(), TextColumn("{task.percentage:.0f} %"), TimeElapsedColumn())
        self._console = console
        self._shown = shown
        self._progress = Progress(*columns, console=console, disable=not (shown and console.is_terminal))
        self._task = self._progress.add_task("training", total=1.0)

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()

    def report(self, line: str, share: float) -> None:
        """See `Trainer`."""
        if self._shown:
            self._progress.update(self._task, completed=share)
            self._console.print(line, highlight=False)


def _encoder_weights(config: TrainingConfig, data: Path) -> Path | None:
    """The file that the configuration names, else MobileNetV2's where that is the encoder."""
    if config.encoder_weights is not None or config.start_from is not None:
        return config.encoder_weights
    encoder = encoder_of(build(config.network))
    return encoder_weights(data / "packages") if encoder is not None and config.network == "cvunet-lite-s" else None
