"""One rank's training loop."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed
from torch import nn

from model.networks.build import build, encoder_of
from model.networks.mobilenet import load_imagenet
from model.training import checkpoint, curves
from model.training.batches import Ahead, Batch, Batches
from model.training.checkpoint import Average, Progress
from model.training.config import Phase, TrainingConfig
from model.training.losses import matting_loss
from model.training.score import Scores, score

_LONGEST_STEP = 20.0
"""Seconds that one step counts at most: a longer one was paused from outside."""
_REPORT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Folders:
    """Where a run reads and writes.

    Attributes:
        data: what `mattemill model data` wrote.
        run: of this run: checkpoint.pt, history.jsonl, curves.png.
        encoder_weights: ImageNet weights for the encoder; None for random ones.
    """

    data: Path
    run: Path
    encoder_weights: Path | None


class Trainer:
    """Trains a network together with the other ranks of its process group, each on its own samples.

    Args:
        config: what to do.
        folders: where.
        batches: this rank's samples.
        rank: 0 reports, validates and saves.
        stop: asked after every step; the run is saved and left when any rank's says so.
        report: takes one line for the user and how far the run is, 0 to 1.
    """

    def __init__(
        self,
        config: TrainingConfig,
        folders: Folders,
        batches: Batches,
        rank: int,
        stop: Callable[[], bool],
        report: Callable[[str, float], None],
    ) -> None:
        self._config = config
        self._folders = folders
        self._batches = batches
        self._rank = rank
        self._stop = stop
        self._report = report
        self._device = torch.device(config.device)
        torch.manual_seed(config.seed)
        # Depthwise convolutions are twice as fast on a processor with the channels innermost.
        self.network = build(config.network).to(self._device)
        for value in self.network.parameters():
            value.data = value.data.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value.data
        self._start_weights()
        self._frozen = self._freeze()
        self._average = Average(self.network, config.optimiser.ema)
        self._optimiser = _optimiser(self.network, config)
        self._at = Progress()
        if self._checkpoint.is_file():
            self._at = checkpoint.load(self._checkpoint, config.network, self.network, self._average, self._optimiser)
        self._half = _half_precision(self._device)

    @property
    def _checkpoint(self) -> Path:
        return self._folders.run / "checkpoint.pt"

    def run(self) -> Progress:
        """Train until the time is up or `stop` says so; gives how far it came."""
        saved = validated = reported = time.monotonic()
        losses: list[float] = []
        ahead = Ahead(self._batches, depth=1 if self._config.device == "cpu" else 12)
        stopping = False
        try:
            while self._share() < 1 and not stopping:
                phase = next(phase for phase in self._config.phases if self._share() < phase.until)
                self._set_norms(phase)
                for batch in ahead.follow(self._at.step, phase):
                    loss, stopping = self._step(batch)
                    losses.append(loss)
                    now = time.monotonic()
                    if self._rank == 0 and (now - reported > _REPORT_SECONDS or self._share() >= 1):
                        scores = None
                        if now - validated > self._config.validate_minutes * 60 or self._share() >= 1:
                            scores = self._validate()
                            validated = time.monotonic()
                        self._tell(sum(losses) / len(losses), batch.side, scores)
                        losses, reported = [], now
                    if now - saved > self._config.checkpoint_seconds:
                        self._save()
                        saved = now
                    if stopping or self._share() >= phase.until:
                        break
        finally:
            ahead.close()
        self._save()
        return self._at

    def _step(self, batch: Batch) -> tuple[float, bool]:
        """One step of all ranks; gives this rank's loss and whether any rank wants to stop."""
        start = time.monotonic()
        for group, rate in zip(self._optimiser.param_groups, self._rates(), strict=True):
            group["lr"] = rate
        images = batch.images.to(self._device, non_blocking=True)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._half):
            coarse, logits = self.network.coarse_and_fine(images)
        loss = matting_loss(
            coarse.float(),
            logits.float(),
            batch.alpha.to(self._device, non_blocking=True),
            batch.contrast.to(self._device, non_blocking=True),
            batch.weight.to(self._device, non_blocking=True),
            self._config.loss.weights(),
        )
        self._optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        seconds, stopping = self._share_gradients(start)
        nn.utils.clip_grad_norm_(self.network.parameters(), self._config.optimiser.clip)
        self._optimiser.step()
        ranks = self._config.ranks
        self._at = Progress(self._at.step + 1, self._at.images + ranks * len(images), self._at.seconds + seconds)
        if self._rank == 0:
            self._average.update(self.network, self._at.step)
        return float(loss.detach()), stopping

    def _share_gradients(self, start: float) -> tuple[float, bool]:
        """Average the gradients of all ranks; gives what the first rank's clock says of this step and whether to stop.

        All ranks need the same clock, or they would disagree on rates and sizes.
        """
        mine = min(time.monotonic() - start, _LONGEST_STEP)
        stop = self._stop()
        if self._config.ranks == 1:
            return mine, stop
        grads = [value.grad for value in self.network.parameters() if value.grad is not None]
        clock = torch.tensor([mine if self._rank == 0 else 0.0, float(stop)])
        flat = torch.cat([*(grad.reshape(-1) for grad in grads), clock])
        torch.distributed.all_reduce(flat)
        seconds, stops = float(flat[-2]), float(flat[-1])
        flat /= self._config.ranks
        offset = 0
        for grad in grads:
            grad.copy_(flat[offset : offset + grad.numel()].view_as(grad))
            offset += grad.numel()
        return seconds, stops > 0

    def _share(self) -> float:
        return min(self._at.seconds / (60 * self._config.minutes), 1.0)

    def _rates(self) -> tuple[float, float]:
        """Of encoder and decoder: linear warm-up, then a cosine over the whole run."""
        settings = self._config.optimiser
        warm = min((self._at.step + 1) / max(settings.warm_up_steps, 1), 1.0)
        cosine = settings.final + (1 - settings.final) * (1 + math.cos(math.pi * self._share())) / 2
        return settings.encoder_rate * warm * cosine, settings.decoder_rate * warm * cosine

    def _set_norms(self, phase: Phase) -> None:
        """Fix the norms where a phase's batches are too small to measure means by; all ranks fix the same ones."""
        self.network.train()
        for layer in self._frozen:
            layer.eval()
        if not phase.freeze_norms:
            return
        for layer in self.network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.eval()
        if self._config.ranks > 1:
            for value in self.network.buffers():
                if value.is_floating_point():
                    torch.distributed.all_reduce(value)
                    value /= self._config.ranks

    def _validate(self) -> Scores:
        current = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        modes = [(layer, layer.training) for layer in self.network.modules()]
        self.network.load_state_dict(self._average.state)
        self.network.eval()
        try:
            return score(self.network, self._folders.data / "validation", self._config.validate_side, self._device)
        finally:
            self.network.load_state_dict(current)
            for layer, training in modes:
                layer.training = training

    def _tell(self, loss: float, side: int, scores: Scores | None) -> None:
        at = self._at
        report = curves.Report(
            at.step,
            at.images,
            at.seconds,
            side,
            loss,
            self._rates()[1],
            scores.studio if scores else None,
            scores.photo if scores else None,
        )
        history = self._folders.run / "history.jsonl"
        curves.append(history, report)
        curves.draw(curves.read(history), self._folders.run / "curves.png")
        found = f", IoU studio {scores.studio:.3f} photo {scores.photo:.3f}" if scores else ""
        speed = at.images / max(at.seconds, 1e-9)
        self._report(
            f"{at.seconds / 60:.1f} min, step {at.step}, {at.images} images ({speed:.1f}/s), "
            f"{side} px, loss {loss:.4f}{found}",
            self._share(),
        )

    def _save(self) -> None:
        if self._rank == 0:
            checkpoint.save(
                self._checkpoint, self._config.network, self.network, self._average, self._optimiser, self._at
            )

    def _freeze(self) -> list[nn.Module]:
        """Fix the encoder's first layers; gives them."""
        encoder = encoder_of(self.network)
        layers = list(encoder.features)[: self._config.frozen_layers] if encoder is not None else []
        for layer in layers:
            layer.requires_grad_(False)
        return layers

    def _start_weights(self) -> None:
        encoder = encoder_of(self.network)
        if encoder is not None and self._folders.encoder_weights is not None:
            weights = torch.load(self._folders.encoder_weights, map_location="cpu", weights_only=True)
            load_imagenet(encoder, weights)
        if self._config.start_from is not None:
            checkpoint.start_from(self._config.start_from, self._config.network, self.network)


def _optimiser(network: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW with two rates; biases and norms do not decay."""
    settings = config.optimiser
    groups = []
    for encoder, rate in ((True, settings.encoder_rate), (False, settings.decoder_rate)):
        groups.append({"params": list(_chosen(network, encoder)), "lr": rate})
    return torch.optim.AdamW(groups, weight_decay=settings.weight_decay)


def _chosen(network: nn.Module, encoder: bool) -> Iterator[nn.Parameter]:
    for name, value in network.named_parameters():
        if value.requires_grad and name.startswith("encoder.") == encoder:
            yield value


def _half_precision(device: torch.device) -> bool:
    """Whether bfloat16 pays: on a processor without instructions for it, it is ten times slower than float32."""
    if device.type == "cuda":
        supported: bool = torch.cuda.is_bf16_supported()
        return supported
    return torch.cpu._is_avx512_bf16_supported()
