"""Where models lie on a machine: as package data, or in `<home>/models/<name>/` as model.onnx and a card."""

import hashlib
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from model.card import Card, ContractError, Figures, Footprint, read_card, read_figures, write_card, write_figures
from model.catalogue import SHIPPED, ModelSpec, find, known, shipped
from pipeline.errors import SetupError

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class ModelStore:
    """The models that can run here: those that come with Mattemill, and those installed in one home folder.

    A shipped model is always the shipped one: its name cannot be installed over, so that two machines with the same
    version never mean different weights by it. An installed model is there when its card model.json is: that is
    written last. Nothing is created before `install`.

    Args:
        home: MATTEMILL_HOME.
        package: the folder of shipped weights.
    """

    def __init__(self, home: Path, package: Path = SHIPPED) -> None:
        self._models = home / "models"
        self._package = package

    def installed(self) -> list[ModelSpec]:
        """What can run here, by name; cards are read, weights are not verified.

        Raises:
            SetupError: when the folder or a card cannot be read.
        """
        return [self.spec(name) for name in self.names()]

    def names(self) -> list[str]:
        """The names of what can run here, in order.

        Raises:
            SetupError: when the folder cannot be read.
        """
        with _readable(self._models):
            names = {sidecar.parent.name for sidecar in self._models.glob("*/model.json")}
        return sorted(names | set(shipped(self._package)))

    def spec(self, name: str) -> ModelSpec:
        """What the card of a model says.

        Raises:
            SetupError: when the model is unknown, not installed, or its card is damaged or of another contract.
        """
        return self._written(name).spec

    def card(self, name: str) -> Card:
        """All that is known of a model that can run here, with what was measured on this machine.

        Raises:
            SetupError: as `spec`.
        """
        card = self._written(name)
        of_package = known(self._package).get(name)
        if of_package is not None and of_package.spec.weights == card.spec.weights:
            card = replace(card, figures=of_package.figures)
        path = self._models / name / "figures.json"
        with _readable(path):
            data = path.read_bytes() if path.is_file() else None
        if data is None:
            return card
        try:
            return replace(card, figures=card.figures.updated(read_figures(card.spec.weights, data)))
        except ValueError as error:
            raise SetupError(f"{path} is damaged: {error}.", "delete it; it holds measurements only") from error

    def path(self, name: str) -> Path:
        """The model.onnx of a model, after comparing its sha256 with the card's.

        Raises:
            SetupError: as `spec`, and when model.onnx is missing or is not what was installed.
        """
        expected = self._written(name).model_sha256
        ours = name in shipped(self._package)
        path = self._package / f"{name}.onnx" if ours else self._models / name / "model.onnx"
        with _readable(path):
            if not path.is_file():
                raise self._damaged(name, f"{path.name} is missing")
            with path.open("rb") as file:
                got = hashlib.file_digest(file, "sha256").hexdigest()
        if got != expected:
            raise self._damaged(name, f"{path.name} has sha256 {got[:12]}…, expected {expected[:12]}…")
        return path

    def known(self, name: str) -> ModelSpec:
        """What is known of a model that need not be installed here: a producer has no use for its weights.

        Raises:
            SetupError: when neither this store nor the catalogue knows it.
        """
        try:
            return self.spec(name)
        except SetupError:
            return find(name, self._package)

    def check_name(self, name: str) -> None:
        """Refuse what a model cannot be installed as.

        Raises:
            SetupError: when it is no name, or that of a shipped model.
        """
        if not _NAME.fullmatch(name):
            raise SetupError(f"A model cannot be named {name!r}.", "use a-z, 0-9, dot, dash and underscore")
        if name in shipped(self._package):
            raise SetupError(f"{name} is the name of a model that comes with Mattemill.", "choose another name")

    def install(
        self,
        spec: ModelSpec,
        onnx: bytes,
        footprint: Footprint | None = None,
        made: Mapping[str, object] = MappingProxyType({}),
    ) -> Path:
        """Write a model that fulfils the contract; gives the path of its model.onnx.

        Whatever interrupts it, a reader finds the old model, the new one, or one that it knows to be damaged.

        Raises:
            SetupError: when the name cannot be, or the home folder cannot be written or is full.
        """
        self.check_name(spec.name)
        card = Card(spec, hashlib.sha256(onnx).hexdigest(), footprint, made=made)
        with self._writable(spec.name) as folder:
            _write(folder / "model.onnx", onnx)
            _write(folder / "model.json", write_card(card))
        return folder / "model.onnx"

    def record(self, name: str, figures: Figures) -> None:
        """Keep what was measured on this machine; it replaces older figures of the same kind.

        Raises:
            SetupError: as `card`, and when the home folder cannot be written.
        """
        card = self.card(name)
        with self._writable(name) as folder:
            _write(folder / "figures.json", write_figures(card.spec.weights, card.figures.updated(figures)))

    def _written(self, name: str) -> Card:
        """The card as it was written at installation."""
        cards = shipped(self._package)
        if name in cards:
            return cards[name]
        path = self._models / name / "model.json"
        with _readable(path):
            # A name that is no name must not lead out of the folder.
            data = path.read_bytes() if _NAME.fullmatch(name) and path.is_file() else None
        if data is None:
            find(name, self._package)
            raise SetupError(f"Model {name} is not installed.", f"mattemill model fetch {name}")
        try:
            return read_card(name, data)
        except ContractError as error:
            raise self._damaged(name, str(error)) from error
        except ValueError as error:
            raise self._damaged(name, "model.json cannot be read") from error

    def _damaged(self, name: str, why: str) -> SetupError:
        if name in shipped(self._package):
            hint = "install Mattemill again"
        else:
            try:
                find(name, self._package)
                hint = f"mattemill model fetch {name}"
            except SetupError:
                hint = f"mattemill model import FILE --name {name}"
        return SetupError(f"Model {name} cannot be used: {why}.", hint)

    @contextmanager
    def _writable(self, name: str) -> Iterator[Path]:
        folder = self._models / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            yield folder
        except OSError as error:
            raise SetupError(
                f"The model cannot be written to {folder}: {error.strerror}.",
                "set MATTEMILL_HOME to a folder that can be written and has room",
            ) from error


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SetupError(
            f"{path} cannot be read: {error.strerror}.", "set MATTEMILL_HOME to a folder that can be read"
        ) from error


def _write(path: Path, data: bytes) -> None:
    """Replace a file as a whole: a reader, and a machine that loses power, find the old or the new one."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
