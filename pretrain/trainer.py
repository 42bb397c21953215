"""The loop: batches in, updates out, and at fixed steps an evaluation and a checkpoint.

It sees a task's loss and never the objective. All ranks run it in step; every decision that stops, skips or
saves is taken from values that are the same on each of them, signals included. Steps are counted as updates
done.
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

import shards
from pretrain import checkpoint
from pretrain.averaging import RunningMean
from pretrain.devices import run_peak
from pretrain.guards import DamageGuard, FiniteGuard, NonFiniteError, TooMuchDamageError
from pretrain.job import Job
from pretrain.ledger import Ledger, Row
from pretrain.optim import build_optimizer, learning_rate, peak_lr, set_learning_rate
from pretrain.parallel import lanes_per_pass, local, prepare_model, reduce_mean, whole_weights
from pretrain.probing import Probing, choose_data
from pretrain.profiling import Profile
from pretrain.recipes import hash_of, to_dict
from pretrain.signals import Request
from pretrain.tasks import Inputs
from pretrain.telling import Telling

AVERAGE = "average"
"""What checkpoints call the running mean of the weights."""


class _CutShort(Exception):
    """A signal asked to stop in the midst of an evaluation."""


class Trainer:
    """One run from its first or newest step to its last."""

    def __init__(self, job: Job) -> None:
        self.job, self.config = job, job.config
        model = job.task.build()
        if job.start is None:
            job.task.fill(model)
        self.model = prepare_model(model, job.config.parallel, job.mesh)
        self.optimizer = build_optimizer(self.model, job.config.optim)
        self.average = RunningMean(self.model, job.config.optim.ema) if job.config.optim.ema else None
        self.step = 0
        self.owed: Row | None = None
        """the row of this step, where a signal came before its evaluation"""
        if job.start is not None:
            state = checkpoint.load(
                job.start, model=self.model, optimizer=self.optimizer, extra=self._extra()
            )
            self.step = state["step"]
            self.owed = state.get("owed") if job.continues else None
            if self.average and AVERAGE not in state.get("extra", ()):
                self.average.restart()
        self.loader = shards.Loader(
            job.dataset,
            job.config.data,
            rank=job.world.rank,
            world=job.world.size,
            lanes_at_once=lanes_per_pass(
                job.config.parallel, lanes=job.config.data.lanes, size=job.world.size
            ),
            workers=job.config.workers,
            start_step=self.step,
            cameras=job.task.cameras,
        )
        skipped = 0
        if job.start is not None and job.continues:
            self.loader.check(state["loader"], migrate=job.migrates)
            skipped = state.get("skipped", 0)
        self.guard = FiniteGuard(job.config.guard, job.device, skipped)
        self.peak = peak_lr(job.config.optim, job.config.images_per_step)
        self.last: Row = {}
        self.saver = checkpoint.Saver(
            job.folder.checkpoints,
            job.config.checkpoint,
            model=self.model,
            optimizer=self.optimizer,
            extra=self._extra(),
        )

    def _extra(self) -> dict[str, checkpoint.Tensors]:
        """What checkpoints keep beside model and optimizer."""
        return {AVERAGE: self.average.tensors()} if self.average else {}

    def run(self) -> Request | None:
        """Train to the last step; what asked to stop before it, if anything did, once that is saved.

        Raises NonFiniteError, TooMuchDamageError or SaveFailedError on all ranks together.
        """
        config, job = self.config, self.job
        damage = DamageGuard(config.damage_limit, config.images_per_step)
        ledger = Ledger(
            lanes=config.data.lanes,
            images_per_step=config.images_per_step,
            device=job.device,
            peak=run_peak(job.device, config.precision, config.log.peak_tflops),
        )
        told = profile = probing = None
        if job.world.first:
            wandb_id = job.header["logger"].get("wandb")
            told = Telling(config, job.folder, self.step - (self.owed is not None), wandb_id=wandb_id)
            if config.profile:
                window = config.log.profile_window
                profile = Profile(job.folder.profile, start=self.step, window=window, say=told.note)
            if config.probe_every:
                probing = Probing(
                    job.folder.probes,
                    job.folder.scores,
                    start=self.step,
                    config=config.probe,
                    data=choose_data(config.probe, job.dataset),
                    size=config.data.size,
                    device=job.device,
                )
        batches = iter(self.loader)
        try:
            if job.signals.poll() is None and self.owed is not None:
                self._tell(told, [self.owed], evaluates=not job.evaluation.missing)
                if self.step == config.steps and self.owed is None:
                    self._save(last=True)
            first = self.step
            if config.probe_every and self.step % config.probe_every == 0:
                self._probe(probing)
            while self.step < config.steps and job.signals.agreed is None:
                job.signals.begin()
                self._update(batches, ledger)
                if profile:
                    profile.step()
                stops = job.signals.answer() is not None
                if self.step == first + 1:
                    # It may have compiled for minutes.
                    stops = job.signals.poll() is not None
                evaluates = self._at(config.evaluation.every) and not job.evaluation.missing
                saves = self._at(config.checkpoint.every) or self.step == config.steps
                probes = self._at(config.probe_every)
                if not (evaluates or saves or probes or stops or self._at(max(1, config.log.every))):
                    continue
                self._phase("metrics")
                rows = ledger.flush()
                good, fault = self.guard.read(rows)
                rows = rows[:good]
                if rows:
                    self._tell(told, rows, evaluates and fault is None)
                if fault is not None:
                    raise fault
                damage.watch(rows)
                if told and probing:
                    told.score(probing.ready())
                if probes:
                    self._probe(probing)
                if job.signals.poll() is not None or saves:
                    self._save(last=job.signals.agreed is not None or self.step == config.steps)
                ledger.restart_clock()
            if config.probe_every:
                self._until_scored(probing)
            if told and probing:
                told.score(probing.ready())
            self.saver.close()
        except (NonFiniteError, TooMuchDamageError):
            # All ranks end here together, so the checkpoint under way can still be made whole.
            self.saver.close()
            raise
        finally:
            # At once: an error keeps this frame alive, and Python waits for the workers when it ends.
            batches.close()
            if probing:
                probing.close()
            if profile:
                profile.close()
            if told:
                for text in self.saver.news():
                    told.note(text)
                told.close()
        return job.signals.agreed if self.step < config.steps or self.owed is not None else None

    def _tell(self, told: Telling | None, rows: list[Row], evaluates: bool) -> None:
        """Evaluate, if it is time, and tell the rows up to this step; an evaluation that a signal prevents is
        owed."""
        picture = None
        self.owed = None
        if evaluates:
            try:
                figures, picture = self._evaluate()
                rows[-1].update(figures)
            except _CutShort:
                self.owed = dict(rows[-1])
        self.last |= {name: value for name, value in rows[-1].items() if value is not None}
        self._phase("writing metrics")
        news = self.saver.news()
        if told:
            told.tell(rows, picture, news, self.saver.trouble)

    def _phase(self, name: str) -> None:
        """Tell the watchdog what begins."""
        self.job.watchdog.phase(name, self.step)

    def _at(self, every: int) -> bool:
        """Whether something done every so many steps is due; the last step always is."""
        return every > 0 and (self.step % every == 0 or self.step == self.config.steps)

    def _update(self, batches: Iterator[shards.Batch], ledger: Ledger) -> None:
        """One step: the gradient of the whole global batch, then the update."""
        passes = self.loader.micro_batches_per_step
        lr = learning_rate(
            self.step, steps=self.config.steps, peak=self.peak, warmup=self.config.optim.warmup
        )
        total = torch.zeros((), device=self.job.device)
        checks: dict[int, int] = {}
        drawn, wait, flops, substituted = [], 0.0, 0, []
        for number in range(passes):
            self._phase("data")
            asked = time.perf_counter()
            batch = next(batches)
            wait += time.perf_counter() - asked
            inputs, sums = self.job.task.inputs(batch)
            checks |= sums
            drawn.append((batch.overlap, batch.outside))
            # The backward pass asks for twice what the forward pass does.
            flops += 3 * self.job.task.flops(batch.views.tolist())
            substituted += [event | {"step": self.step + 1} for event in batch.substituted]
            self._phase("forward and backward")
            # Gradients are reduced over the ranks once, with the last pass.
            self.model.set_requires_gradient_sync(number == passes - 1)
            with self._precision():
                loss = self.job.task.loss(self.model, self._to_device(inputs)) / passes
            loss.backward()
            total += loss.detach()
        self._phase("update")
        loss = reduce_mean(total)
        clip = self.config.optim.clip
        norm = local(
            nn.utils.clip_grad_norm_(self.model.parameters(), float("inf") if clip is None else clip)
        )
        self.guard.watch(loss, norm, self.optimizer)
        set_learning_rate(self.optimizer, lr)
        self.saver.before_update()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average:
            self.average.update(self.step, self.guard.tripped)
        self.step += 1
        ledger.add(
            step=self.step,
            lr=lr,
            loss=loss,
            grad_norm=norm,
            checks=checks,
            drawn=drawn,
            wait=wait,
            flops=flops,
            substituted=substituted,
        )

    def _precision(self) -> AbstractContextManager[Any]:
        if self.config.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.job.device.type, dtype=torch.bfloat16)

    def _to_device(self, inputs: Inputs) -> Inputs:
        # View counts stay on the host, which reads them without waiting for the device. From memory that is not
        # pinned a copy would wait for all that the device still has to do.
        device = self.job.device
        pinned = {
            name: value.pin_memory() if device.type == "cuda" else value for name, value in inputs.items()
        }
        return {
            name: value if name == "views" else value.to(device, non_blocking=True)
            for name, value in pinned.items()
        }

    def _evaluate(self) -> tuple[Row, Any]:
        """Held-out figures and a picture. Every rank computes the same: a sharded model needs them all.

        Raises _CutShort on all of them if a signal asks to stop before or within it.
        """

        def go_on() -> None:
            if self.job.signals.poll() is not None:
                raise _CutShort
            self._phase("evaluation")

        with self._precision():
            go_on()
            figures = self.job.evaluation(self.model, go_on)
            go_on()
            picture = self.job.evaluation.picture(self.model)
        if self.average:
            # A save under way may be copying both. An autocast of its own, since it keeps what it has rounded.
            self.saver.before_update()
            with self.average.in_place(), self._precision():
                go_on()
                figures["val_loss_ema"] = self.job.evaluation(self.model, go_on)["val_loss"]
        return figures, picture

    def _probe(self, probing: Probing | None) -> None:
        """Have this step's weights scored, which all ranks gather and rank 0 hands over; an earlier score comes
        first, and a signal to stop before either."""
        if self.job.signals.agreed is not None or not self._until_scored(probing):
            return
        self._phase("snapshot for the probes")
        weights = whole_weights(self.model)
        if probing:
            summary = {"recipe": self.job.header["recipe"], "step": self.step}
            probing.take(self.step, lambda path: self.job.task.save(weights, path, summary))

    def _until_scored(self, probing: Probing | None) -> bool:
        """Wait in all ranks until rank 0 has its scores; False if a signal asks to stop before."""
        while True:
            self._phase("probing")
            busy = torch.tensor(float(bool(probing and probing.busy)))
            if reduce_mean(busy) == 0:
                return True
            if self.job.signals.poll() is not None:
                return False
            time.sleep(0.1)

    def _save(self, *, last: bool) -> None:
        """Begin the checkpoint of this step; the last one is whole when this returns, or SaveFailedError."""
        self._phase("checkpoint")
        job, config = self.job, self.config
        summary = {
            "recipe": job.header["recipe"],
            "step": self.step,
            "steps": config.steps,
            "images": self.step * config.images_per_step,
            "data": job.header["data"],
            "config": to_dict(config),
            "loss": self.last.get("loss"),
            "val_loss": self.last.get("val_loss"),
            "cross_view_gain": self.last.get("cross_view_gain"),
        }
        files = [
            checkpoint.WeightsFile(
                name="model.safetensors",
                group="model",
                write=lambda weights, path: job.task.save(weights, path, summary),
            )
        ]
        if self.average:
            mean = summary | {"val_loss": self.last.get("val_loss_ema"), "ema": config.optim.ema}
            files.append(
                checkpoint.WeightsFile(
                    name="ema.safetensors",
                    group=AVERAGE,
                    write=lambda weights, path: job.task.save(weights, path, mean),
                )
            )
        self.saver.save(
            self.step,
            state={
                "images": self.step * config.images_per_step,
                "ranks": job.world.size,
                "loader": self.loader.state(self.step),
                "owed": self.owed,
                "skipped": self.guard.skipped,
                "config": to_dict(config),
                "config_hash": hash_of(to_dict(config)),
                **job.header,
            },
            files=files,
            last=last,
        )
