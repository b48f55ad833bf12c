"""Runs of training the chat model: killed, stopped, short of memory, shared by processes."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel, OPTConfig, OPTForCausalLM

from chatbot.device import is_out_of_memory
from chatbot.errors import UserError
from chatbot.gpt.chat_tokens import CHATML
from chatbot.gpt.corpus import Report
from chatbot.gpt.dry_run import estimate
from chatbot.gpt.networks import compute_targets_only, new_model, parameters, unburden
from chatbot.gpt.options import Options, finetuning, pretraining
from chatbot.gpt.rows import IGNORED, Rows
from chatbot.gpt.run import Outcome, Run, Stopped
from chatbot.gpt.trainer import Steps, TokenTrainer
from chatbot.training import checkpoint
from chatbot.training.stats import Stats
from tests.training.chats import chats, lines, small_model, small_tokenizer, text_file

TINY: dict[str, Any] = {
    "vocabulary": 300, "layers": 2, "width": 32, "heads": 2, "block": 64, "batch_tokens": 512, "steps": 12,
    "evaluations": 3, "micro_rows": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def prose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_file(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def threads() -> None:
    torch.set_num_threads(1)


def options(prose: Path, **changes: Any) -> Options:
    return pretraining("nano", data=(str(prose),), **TINY | changes)


def start(
    run: Path, asked: Options | None, stopping: Callable[[], bool] = lambda: False, **more: Any
) -> tuple[Outcome, list[str]]:
    said: list[str] = []
    outcome = Run(
        run, asked, own=lambda report: [], private=run / "private", stopping=stopping,
        tell=lambda *said: None, complain=said.append, **more,
    ).go()  # fmt: skip
    return outcome, said


def after(steps: int, run: Path) -> Callable[[], bool]:
    """Asks to stop once it was asked so often after the run had begun."""
    counted = iter(range(10_000))
    return lambda: (run / "run.json").exists() and next(counted) >= steps


def weights(run: Path) -> dict[str, torch.Tensor]:
    folder = run / "checkpoints" / f"{checkpoint.numbers(run / 'checkpoints')[-1]:08d}"
    [file] = folder.glob("*model.safetensors")
    return load_file(file)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def command(prose: Path, run: Path, *more: str) -> list[str]:
    sizes = [
        word
        for name in ("vocabulary", "layers", "width", "heads", "block", "batch_tokens", "micro_rows")
        for word in (f"--{name.replace('_', '-')}", str(TINY[name]))
    ]
    return [
        sys.executable, "-m", "chatbot", "train", "gpt", "pretrain", "--data", str(prose), "--out", str(run),
        *sizes, *more,
    ]  # fmt: skip


def test_a_run_killed_in_its_middle_ends_bit_for_bit_as_one_that_was_not(prose: Path, tmp_path: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    more = ("--steps", "30", "--evaluations", "3", "--precision", "fp32")
    done = subprocess.run(
        command(prose, tmp_path / "whole", *more), env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    killed = tmp_path / "killed"
    script = (
        "import sys; from chatbot.gpt import watch; watch.FIRST_SAVE_S = watch.SAVE_S = 0.05;"
        "from chatbot.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    words = [sys.executable, "-c", script, *command(prose, killed, *more)[3:]]
    process = subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL)
    while len(checkpoint.numbers(killed / "checkpoints")) < 2 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert checkpoint.numbers(killed / "checkpoints")[-1] < 30
    resumed = subprocess.run(
        [*command(prose, killed)[:6], "--out", str(killed), "--resume"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert resumed.returncode == 0, resumed.stderr
    assert same(weights(killed), weights(tmp_path / "whole"))
    assert same(load_file(killed / "model/model.safetensors"), load_file(tmp_path / "whole/model/model.safetensors"))
    steps = [
        row["step"] for row in map(json.loads, (killed / "stats.jsonl").read_text().splitlines()) if "loss" in row
    ]
    assert steps == list(range(1, 31))


def test_adapters_stopped_again_and_again_end_as_those_that_were_not(tmp_path: Path) -> None:
    data = lines(tmp_path / "chats.jsonl", chats(80))
    base = small_model(tmp_path / "base")
    asked = finetuning(
        "lora", data=(str(data),), base="small", base_folder=str(base), block=128, batch_tokens=512, steps=7,
        evaluations=2, lora_rank=4,
    )  # fmt: skip
    outcome, _ = start(tmp_path / "whole", asked)
    stops = 0
    this: Options | None = asked
    while True:
        try:
            start(tmp_path / "parts", this, after(2, tmp_path / "parts"))
            break
        except Stopped:
            stops, this = stops + 1, None
    assert stops >= 2
    assert same(weights(tmp_path / "parts"), weights(tmp_path / "whole"))
    assert {path.name for path in outcome.model.iterdir()} >= {
        "adapter_model.safetensors", "adapter_config.json", "adapter.gguf", "tokenizer.json", "chat_template.jinja"
    }  # fmt: skip


def test_the_loss_falls_and_what_is_held_out_is_predicted_better(prose: Path, tmp_path: Path) -> None:
    outcome, said = start(tmp_path / "run", options(prose, steps=60, rate=1e-2))
    rows = [json.loads(line) for line in (tmp_path / "run" / "stats.jsonl").read_text().splitlines()]
    bits = [row["held_bits_per_byte"] for row in rows if "held_bits_per_byte" in row]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[0] == pytest.approx(math.log(300), rel=0.1)
    assert losses[-1] < 0.7 * losses[0]
    assert bits[-1] < bits[0]
    assert outcome.figures["held_bits_per_byte"] == min(bits)
    filled = Rows(tmp_path / "run" / "data" / "train", 64)
    assert outcome.figures["tokens"] == round(60 * 8 * filled.tokens / len(filled)) < 60 * 512
    assert any("→" in line for line in said), "samples are shown as it goes"
    report = (tmp_path / "run" / "report.html").read_text()
    assert "<svg" in report
    assert list((tmp_path / "run" / "tensorboard").iterdir())


class TooLittle:
    """A model that has memory for so many rows, in its forward pass or in the middle of its backward pass."""

    def __init__(self, model: Any, rows: int, *, backward: bool) -> None:
        self.forward, self.rows, self.backward, self.seen = model.forward, rows, backward, []

    def __call__(self, *arguments: Any, input_ids: torch.Tensor, **rest: Any) -> Any:
        self.seen.append(len(input_ids))
        output = self.forward(*arguments, input_ids=input_ids, **rest)
        if len(input_ids) > self.rows and rest.get("labels") is not None:
            if not self.backward:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            output.loss.register_hook(self._fail)
        return output

    @staticmethod
    def _fail(gradient: torch.Tensor) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: not enough memory")


@pytest.mark.parametrize("backward", [False, True])
def test_out_of_memory_halves_what_is_computed_at_once_and_the_run_goes_on(
    backward: bool, prose: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = options(prose, steps=3, micro_rows=8)
    start(tmp_path / "whole", asked)
    made: list[TooLittle] = []

    def poor(model: Any) -> None:
        compute_targets_only(model)
        made.append(TooLittle(model, 2, backward=backward))
        model.forward = made[0]

    monkeypatch.setattr("chatbot.gpt.run.compute_targets_only", poor)
    _, said = start(tmp_path / "poor", asked)
    assert [line for line in said if "memory" in line] == [
        "The memory did not suffice; 4 rows are computed at once from now on.",
        "The memory did not suffice; 2 rows are computed at once from now on.",
    ]
    assert made[0].seen[:3] == [8, 4, 2]
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "poor")
    assert all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)


def test_a_row_too_much_for_the_memory_is_said(prose: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def poor(model: Any) -> None:
        compute_targets_only(model)
        model.forward = TooLittle(model, 0, backward=False)

    monkeypatch.setattr("chatbot.gpt.run.compute_targets_only", poor)
    with pytest.raises(UserError, match="a smaller --block needs less"):
        start(tmp_path / "run", options(prose))
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))


def test_measuring_that_lacks_memory_once_is_begun_anew(
    prose: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = options(prose, steps=3, micro_rows=8, evaluations=1)
    start(tmp_path / "whole", asked)

    def poor(model: Any) -> None:
        compute_targets_only(model)
        forward, lacking = model.forward, [True]

        def once(*arguments: Any, **named: Any) -> Any:
            if named.get("labels") is not None and not torch.is_grad_enabled() and lacking:
                lacking.clear()
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return forward(*arguments, **named)

        model.forward = once

    monkeypatch.setattr("chatbot.gpt.run.compute_targets_only", poor)
    outcome, said = start(tmp_path / "poor", asked)
    assert "The memory did not suffice; 4 rows are computed at once from now on." in said
    whole = next(row for row in Stats(tmp_path / "whole", active=False).rows() if "held_bits_per_byte" in row)
    assert outcome.figures["held_bits_per_byte"] == whole["held_bits_per_byte"]


def test_memory_that_does_not_suffice_for_the_optimizer_is_said(
    prose: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(self: Any, closure: Any = None) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    with pytest.raises(UserError, match="does not suffice to train this model"):
        start(tmp_path / "run", options(prose))


@pytest.mark.parametrize("micro_rows", [1, 3, 8])
def test_gradients_are_the_same_however_many_rows_are_computed_at_once(
    micro_rows: int, prose: Path, tmp_path: Path
) -> None:
    gradients = []

    class Look(TokenTrainer):
        def training_step(self, model: Any, *arguments: Any, **named: Any) -> torch.Tensor:
            loss = super().training_step(model, *arguments, **named)
            gradients.append((float(loss), torch.cat([p.grad.flatten() for p in model.parameters()]).clone()))
            return loss

    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr("chatbot.gpt.run.TokenTrainer", Look)
        for at_once in (4, micro_rows):
            start(tmp_path / str(len(gradients)), options(prose, steps=1, micro_rows=at_once))
    (one, of_one), (other, of_other) = gradients
    assert one == pytest.approx(other, rel=1e-5)
    torch.testing.assert_close(of_one, of_other, atol=1e-6, rtol=1e-4)


def test_the_rows_of_a_step_depend_on_its_number_alone(prose: Path, tmp_path: Path) -> None:
    asked = options(prose)

    class Numbers:
        def __len__(self) -> int:
            return 100

        def batch(self, numbers: list[int]) -> list[int]:
            return list(numbers)

    def steps(begin: int, rank: int = 0, ranks: int = 1) -> list[list[int]]:
        return list(Steps(Numbers(), asked, 30, lambda: begin, rank, ranks))  # type: ignore[arg-type]  # numbers stand for rows

    whole = steps(0)
    assert steps(17) == whole[17:]
    epoch = [number for step in whole[:12] for number in step]
    assert len(set(epoch)) == len(epoch) == 96
    for number, (one, two) in enumerate(zip(steps(0, 0, 2), steps(0, 1, 2), strict=True)):
        assert sorted(one + two) == sorted(whole[number])


def test_a_tokenizer_can_be_reused(prose: Path, tmp_path: Path) -> None:
    start(tmp_path / "first", options(prose, steps=1))
    known = tmp_path / "first" / "data" / "tokenizer"
    start(tmp_path / "second", options(prose, steps=1, vocabulary=260, tokenizer=str(known)))
    again = tmp_path / "second" / "data" / "tokenizer"
    assert (again / "tokenizer.json").read_text() == (known / "tokenizer.json").read_text()


def test_a_run_stops_early_and_keeps_the_weights_that_were_best(tmp_path: Path) -> None:
    data = lines(tmp_path / "chats.jsonl", chats(60))
    base = small_model(tmp_path / "base")
    asked = finetuning(
        "full", data=(str(data),), base="small", base_folder=str(base), block=128, batch_tokens=256, steps=400,
        evaluations=200, patience=2, rate=0.05, warmup=0.0,
    )  # fmt: skip
    outcome, _ = start(tmp_path / "run", asked)
    assert outcome.figures["stopped_early"]
    assert outcome.figures["best_step"] == outcome.figures["steps"] - 4 < 396
    best = load_file(outcome.model / "model.safetensors")
    assert not same(best, weights(tmp_path / "run"))
    again, _ = start(tmp_path / "run", None)
    assert again.figures["steps"] == outcome.figures["steps"], "it is over, and is not gone on with"


@pytest.mark.parametrize("more", [(), ("--fsdp",)])
def test_two_processes_have_the_losses_of_one(more: tuple[str, ...], prose: Path, tmp_path: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    asked = ("--steps", "6", "--evaluations", "2", "--precision", "fp32", *more)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, *command(prose, tmp_path / "two", *asked)[1:]],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("is a candidate") == 1
    start(tmp_path / "one", options(prose, steps=6, evaluations=2, micro_rows=4))

    def rows(run: str) -> list[dict[str, float]]:
        return [
            row
            for row in map(json.loads, (tmp_path / run / "stats.jsonl").read_text().splitlines())
            if "samples" not in row
        ]

    one, two = rows("one"), rows("two")
    assert len(one) == len(two) == 8
    for here, there in zip(one, two, strict=True):
        names = here.keys() & {"loss", "gradient", "held_bits_per_byte"}
        assert names
        assert all(there[name] == pytest.approx(here[name], rel=1e-3) for name in names), here["step"]


def test_processes_compute_as_many_rows_at_once_as_each_has_room_for(tmp_path: Path) -> None:
    script = tmp_path / "find.py"
    script.write_text(
        "import sys; import torch; from transformers import LlamaForCausalLM; from chatbot.gpt import options, speed;"
        "from chatbot.training import parallel; rank, ranks = parallel.start();"
        "asked = options.finetuning('full', block=(64, 512)[rank], batch_tokens=8192);"
        "model = LlamaForCausalLM.from_pretrained(sys.argv[1]); cpu = torch.device('cpu');"
        "print(f'rows: {speed.find_micro_rows(model, asked, cpu, ranks)}', flush=True); parallel.finish()"
    )
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, str(script), str(small_model(tmp_path / "base"))],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert [line for line in done.stdout.splitlines() if line.startswith("rows")] == ["rows: 4", "rows: 4"]


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_model_has_the_losses_of_one_that_is_not(prose: Path, tmp_path: Path) -> None:
    from torch._dynamo.utils import counters

    losses = []
    counters.clear()
    for compiled in (False, True):
        run = tmp_path / str(compiled)
        start(run, options(prose, layers=1, steps=3, evaluations=1, compile=compiled))
        rows = Stats(run, active=False).rows()
        losses.append([row.get("loss", row.get("held_loss")) for row in rows if "samples" not in row])
    plain, fast = losses
    assert len(plain) == 4
    assert fast == pytest.approx(plain, rel=1e-4)
    assert counters["stats"]["unique_graphs"] == 1, "it is compiled for the rows of training alone"


def test_a_run_is_not_begun_over_another_nor_worked_on_by_two(prose: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run to resume"):
        start(tmp_path / "run", None)
    with pytest.raises(Stopped):
        start(tmp_path / "run", options(prose), after(1, tmp_path / "run"))
    with pytest.raises(UserError, match="There is a run"):
        start(tmp_path / "run", options(prose))
    with FileLock(tmp_path / "run" / ".lock"), pytest.raises(UserError, match="Another training is at work"):
        start(tmp_path / "run", None)


def test_a_stop_while_data_is_prepared_leaves_room_for_another_begin(prose: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped, match="nothing is kept yet"):
        start(tmp_path / "run", options(prose, steps=2), lambda: True)
    outcome, _ = start(tmp_path / "run", options(prose, steps=2))
    assert outcome.figures["steps"] == 2


@pytest.mark.parametrize("room", [30_000, 180_000])  # for no weights; for weights, and not for the optimizer's state
def test_a_full_disk_is_said_and_what_was_saved_stands(room: int, prose: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands in for a disk without room: the system refuses the write as well."""
    run = tmp_path / "run"
    with pytest.raises(Stopped):
        start(run, options(prose), after(1, run))
    [before] = checkpoint.numbers(run / "checkpoints")
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room}));"
        "from chatbot.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    words = ["train", "gpt", "pretrain", "--out", str(run), "--resume"]
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert checkpoint.numbers(run / "checkpoints") == [before]
    outcome, _ = start(run, None)
    assert outcome.figures["steps"] == 12


def test_a_new_model_predicts_no_better_than_chance_before_it_has_learned(prose: Path) -> None:
    class Known:
        bos_token_id = eos_token_id = pad_token_id = 0

        def __len__(self) -> int:
            return 300

    model = new_model(options(prose), Known())
    compute_targets_only(model)
    ids = torch.randint(0, 300, (2, 64))
    loss = (
        model(input_ids=ids, labels=ids.roll(-1, 1), position_ids=torch.arange(64).expand(2, -1)).loss / ids.numel()
    )
    assert float(loss) == pytest.approx(math.log(300), rel=0.02)


def test_124m_has_so_many_parameters() -> None:
    asked = pretraining("124m")

    class Known:
        bos_token_id = eos_token_id = pad_token_id = 0

        def __len__(self) -> int:
            return asked.vocabulary

    with torch.device("meta"):
        total, _ = parameters(new_model(asked, Known()))
    assert round(total / 1e6) == 124


def test_conversations_that_are_gone_when_a_run_goes_on_are_not_learned_after_all(tmp_path: Path) -> None:
    from chatbot.gpt.samples import Dialogue, Turn

    base = small_model(tmp_path / "base")
    own = [
        Dialogue((Turn("user", f"question {number}"), Turn("assistant", f"reply {number}")), f"conversation {number}")
        for number in range(30)
    ]
    asked = finetuning(
        "lora", conversations=True, base="small", base_folder=str(base), block=64, batch_tokens=128, steps=4
    )
    given: list[Report] = []

    def mine(report: Report) -> list[Dialogue]:
        given.append(report)
        return own

    def begin(options: Options | None, stopping: Callable[[], bool]) -> Outcome:
        return Run(
            tmp_path / "run", options, own=mine, private=tmp_path / "home" / "learning" / "run", stopping=stopping,
            tell=lambda *said: None, complain=lambda text: None,
        ).go()  # fmt: skip

    with pytest.raises(Stopped):
        begin(asked, after(1, tmp_path / "run"))
    private = tmp_path / "home" / "learning"
    assert (private / "run").is_dir()
    assert not (tmp_path / "run" / "data").exists()
    (private / "run").rename(private / "forgotten")
    with pytest.raises(UserError, match="begun anew"):
        begin(None, lambda: False)
    (private / "forgotten").rename(private / "run")
    begin(None, lambda: False)
    assert not (private / "run").exists(), "it is not kept longer than the run lasts"


def test_a_base_without_its_burdens_computes_the_same_in_training_too() -> None:
    config = GPT2Config(n_layer=2, n_head=2, n_embd=32, vocab_size=97, n_positions=32)
    assert config.activation_function == "gelu_new"
    model = GPT2LMHeadModel(config).eval()
    ids = torch.arange(32)[None]
    with torch.no_grad():
        before = model(ids).logits
        assert not torch.allclose(model.train()(ids).logits, before, atol=1e-3), "it had dropout"
        unburden(model)
        torch.testing.assert_close(model(ids).logits, before, atol=1e-5, rtol=1e-5)


def test_a_base_that_mixes_up_what_shares_a_row_is_trained_on_rows_apart_and_keeps_its_own_ends(
    tmp_path: Path,
) -> None:
    data = lines(tmp_path / "chats.jsonl", chats(40))
    base = small_model(tmp_path / "base", template=CHATML.replace("<|im_end|>", ""))
    [end] = small_tokenizer()("\n").input_ids
    config = OPTConfig(
        vocab_size=400, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, ffn_dim=32,
        word_embed_proj_dim=32, max_position_embeddings=128,
    )  # fmt: skip
    model = OPTForCausalLM(config)
    model.generation_config.eos_token_id = [7, end]
    model.save_pretrained(base)
    asked = finetuning(
        "full", data=(str(data),), base="opt", base_folder=str(base), block=128, batch_tokens=128, epochs=1.0,
        evaluations=1, micro_rows=1,
    )  # fmt: skip
    outcome, _ = start(tmp_path / "run", asked)
    assert outcome.figures["steps"] == outcome.corpus["learned"] > 30, "a step has a row, and a row a chat"
    kept = json.loads((outcome.model / "generation_config.json").read_text())["eos_token_id"]
    assert kept == [2, 7, end], "<|im_end|>, the tokenizer's, beside them"
    labels = Rows(tmp_path / "run" / "data" / "train", 128)[0]["labels"]
    assert labels[labels != IGNORED][-1] == end
    cost = estimate(asked, lambda report: (), lambda *said: None, lambda text: None)
    assert any(line.startswith(f"{outcome.figures['steps']} steps of 1 rows") for line in cost)
