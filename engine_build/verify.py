"""Prove an engine: the file whole, the network near the model, the engine near ONNX Runtime."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine_build.parity import Bound, check_parity, compare, onnx_runner
from engine_build.rounding import rounded
from model.engines.cuda.gpus import Gpu, Inventory, list_gpus
from model.engines.libraries import Library, Runtime, load_library
from model.engines.opener import check_driver, check_plan, run_plan
from model.engines.plans import Plan, PlanStore, read_plan
from model.engines.sidecar import Parity
from model.store import ModelStore
from pipeline.errors import SetupError

OK, BAD, NOT_RUN = "ok", "BAD", "not run"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        engine: name of the engine file.
        what: what was looked at.
        state: "ok", "BAD" or "not run".
        reason: figures, or why not.
        parity: where two ways of running the model were compared.
    """

    engine: str
    what: str
    state: str
    reason: str
    parity: Parity | None = None


class Verifier:
    """Looks at the engine files of a home folder.

    Args:
        home: MATTEMILL_HOME.
        photos: golden photos of each size bucket.
        bound: the largest difference that is taken.
        inventory: asks for the GPUs.
        load: loads a runtime.
    """

    def __init__(
        self,
        home: Path,
        photos: int,
        bound: Bound,
        inventory: Callable[[], Inventory] = list_gpus,
        load: Callable[[Runtime], Library] = load_library,
    ) -> None:
        self._home = home
        self._photos = photos
        self._bound = bound
        self._inventory = inventory
        self._load = load

    def verify(self, model: str, runtime: Runtime | None) -> list[Check]:
        """Every check of every engine file of a model, of one runtime or of both.

        Raises:
            SetupError: when there is no engine file, or the model is not installed.
        """
        ModelStore(self._home).path(model)
        paths = [
            path
            for path in PlanStore(self._home).paths()
            if path.parent.name == model and (runtime is None or _runtime_of(path) is runtime)
        ]
        if not paths:
            raise SetupError(
                f"There is no engine of {model} in {self._home / 'engines'}.",
                f"mattemill engine build {model} --runtime {runtime or Runtime.TENSORRT_RTX}",
            )
        return [check for path in paths for check in self._engine(path)]

    def _engine(self, path: Path) -> list[Check]:
        try:
            plan = read_plan(path)
        except SetupError as error:
            return [Check(path.name, "file and sidecar", BAD, str(error))]
        size = f"{len(plan.data)} bytes, sha256 {plan.sidecar.plan_sha256[:12]}…"
        return [
            Check(path.name, "file and sidecar", OK, size),
            self._tried(path, "network against the model", lambda: self._network(plan)),
            self._tried(path, "engine against ONNX Runtime", lambda: self._on_gpu(plan)),
        ]

    def _tried(self, path: Path, what: str, look: Callable[[], Parity]) -> Check:
        try:
            parity = look()
        except _CannotRunError as error:
            return Check(path.name, what, NOT_RUN, str(error))
        except SetupError as error:
            return Check(path.name, what, BAD, str(error))
        told = f"{parity.photos} photos, at most {parity.largest}/255, in the mean {parity.mean:g}/255"
        return Check(path.name, what, OK, told, parity)

    def _network(self, plan: Plan) -> Parity:
        """The network that was given to the builder, against the model, both on the processor."""
        side, store = plan.sidecar, ModelStore(self._home)
        command = f"mattemill engine build {side.model} --runtime {side.runtime}"
        source = store.path(side.model).read_bytes()
        if hashlib.sha256(source).hexdigest() != side.onnx_sha256:
            raise SetupError(f"{side.model} is another than the engine was built from.", command)
        try:
            network = plan.path.with_suffix(".onnx").read_bytes()
        except FileNotFoundError as error:
            raise _CannotRunError(f"{error.filename} is gone") from error
        if hashlib.sha256(network).hexdigest() != side.network_sha256:
            raise SetupError("The network beside the engine is not the one that it was built from.", command)
        parity = compare(
            onnx_runner(source), onnx_runner(rounded(network)), store.spec(side.model).size_buckets, self._photos
        )
        check_parity(parity, self._bound, "The network", command)
        return parity

    def _on_gpu(self, plan: Plan) -> Parity:
        from workers.devices import pin

        side, store = plan.sidecar, ModelStore(self._home)
        try:
            library, known = self._load(Runtime(side.runtime)), self._inventory()
            check_driver(library, known)
            gpu = self._fitting(plan, library, known)
        except SetupError as error:
            raise _CannotRunError(str(error)) from error
        pin(gpu, os.environ)
        with run_plan(plan, self._home, library, 1) as engine:
            reference = onnx_runner(store.path(side.model).read_bytes())
            parity = compare(reference, engine.infer, store.spec(side.model).size_buckets, self._photos)
        check_parity(parity, self._bound, "The engine", f"mattemill engine build {side.model} --precision fp32")
        return parity

    def _fitting(self, plan: Plan, library: Library, known: Inventory) -> Gpu:
        """The first GPU that this engine file is for.

        Raises:
            SetupError: says of one that is here why it is not.
        """
        sha256 = ModelStore(self._home).card(plan.sidecar.model).model_sha256
        why: SetupError | None = None
        for gpu in (one for card in known.gpus for one in (card.instances if card.mig else (card,))):
            try:
                check_plan(plan, library, gpu, sha256, f"mattemill engine build {plan.sidecar.model}")
            except SetupError as error:
                why = why or error
            else:
                return gpu
        raise why or SetupError("The NVIDIA driver lists no GPU.")


class _CannotRunError(Exception):
    """Nothing is wrong with the engine; this machine cannot tell."""


def _runtime_of(path: Path) -> Runtime:
    return Runtime.TENSORRT_RTX if path.name.startswith(f"{Runtime.TENSORRT_RTX}-") else Runtime.TENSORRT
