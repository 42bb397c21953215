"""From a command to a running job: every check first, without writing anything, then the run and how it
ended.

`prepare` is all that --dry-run does, so what it accepts starts. Nothing is written before the folder is
claimed.
"""

import errno
import os
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

import mum
import shards
from pretrain.checkpoint import SaveFailedError, tidy
from pretrain.commandline import Command
from pretrain.devices import device_name, run_peak
from pretrain.errors import InputError
from pretrain.evaluation import Evaluation
from pretrain.files import read_json, write_json
from pretrain.guards import NonFiniteError, TooMuchDamageError
from pretrain.job import Job
from pretrain.optim import describe_schedule
from pretrain.parallel import World, check_world, lanes_per_pass, on_first, pick_device, process_group
from pretrain.probing import choose_data
from pretrain.recipes import hash_of, identity, to_dict
from pretrain.run_folder import Beginning, RunFolder, decide, versions
from pretrain.signals import Request, Signals
from pretrain.sinks import LogConfig, check_wandb, new_wandb_id
from pretrain.tasks import MaskedViews
from pretrain.trainer import Trainer
from pretrain.watchdog import Watchdog, open_store


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A command that was checked against its data, its folder and the number of ranks."""

    command: Command
    world: World
    device: torch.device
    dataset: shards.Dataset | shards.Mixture
    plan: shards.Plan
    task: MaskedViews
    folder: RunFolder
    beginning: Beginning
    initial: str
    """what --init brings into a run that begins, or empty"""
    header: dict[str, Any]

    @property
    def finished(self) -> bool:
        """Whether the folder holds this run with all its steps done, and the last one evaluated."""
        begins = self.beginning
        return begins.continues and begins.step >= self.command.config.steps and not begins.owes

    def figures(self) -> dict[str, Any]:
        """What would run, in figures."""
        config = self.command.config
        schedule = describe_schedule(config.optim, steps=config.steps, images_per_step=config.images_per_step)
        return {
            "recipe": self.command.recipe,
            "data": self.header["data"],
            "ranks": self.world.size,
            "device": str(self.device),
            "attention": self.task.attention,
            "parameters": self.task.parameters(),
            "lanes": config.data.lanes,
            "lanes_at_once": lanes_per_pass(config.parallel, lanes=config.data.lanes, size=self.world.size),
            "scenes_per_step": config.data.scenes_per_lane * config.data.lanes,
            "images_per_step": config.images_per_step,
            "steps_per_epoch": self.plan.steps_per_epoch,
            "epochs": round(config.steps / self.plan.steps_per_epoch, 2),
            "skipped_chunks": self.plan.skipped,
            "sources": self.plan.summary()["sources"],
            "begins_at_step": self.beginning.step,
            "initial": self.initial,
            **schedule,
        }

    def sentence(self) -> str:
        """What runs, in a line."""
        figures = self.figures()
        begins = f"goes on from step {self.beginning.step}" if self.beginning.step else "starts"
        if self.beginning.old_data is not None:
            begins += " with other data"
        ranks = f"{self.world.size} rank{'s' if self.world.size > 1 else ''} on {self.device.type}"
        return (
            f"{self.command.recipe} {begins} in {self.folder.root} with {ranks}, attention by "
            f"{self.task.attention}: "
            f"{figures['parameters'] / 1e6:.1f} M parameters, {figures['images_per_step']} images a step, "
            f"{figures['steps']} steps = {figures['epochs']} epochs of {len(self.plan.chunks)} chunks, "
            f"lr {figures['peak_lr']:g} after {figures['warmup_steps']} steps of warm-up"
        )


def prepare(command: Command, world: World) -> Prepared:
    """Check the command; InputError, or an error of the data or the model, says what does not fit."""
    config = command.config
    check_world(world.size, lanes=config.data.lanes, config=config.parallel)
    check_wandb(config.log)
    dataset = shards.open_mixture(command.data)
    if config.probe_every:
        choose_data(config.probe, dataset)
    plan = shards.Plan(dataset, config.data)
    device = pick_device(world)
    task = MaskedViews(config, device)
    data = describe_data(dataset)
    keeps = identity(command.recipe, config, [entry["name"] for entry in data])
    folder = RunFolder(command.out)
    beginning = decide(folder, command.resume, keeps, migrate=command.migrate)
    if config.init and beginning.start is not None and not beginning.continues:
        raise InputError("--init and --resume both name weights to begin with: give one of them")
    return Prepared(
        command=command,
        world=world,
        device=device,
        dataset=dataset,
        plan=plan,
        task=task,
        folder=folder,
        beginning=beginning,
        initial="" if beginning.start else task.initial(),
        header={
            "recipe": command.recipe,
            "hash": hash_of(keeps),
            "identity": keeps,
            "data": data,
            "versions": versions(),
        },
    )


def describe_data(dataset: shards.Dataset | shards.Mixture) -> list[dict[str, Any]]:
    """What a run says of its data; `name` is the hash, with the weight where there is one."""
    mixed = isinstance(dataset, shards.Mixture)
    told = []
    for one, weight in zip(dataset.datasets, dataset.weights, strict=True) if mixed else [(dataset, None)]:
        entry = {"path": str(one.root), "hash": one.hash, "chunks": one.num_chunks, "frames": one.num_frames}
        weighted = {} if weight is None else {"weight": weight}
        told.append({**entry, **weighted, "name": one.hash if weight is None else f"{one.hash}={weight!r}"})
    return told


def written(folder: RunFolder, key: str, default: Any) -> Any:
    """What config.json says already, where the run goes on; the default where it begins."""
    return read_json(folder.config).get(key, default) if folder.config.is_file() else default


def migrations(folder: RunFolder, beginning: Beginning, data: list[str]) -> list[dict[str, Any]]:
    """Every change of the run's data: the step after which it came, the old hashes and the new."""
    before = written(folder, "migrations", [])
    if beginning.old_data is None:
        return before
    return [*before, {"step": beginning.step, "from": list(beginning.old_data), "to": data}]


def logger_runs(log: LogConfig, folder: RunFolder, beginning: Beginning) -> dict[str, str]:
    """The names that loggers know this run by: those it has, or a new one where a logger is new to it."""
    there = read_json(folder.config).get("logger", {}) if beginning.continues else {}
    return there | ({"wandb": new_wandb_id()} if log.wandb and "wandb" not in there else {})


def launch(prepared: Prepared, say: Any) -> Request | None:
    """Run what was prepared, in all ranks together; `say` tells a line to whoever watches.

    Gives what asked it to stop, if anything did before its end. Raises NonFiniteError, SaveFailedError or
    InputError on all ranks; status.json tells the reason too.
    """
    world, folder, config = prepared.world, prepared.folder, prepared.command.config
    with ExitStack() as held:
        mesh = held.enter_context(process_group(world, prepared.device, config.parallel))

        def claim() -> None:
            held.enter_context(folder.claim())
            tidy(folder.checkpoints)

        signals = held.enter_context(Signals())
        on_first(claim)
        on_first(lambda: refuse_in_vain(folder))
        # Looked at again under the lock: the run may have moved on while this command waited for it.
        keeps = prepared.header["identity"]
        migrate = prepared.command.migrate
        beginning = on_first(lambda: decide(folder, prepared.command.resume, keeps, migrate=migrate))
        header = prepared.header | {
            "logger": on_first(lambda: logger_runs(config.log, folder, beginning)),
        }
        evaluation = Evaluation(
            prepared.dataset,
            config.evaluation,
            size=config.data.size,
            mask_ratio=config.model.mask_ratio,
            reference_view=config.model.reference_view,
            noise=prepared.task.noise,
            seed=config.data.seed,
            device=prepared.device,
        )

        def alarm(text: str) -> None:
            say(text)
            if world.first:
                folder.write_status("running", job.watchdog.step, config.steps, warning=text)

        watchdog = Watchdog(
            config.watchdog, rank=world.rank, size=world.size, store=open_store(world.size), say=alarm
        )
        job = Job(
            config=config,
            dataset=prepared.dataset,
            task=prepared.task,
            evaluation=evaluation,
            folder=folder,
            world=world,
            device=prepared.device,
            mesh=mesh,
            start=beginning.start,
            continues=beginning.continues,
            migrates=migrate,
            header=header,
            signals=signals,
            watchdog=watchdog,
        )
        if world.first:
            say(prepared.sentence())
            if prepared.initial:
                say(prepared.initial)
            if evaluation.missing:
                say(evaluation.missing)
            if run_peak(prepared.device, config.precision, config.log.peak_tflops) is None:
                say(
                    f"unknown device, hence no MFU: {device_name(prepared.device)} is not in the table of peaks "
                    "(--log.peak-tflops gives one)"
                )
            write_json(
                folder.config,
                {
                    **header,
                    "config": to_dict(config),
                    "model": prepared.task.describe(),
                    "evaluation": evaluation.describe(),
                    "parameters": prepared.task.parameters(),
                    "initial": prepared.initial or written(folder, "initial", ""),
                    "migrations": migrations(folder, beginning, keeps["data"]),
                },
            )
            folder.write_status("running", beginning.step, config.steps)
        held.enter_context(watchdog)
        return run_to_the_end(job)


def refuse_in_vain(folder: RunFolder) -> None:
    """InputError where torchrun starts a run anew that failed by its own decision, and would fail again."""
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) and folder.status.is_file():
        status = read_json(folder.status)
        if status["state"] == "failed" and not status.get("again", True):
            raise InputError(f"not started again by torchrun, since it would fail again: {status['reason']}")


def run_to_the_end(job: Job) -> Request | None:
    """Train, and write how it ended into status.json; gives what asked it to stop, if anything did."""
    steps = job.config.steps
    trainer: Trainer | None = None

    def ended(state: Any, reason: str, **more: Any) -> None:
        try:
            job.folder.write_status(state, trainer.step if trainer else 0, steps, reason, **more)
        except OSError:
            # A full disk may be the very reason: the caller tells it on stderr.
            return

    try:
        trainer = Trainer(job)
        request = trainer.run()
    except (NonFiniteError, SaveFailedError, TooMuchDamageError) as error:
        if job.world.first:
            ended("failed", str(error), again=False)
        raise
    except OSError as error:
        if error.errno != errno.ENOSPC:
            ended("failed", f"rank {job.world.rank}: {type(error).__name__}: {error}")
            error.own_rank = True
            raise
        told = InputError(
            f"the disk of {job.folder.root} is full at step {trainer.step if trainer else 0}: free some of it and "
            "give the same command again, which goes on from the newest whole checkpoint"
        )
        ended("failed", str(told), again=False)
        told.own_rank = True
        raise told from error
    except Exception as error:
        # This rank's own trouble: it speaks for itself, since the others know nothing of it.
        ended("failed", f"rank {job.world.rank}: {type(error).__name__}: {error}")
        error.own_rank = True
        raise
    if job.world.first:
        if request is None:
            ended("finished", "")
        else:
            ended("stopped", str(request), signal=request.signal)
    # No rank leaves before that is written: torchrun may end the others with it.
    dist.barrier()
    return request


def user_errors() -> tuple[type[Exception], ...]:
    """The errors that are told in one sentence, without a traceback."""
    return (InputError, NonFiniteError, TooMuchDamageError, shards.ShardsError, mum.WeightsError)
