"""Initial weights of others: what fits is taken over and said, what does not is refused, and no code is run."""

from __future__ import annotations

import hashlib
import json
import pickle
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import safetensors.torch
import torch
from torch import nn

from trainkit.checkpoints import checkpoint
from trainkit.errors import ConfigError, DataError
from trainkit.init.fit import fit, head_of
from trainkit.init.weights import Weights, read_file
from trainkit.models.torchvision_models import torchvision

if TYPE_CHECKING:
    from conftest import CommandHere

SMALL = "shufflenet_v2_x0_5"  # 1.4 million parameters, of the smallest that torchvision has
DIGITS = ["device=cpu", "device.threads=1", "epochs=1", "batch_size=256", "plots=false"]


def net(classes: int = 3, channels: int = 3) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes)
    )


def saved(path: Path, tensors: dict[str, torch.Tensor]) -> Weights:
    safetensors.torch.save_file(tensors, path)
    return read_file(path)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model."])
def test_names_with_a_wrapper_prefix_match(tmp_path: Path, prefix: str) -> None:
    theirs, ours = net(), net()
    found = saved(tmp_path / "w.safetensors", {prefix + name: value for name, value in theirs.state_dict().items()})
    assert str(fit(ours, found, None, 0)) == "9 matched, 0 new, 0 unused"
    assert all(torch.equal(ours.state_dict()[name], value) for name, value in theirs.state_dict().items())


def test_another_head_begins_small_and_alike_for_a_seed(tmp_path: Path) -> None:
    found = saved(tmp_path / "w.safetensors", net(10).state_dict())
    one, two = net(3), net(3)
    assert str(fit(one, found, None, 7)) == "7 matched, 2 new (4.*), 0 unused"
    fit(two, found, None, 7)
    assert torch.equal(one[4].weight, two[4].weight)  # type: ignore[index]
    assert one[4].weight.abs().max() < 0.05 and not one[4].bias.any()  # type: ignore[index]


def test_half_precision_is_converted_and_a_counter_may_be_missing(tmp_path: Path) -> None:
    state = {name: value.half() for name, value in net().state_dict().items() if value.is_floating_point()}
    ours = net()
    assert str(fit(ours, saved(tmp_path / "w.safetensors", state), None, 0)) == "8 matched, 0 new, 0 unused"
    assert ours[0].weight.dtype == torch.float32  # type: ignore[index]
    assert torch.equal(ours[0].weight, state["0.weight"].float())  # type: ignore[index]


def test_kernels_over_colors_serve_gray_images_and_more_channels(tmp_path: Path) -> None:
    theirs = net()
    found = saved(tmp_path / "w.safetensors", theirs.state_dict())
    gray = torch.rand(2, 1, 8, 8)
    theirs.eval()
    for channels in (1, 2, 4, 6):
        ours = net(channels=channels).eval()
        assert "1 adapted (0.weight)" in str(fit(ours, found, None, 0))
        repeated = gray.expand(-1, channels, -1, -1)
        assert torch.allclose(ours[:4](repeated), theirs[:4](gray.expand(-1, 3, -1, -1)), atol=1e-6)  # type: ignore[index]


def test_what_does_not_fit_beyond_the_head_is_refused_unless_allowed(tmp_path: Path) -> None:
    state = net().state_dict()
    del state["1.weight"]
    state["extra.weight"] = torch.zeros(2)
    found = saved(tmp_path / "w.safetensors", state)
    with pytest.raises(DataError, match=r"8 of 9 tensors match; 1.weight is not in the file; extra.weight is not in"):
        fit(net(), found, None, 0)
    allowed = found.checked(None, ["1.*", "extra.*"], None, None, None)
    assert str(fit(net(), allowed, None, 0)) == "8 matched, 1 new (1.weight), 1 unused (extra.weight)"
    with pytest.raises(ConfigError, match=r"init.allow: '7.\*' names nothing that is new or unused"):
        fit(net(), found.checked(None, ["1.*", "extra.*", "7.*"], None, None, None), None, 0)
    other = {**net().state_dict(), "0.weight": torch.zeros(5, 3, 3, 3)}
    with pytest.raises(DataError, match=r"0.weight is 5x3x3x3 there and 4x3x3x3 here"):
        fit(net(), saved(tmp_path / "o.safetensors", other), None, 0)


class Evil:
    """What a hostile file holds: something that runs when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "it-ran"
    for name, content in (("a.pth", {"weight": Evil(trace)}), ("b.pth", Evil(trace))):
        torch.save(content, tmp_path / name)
        with pytest.raises(DataError, match="holds more than tensors, which could run code when it is opened: it was"):
            read_file(tmp_path / name)
    (tmp_path / "c.pth").write_bytes(pickle.dumps(Evil(trace)))
    with pytest.raises(DataError):
        read_file(tmp_path / "c.pth")
    assert not trace.exists()


def test_damaged_files_are_refused_wherever_they_end(tmp_path: Path) -> None:
    safetensors.torch.save_file(net().state_dict(), tmp_path / "w.safetensors")
    torch.save({"state_dict": net().state_dict()}, tmp_path / "w.pth")
    assert len(read_file(tmp_path / "w.pth").tensors) == 9
    for name in ("w.safetensors", "w.pth"):
        whole = (tmp_path / name).read_bytes()
        for length in (0, 3, 9, len(whole) // 2, len(whole) - 1):
            (tmp_path / "cut").write_bytes(whole[:length])
            with pytest.raises(DataError):
                read_file(tmp_path / "cut")
    (tmp_path / "text").write_text("no weights")
    for strange in (tmp_path / "text", tmp_path / "missing", Path("/dev/null")):
        with pytest.raises(DataError):
            read_file(strange)


def test_the_head_is_the_last_module_with_parameters() -> None:
    assert head_of(net()) == "4"
    assert head_of(nn.Linear(2, 2)) == ""


def test_a_run_hands_over_its_weights_and_its_normalization(trainkit_here: CommandHere, tmp_path: Path) -> None:
    assert trainkit_here("train", "model=cnn", "hydra.run.dir=first", *DIGITS).code == 0
    words = ["train", "model=cnn", "init=first", "hydra.run.dir=second", "split_seed=3", *DIGITS]
    second = trainkit_here(*words)
    assert second.code == 0, second.err
    assert "matched, 0 new, 0 unused; input by its mean" in second.out
    files = [tmp_path / run / "checkpoints" / "best.safetensors" for run in ("first", "second")]
    headers = [checkpoint.read_header(file) for file in files]
    one, two = (header["spec"]["inputs"]["x"] for header in headers)
    assert one["mean"] == two["mean"]  # that of the first run, though other samples are held out
    file = files[0]
    origin = headers[1]["init"]
    assert origin["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest() and origin["bytes"] == file.stat().st_size
    assert json.loads((tmp_path / "second" / "env.json").read_text())["init"] == origin
    same = trainkit_here("reproduce", "second")
    assert same.code == 0, same.out + same.err
    assert "bit-identical" in same.out
    # the other run's file is another one now
    assert trainkit_here("train", "model=cnn", "hydra.run.dir=third", "seed=1", *DIGITS).code == 0
    file.write_bytes((tmp_path / "third" / "checkpoints" / "best.safetensors").resolve().read_bytes())
    refused = trainkit_here("reproduce", "second")
    assert refused.code == 3 and "but " + origin["sha256"] in refused.err


def test_other_classes_get_a_new_head(trainkit_here: CommandHere) -> None:
    assert trainkit_here("train", "dataset=iris", "model=mlp", "hydra.run.dir=first", *DIGITS).code == 0
    done = trainkit_here("train", "dataset=iris", "model=mlp", "init=first", *DIGITS)
    assert "0 new" in done.out and "0 unused" in done.out
    other = trainkit_here("train", "dataset=wine", "model=mlp", "init=first", *DIGITS)
    assert other.code == 3 and "does not fit the model beyond its head" in other.err


@pytest.mark.slow
def test_published_weights_come_from_the_usual_cache(
    trainkit_here: CommandHere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.models import get_model, get_model_weights

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(urllib.request, "getproxies", lambda: {"https": "http://127.0.0.1:9"})
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # where nobody answers
    words = ["train", "dataset=digits", "model=torchvision", f"model.arch={SMALL}", "init=pretrained", *DIGITS]
    name = get_model_weights(SMALL).DEFAULT.url.rpartition("/")[2]
    refused = trainkit_here(*words)
    assert refused.code == 3
    assert f"init=pretrained: {name} of {SMALL} is not in " in refused.err and "curl -LO https://" in refused.err
    assert refused.err.count("\n") == 1
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    assert not list(folder.glob("*"))
    torch.save(get_model(SMALL).state_dict(), folder / name)
    done = trainkit_here(*words)
    assert done.code == 0, done.err
    assert "1 adapted (conv1.0.weight)" in done.out and "2 new (fc.*), 0 unused" in done.out
    assert "input by its mean 0.449" in done.out  # gray: the mean of ImageNet's three


def test_timm_says_how_to_get_a_file(
    trainkit_here: CommandHere, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    refused = trainkit_here("train", "model=timm", "init=pretrained", *DIGITS)
    assert refused.code == 3
    assert "hf download timm/tf_efficientnet_lite0.in1k" in refused.err and "use init=FILE" in refused.err


def test_wrong_words_are_told_in_one_line(trainkit_here: CommandHere, tmp_path: Path) -> None:
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    cases = {
        "init=a.safetensors": (3, "does not fit the model beyond its head: 0 of "),
        "init=b.safetensors": (3, "b.safetensors cannot be read (No such file"),
        "init=pretraind": (2, "option 'pretraind' is not known (did you mean pretrained?)"),
        "init=pretrained": (2, "init=pretrained is for model=torchvision and model=timm"),
        "init=file": (2, "init.file is required"),
        "init=outputs": (4, "outputs"),
        "init=a.safetensors init.mean=[1]": (2, "init.mean and init.std belong together"),
        "init=a.safetensors init.sha256=abc": (2, "init.sha256: expected text such as the 64 hexadecimal digits"),
        "init=a.safetensors init.mean=[1] init.std=[0]": (2, "init.std[0]: expected a number > 0"),
        "finetune=linear finetune.freeze=[features.*]": (2, "finetune.freeze: 'features.*' matches no parameter"),
        "finetune=groups finetune.freeze=['*']": (2, "leaves no parameter to train"),
        "finetune=groups finetune.freeze=[head]": (0, ""),
        "finetune=full optim=lbfgs": (2, "optim=lbfgs has one group of parameters"),
    }
    (tmp_path / "outputs").mkdir()
    for words, (code, said) in cases.items():
        outcome = trainkit_here("train", *words.split(" "), *DIGITS)
        assert outcome.code == code and said in outcome.err, (words, outcome.err)
        assert outcome.err.count("\n") == bool(code), outcome.err


def test_a_wrong_normalization_is_refused(trainkit_here: CommandHere, tmp_path: Path) -> None:
    model = torchvision((1, 8, 8), 10, arch=SMALL)
    safetensors.torch.save_file(model.state_dict(), tmp_path / "w.safetensors")
    words = ["train", "model=torchvision", f"model.arch={SMALL}", "init=w.safetensors", *DIGITS]
    wrong = trainkit_here(*words, "init.mean=[0.1,0.2]", "init.std=[1,1]")
    assert wrong.code == 2 and "init.mean and init.std have 2 numbers; the input has 1 channels" in wrong.err
