"""Memory and utilisation of the GPUs that a supervisor's workers run on, asked of NVML when its page is read."""

from collections.abc import Callable, Iterator, Sequence

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from model.engines.cuda.gpus import GpuLoad, gpu_loads
from pipeline.errors import SetupError
from workers.devices import CPU, Assignment

_GAUGES = {
    "gpu_memory_used_bytes": "Memory in use on a GPU or MIG instance, by whatever process.",
    "gpu_memory_bytes": "Memory of a GPU or MIG instance.",
    "gpu_utilisation_ratio": "Share of the last sample period in which a GPU worked; MIG instances tell none.",
}


class GpuGauges:
    """A Prometheus collector.

    Args:
        devices: the assignments of the workers; those without a GPU show nothing.
        look: asks for the load of GPUs by UUID.
    """

    def __init__(self, devices: Sequence[str], look: Callable[[Sequence[str]], dict[str, GpuLoad]] = gpu_loads) -> None:
        self._uuids = sorted({Assignment.parse(device).device for device in devices} - {CPU})
        self._look = look

    def describe(self) -> list[Metric]:
        """Every gauge there is, without values."""
        return list(_families().values())

    def collect(self) -> Iterator[Metric]:
        """The values of this moment; none where NVML does not answer."""
        found = _families()
        try:
            loads = self._look(self._uuids) if self._uuids else {}
        except SetupError:
            loads = {}  # a worker on such a GPU says so itself
        for uuid, load in loads.items():
            found["gpu_memory_used_bytes"].add_metric([uuid], load.used)
            found["gpu_memory_bytes"].add_metric([uuid], load.memory)
            if load.busy is not None:
                found["gpu_utilisation_ratio"].add_metric([uuid], load.busy)
        yield from found.values()


def _families() -> dict[str, GaugeMetricFamily]:
    return {name: GaugeMetricFamily(f"mattemill_{name}", about, labels=["uuid"]) for name, about in _GAUGES.items()}
