"""The speed options: the same mathematics, and one line for what a device cannot do. GPU parts skip without one."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from trainkit import loop
from trainkit.building import components
from trainkit.building.run import build_run
from trainkit.checkpoints import checkpoint
from trainkit.cli import main
from trainkit.config.compose import check_jobs
from trainkit.config.folders import install
from trainkit.config.frame import Train
from trainkit.data.batch import Batch
from trainkit.losses.base import Loss, as_loss
from trainkit.losses.classes import cross_entropy
from trainkit.models._blocks import GlobalMax
from trainkit.tasks.meter import sum_terms
from trainkit.training.run import Run
from trainkit.training.signals import Stop
from trainkit.training.speed import prepare

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def config(*words: str) -> Train:
    install([])
    (frame,) = check_jobs("train", ["device.threads=1", *words], False, [])
    assert isinstance(frame, Train)
    return frame


def losses_of(config: Train, steps: int = 6) -> tuple[list[float], Run]:
    device = components.build_device(config)
    run = build_run(config, components.build_data(config, device), device, Stop())
    run.model.train()
    losses = []
    for batch in run.train.epoch(0):
        losses.append(float(sum_terms(loop.train_step(run, batch)[0])))
        run.step += 1
        if len(losses) == steps:
            break
    return losses, run


CNN = ["model=cnn", "optim=sgd"]


@pytest.mark.parametrize("parts", [2, 3, 128])
@pytest.mark.parametrize("loss", [[], ["loss=cross_entropy", "loss.weight=[1,2,3,4,5,6,7,8,9,10]"]])
def test_accumulation_is_the_mathematics_of_the_whole_batch(parts: int, loss: list[str]) -> None:
    whole, run = losses_of(config(*CNN, *loss))
    split, split_run = losses_of(config(*CNN, *loss, f"accumulate={parts}"))
    assert split == pytest.approx(whole, rel=1e-4)
    for a, b in zip(run.parameters, split_run.parameters, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_share_by_samples_and_by_class_weights() -> None:
    labels = torch.tensor([0, 1, 1, 2])
    batch = Batch(torch.zeros(4, 3), labels, torch.arange(4))
    first, *_ = batch.chunk(4)
    plain, weighted = as_loss(cross_entropy(3)), as_loss(cross_entropy(3, weight=[1.0, 2.0, 5.0]))
    assert plain.weight(first) / plain.weight(batch) == 0.25
    assert float(weighted.weight(first) / weighted.weight(batch)) == pytest.approx(0.1)


NO_FIRST = torch.tensor([0.0, 2.0, 5.0])
PLAIN = {
    "class weights": nn.CrossEntropyLoss(weight=NO_FIRST),
    "ignored": nn.CrossEntropyLoss(ignore_index=0),
    "both": nn.CrossEntropyLoss(weight=NO_FIRST, ignore_index=0),
}


class OnHost(Loss):
    """A weight that the host knows, and that is 0 where a batch is of the first class alone."""

    def forward(self, outputs: torch.Tensor, batch: Batch) -> dict[str, torch.Tensor]:
        return {"fit": PLAIN["ignored"](outputs, batch.targets), "nothing": 0 * outputs.sum()}

    def weight(self, batch: Batch) -> float:
        return int((batch.targets != 0).sum())


@pytest.mark.parametrize("loss_fn", [*map(as_loss, PLAIN.values()), OnHost()], ids=[*PLAIN, "on host"])
def test_a_part_that_weighs_nothing_changes_nothing(loss_fn: Loss) -> None:
    batch = Batch(torch.randn(6, 4), torch.tensor([0, 0, 1, 2, 2, 0]), torch.arange(6))
    _, run = losses_of(config("dataset=iris", "model=linear", "device=cpu"), steps=1)
    run.loss_fn = loss_fn
    loss, _ = loop.forward_backward(run, batch)
    whole = [parameter.grad.clone() for parameter in run.parameters]
    run.accumulate = 3
    parts, _ = loop.forward_backward(run, batch)
    torch.testing.assert_close(sum_terms(parts), sum_terms(loss))
    for parameter, gradient in zip(run.parameters, whole, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    batch.targets.zero_()  # nothing in the whole batch
    for run.accumulate in (1, 3):
        assert sum_terms(loop.forward_backward(run, batch)[0]).isnan()


def test_bf16_stays_close_to_fp32_and_keeps_fp32_weights() -> None:
    exact, _ = losses_of(config(*CNN))
    rounded, run = losses_of(config(*CNN, "precision=bf16"))
    assert rounded != exact
    assert rounded == pytest.approx(exact, rel=0.05)
    assert {parameter.dtype for parameter in run.parameters} == {torch.float32}


def test_channels_last_is_the_same_function() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 2))
    images = torch.randn(5, 3, 8, 8)
    expected = model(images)
    outputs = prepare(model, CPU, channels_last=["x"])(images)
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(outputs, expected, atol=1e-5)


DEEP = [*CNN, "model.channels=[8,8,8]", "model.norm=batch", "model.dropout=0.3"]


def test_recomputation_gives_the_same_bits() -> None:
    plain, run = losses_of(config(*DEEP))
    again, recomputed = losses_of(config(*DEEP, "recompute=true"))
    assert again == plain
    for (name, a), b in zip(run.model.state_dict().items(), recomputed.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name  # running statistics of the batch norms too: each batch counted once


def test_recomputation_keeps_less() -> None:
    model = nn.Sequential(*(layer for _ in range(8) for layer in (nn.Linear(64, 64), nn.Tanh())))
    inputs = torch.randn(16, 64, requires_grad=True)

    def kept(forward: object) -> int:
        total = 0

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal total
            total += tensor.numel() if not isinstance(tensor, nn.Parameter) and tensor.ndim == 2 else 0
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            forward(inputs)  # type: ignore[operator]
        return total

    assert kept(prepare(model, CPU, recompute=True)) < kept(prepare(model, CPU)) / 2


def test_compiled_forward_agrees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    plain, _ = losses_of(config("model=mlp"), steps=3)
    compiled, _ = losses_of(config("model=mlp", "compile=default"), steps=3)
    assert compiled == pytest.approx(plain, rel=1e-4)


def test_a_compiled_maximum_has_gradients_in_bf16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels of a compiled backward pass round elsewhere, so a maximum that looks for its value again finds none."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch.manual_seed(0)
    norm = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.GELU()]
    model = nn.Sequential(*norm, GlobalMax(), nn.Linear(8, 2))
    inputs, targets = torch.randn(16, 3, 8, 8), torch.arange(16) % 2

    def gradients(**options: str) -> torch.Tensor:
        model.zero_grad()
        nn.functional.cross_entropy(prepare(model, CPU, dtype=torch.bfloat16, **options)(inputs), targets).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    torch.testing.assert_close(gradients(compile="default"), gradients(), atol=0.02, rtol=0.05)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["precision=fp16"], "precision=fp16 needs a CUDA GPU; on the CPU use fp32 or bf16"),
        (["precision=tf32"], "precision=tf32 needs a CUDA GPU"),
        (["cuda_graph=true"], "cuda_graph=true needs a CUDA GPU"),
        (["model=linear", "recompute=true"], "recompute=true is for deep models"),
        (["accumulate=0"], "accumulate: expected an integer >= 1, got 0"),
        (["compile=fast"], "compile: "),
    ],
)
def test_refused_in_one_line(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "device=cpu", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"trainkit: error: {message}")
    assert error.count("\n") == 1


def test_precision_travels_in_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "device=cpu", "epochs=1", "precision=bf16", "channels_last=true", "model=cnn"]) == 0
    (run,) = (tmp_path / "outputs" / "train").iterdir()
    header = checkpoint.read_header(checkpoint.locate(run))
    assert (header["config"]["precision"], header["config"]["channels_last"]) == ("bf16", True)
    assert main(["eval", f"ckpt={run}"]) == 0


@needs_cuda
def test_no_host_sync_between_log_points() -> None:
    frame = config(*CNN, "device=cuda", "model.dropout=0.1", "augment=flip_crop", "clip=1", "optim=adam")
    device = components.build_device(frame)
    run = build_run(frame, components.build_data(frame, device), device, Stop())
    run.model.train()
    meter = run.meter(False)
    for epoch in range(2):
        torch.cuda.set_sync_debug_mode("error" if epoch else "default")  # the first epoch initializes libraries
        try:
            for batch in run.train.epoch(epoch):
                loss, outputs = loop.train_step(run, batch)
                weight = run.loss_fn.weight(batch)
                meter.add(loss, outputs, batch.targets, weight=weight, count=len(batch))
                run.step += 1
        finally:
            torch.cuda.set_sync_debug_mode("default")


@needs_cuda
@pytest.mark.parametrize("optim", ["sgd", "adam", "adamw"])
def test_cuda_graph_gives_the_numbers_of_eager(optim: str) -> None:
    words = ["device=cuda", "device.deterministic=true", "model=mlp", f"optim={optim}", "model.dropout=0.2"]
    eager, run = losses_of(config(*words), steps=11)
    graphed, graphed_run = losses_of(config(*words, "cuda_graph=true"), steps=11)
    assert graphed == pytest.approx(eager, rel=1e-5)
    for a, b in zip(run.parameters, graphed_run.parameters, strict=True):
        assert torch.allclose(a, b, atol=1e-6)


@needs_cuda
@pytest.mark.parametrize("precision", ["fp16", "bf16", "tf32"])
def test_half_precisions_train_on_a_gpu(precision: str) -> None:
    exact, _ = losses_of(config(*CNN, "device=cuda"))
    rounded, _ = losses_of(config(*CNN, "device=cuda", f"precision={precision}", "channels_last=true"))
    assert rounded == pytest.approx(exact, rel=0.05)


FAULTS = """
import resource
from trainkit import loop
from test_speed import config, losses_of

_, run = losses_of(config("model=cnn", "optim=sgd", "model.channels=[32,64]"), steps=4)
for batch in run.train.epoch(1):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    loop.train_step(run, batch)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep freed memory")
def test_a_step_asks_the_system_for_no_new_memory() -> None:
    # 128 images of 32 channels of 8 x 8 are over 1 MB an activation, which glibc left alone maps and unmaps every time
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    )
    faults = [int(line) for line in done.stdout.split()]
    assert sorted(faults)[len(faults) // 2] < 20, faults
