"""OpenRLHF's DeepSpeed strategy with checkpoints that are whole or do not count.

The strategy travels from the submitting process to every actor, so its methods are where policy and critic workers
save and load. `checkpoints.py` holds what happens on the disk.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import numpy
import torch
import torch.distributed as dist
from openrlhf.utils.deepspeed.deepspeed import DeepspeedStrategy
from openrlhf.utils.utils import is_vlm_model

from riskpo_openrlhf.console import say
from riskpo_openrlhf.integration import checkpoints, fingerprints
from riskpo_openrlhf.integration.checkpoints import ACTOR, PROBE, WRITING
from riskpo_openrlhf.integration.faults import RunFault
from riskpo_openrlhf.integration.resume import PromptLoader

BYTES_A_PARAMETER = 14  # weights in 2 bytes; master weights and Adam's two moments in 4 each
MODEL = f"{WRITING}model"


class RiskPOStrategy(DeepspeedStrategy):
    """OpenRLHF's strategy; saving and loading agree between ranks, and between actor and critic."""

    def save_ckpt(
        self, model, save_dir, tag=None, max_num=3, max_mem=1000, client_state=None, save_latest=True,
        metric_value=None, metric_key=None,
    ):  # fmt: skip
        """Write a checkpoint under another name. `finish_checkpoints`, called by the driver, makes it count.

        Raises `RunFault` on all ranks if the disk is too small.
        """
        part = Path(save_dir)
        writing = part / f"{WRITING}{tag}"

        def prepare() -> None:
            part.mkdir(parents=True, exist_ok=True)
            if writing.exists():
                shutil.rmtree(writing)
            checkpoints.require_space(part, tag, BYTES_A_PARAMETER * _parameters(model))
            writing.mkdir()  # DeepSpeed's writer would not say why it can't

        self._on_rank_0(prepare)
        try:
            model.save_checkpoint(save_dir, tag=writing.name, client_state=client_state or {}, save_latest=False)
            torch.save(_random_state(), writing / _random_file(self.get_rank()))
        except (OSError, RuntimeError) as error:
            checkpoints.require_writable(writing, error)
            if checkpoints.is_disk_full(error, part):
                shutil.rmtree(writing, ignore_errors=True)
                raise checkpoints.disk_full(part, tag, str(error).splitlines()[0]) from error
            raise
        names = _of_all_ranks(sorted(path.name for path in writing.iterdir()))

        def seal() -> None:
            seen = {path.name for path in writing.iterdir()}
            if missing := sorted(set().union(*names) - seen):
                raise _not_shared(part, f"rank 0 does not see {missing[0]}, which another rank wrote")
            self._write_ckpt_metric(str(writing), metric_value, metric_key=metric_key)
            checkpoints.seal(writing, dist.get_world_size(), fingerprints.of(self.args))

        self._on_rank_0(seal)

    def finish_checkpoints(self) -> None:
        """Make checkpoints count that actor and critic have both written. The actor's ranks call it together."""
        self._on_rank_0(lambda: checkpoints.finish(*self._place()))

    def load_ckpt(self, model, load_dir, tag=None, **options):
        """Load the newest whole checkpoint; `(None, {})` if there is none.

        Raises `RunFault` on all ranks if it belongs to another run, or if a rank does not see its files.
        """
        if self.use_ds_universal_ckpt:  # converted by hand: DeepSpeed reads `latest_universal`
            return super().load_ckpt(model, load_dir, tag, **options)
        part = Path(load_dir)
        tag = tag or self._on_rank_0(lambda: self._choose(part))
        if tag is None:
            return None, {}
        folder = part / tag
        for rank, problem in enumerate(_of_all_ranks(checkpoints.damage(folder))):
            if problem:
                raise _not_shared(part, f"rank {rank} can't read checkpoint {tag}: {problem}")
        ranks = (checkpoints.read_manifest(folder) or {}).get("ranks", dist.get_world_size())
        if ranks != dist.get_world_size():
            path, states = self._load_of_other_ranks(model, part, tag, ranks, options)
        else:
            path, states = super().load_ckpt(model, load_dir, tag, **options)
        random_file = folder / _random_file(self.get_rank())
        if path is not None and random_file.exists():
            _set_random_state(torch.load(random_file, weights_only=False))
        return path, states

    def _load_of_other_ranks(self, model, part: Path, tag: str, ranks: int, options: dict):
        """Load a checkpoint that another number of ranks wrote, through DeepSpeed's universal checkpoint."""
        line = fingerprints.other_ranks(part / tag, ranks, dist.get_world_size(), self.stage)
        universal = part / f"{WRITING}universal"

        def convert() -> None:
            say(line)
            checkpoints.require_space(part, universal.name, BYTES_A_PARAMETER * _parameters(model))
            checkpoints.convert(part / tag, universal)

        self._on_rank_0(convert)
        model._config.load_universal_checkpoint = True  # DeepSpeed asks at each load
        try:
            loaded = super().load_ckpt(model, str(part), universal.name, **options)
        finally:
            model._config.load_universal_checkpoint = False
        dist.barrier()  # not after an error, which would wait here for ranks that wait elsewhere
        self._on_rank_0(lambda: shutil.rmtree(universal))
        return loaded

    def save_model(self, model, tokenizer, output_dir, **more) -> None:
        """Write a model beside its place and move it there file by file, when all of it is written.

        OpenRLHF's policy worker saves the tokenizer of a vision-language model, but not its image processor, and no
        engine can load such a folder. It is added here.
        """
        output = Path(output_dir)
        new = output / MODEL
        self._on_rank_0(lambda: shutil.rmtree(new, ignore_errors=True))
        super().save_model(model, tokenizer, str(new), **more)

        def move() -> None:
            if is_vlm_model(self.args.actor.model_name_or_path):
                from transformers import AutoProcessor

                base = self.args.actor.model_name_or_path
                AutoProcessor.from_pretrained(base, trust_remote_code=True).save_pretrained(new)
            for path in sorted(new.iterdir(), key=lambda path: path.name == "config.json"):  # it makes it a model
                if (output / path.name).is_dir():  # of an earlier model, such as several chat templates
                    shutil.rmtree(output / path.name)
                os.replace(path, output / path.name)
            new.rmdir()

        self._on_rank_0(move)

    def setup_dataloader(self, dataset, batch_size, pin_memory=False, shuffle=True, *args, **options):
        """Make OpenRLHF's loader. The one of the prompts, which is shuffled, keeps what OpenRLHF's would lose."""
        loader = super().setup_dataloader(dataset, batch_size, pin_memory, shuffle, *args, **options)
        return PromptLoader(loader) if shuffle else loader

    def require_shared_folder(self) -> None:
        """Check at the start that all ranks see one folder for checkpoints. Raises `RunFault` on all ranks.

        A run that does not resume settles here what an interrupted one has left in the folder: else the first
        `finish_checkpoints` would take it for this run's.
        """
        if self.args.ckpt.disable_ds or max(self.args.ckpt.save_steps, self.args.eval.steps) <= 0:
            return  # no checkpoint will be written, except at a fault
        if not self.args.ckpt.load_enable:
            self._on_rank_0(self._recover)
        part = Path(self.args.ckpt.path) / ACTOR
        probe = part / f"{PROBE}{os.urandom(4).hex()}"
        name = self._on_rank_0(lambda: (part.mkdir(parents=True, exist_ok=True), probe.touch(), probe.name)[-1])
        seen = _of_all_ranks((socket.gethostname(), (part / name).exists()))
        self._on_rank_0(lambda: probe.unlink(missing_ok=True))
        if blind := sorted({host for host, sees in seen if not sees}):
            raise _not_shared(part, f"node {', '.join(blind)} does not see what node {seen[0][0]} writes")

    def _recover(self) -> None:
        for line in checkpoints.recover(*self._place()):
            say(line)

    def _choose(self, part: Path) -> str | None:
        if part.name != ACTOR:  # the actor came first and has settled it
            return checkpoints.read_latest(part)
        self._recover()
        place = self._place()
        tag, lines = checkpoints.choose(*place[:2])
        for line in lines:
            say(line)
        if tag is not None:
            manifest = checkpoints.read_manifest(part / tag) or {}
            for line in fingerprints.compare(manifest.get("fingerprints"), self.args, part / tag):
                say(line)
        checkpoints.point_latest(*place[:2], tag)
        return tag

    def _place(self) -> tuple[Path, bool, int, float]:
        ckpt = self.args.ckpt
        return Path(ckpt.path), bool(self.args.critic.model_name_or_path), ckpt.max_num, ckpt.max_mem

    def _on_rank_0(self, function: Callable):
        """Call `function` on rank 0. All ranks return its result, or raise its error: none waits for another."""
        answer = [None, None]
        if self.get_rank() == 0:
            try:
                answer[0] = function()
            except Exception as error:
                answer[1] = error
        dist.broadcast_object_list(answer, src=0)
        if answer[1] is not None:
            raise answer[1]
        return answer[0]


def _of_all_ranks(value) -> list:
    """Return every rank's value."""
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def _not_shared(part: Path, what: str) -> RunFault:
    return RunFault(
        f"--ckpt.path {part.parent} is not one folder for all ranks: {what}",
        "Set --ckpt.path to a folder on a file system that every node has mounted (NFS, Lustre, ...)",
    )


def _parameters(model) -> int:
    return sum(getattr(parameter, "ds_numel", parameter.numel()) for parameter in model.parameters())


def _random_file(rank: int) -> str:
    return f"random_state_rank{rank}.pt"


def _random_state() -> dict:
    state = {"torch": torch.get_rng_state(), "numpy": numpy.random.get_state(), "python": random.getstate()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _set_random_state(state: dict) -> None:
    torch.set_rng_state(state["torch"])
    numpy.random.set_state(state["numpy"])
    random.setstate(state["python"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
