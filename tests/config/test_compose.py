"""From words and files to a checked config: where files are found, what fills them in, what a sweep's jobs are."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra

from trainkit.config import folders
from trainkit.config.compose import check_jobs, parse, quoted
from trainkit.config.frame import Train, to_plain
from trainkit.errors import ConfigError
from trainkit.launch.run import defer_to_jobs


@pytest.fixture
def cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder, and no folders of the user from the environment."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("TRAINKIT_CONF", raising=False)
    yield tmp_path / "here"
    folders.TrainkitSearchPath.folders = []


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def composed(*overrides: str, config_dirs: list[Path] | None = None) -> Train:
    """The config of `trainkit train overrides…` in the current folder."""
    folders.install(folders.user_confs([str(folder) for folder in config_dirs or []]))
    (config,) = check_jobs("train", list(overrides), False, [])
    assert isinstance(config, Train)
    return config


def problems_of(*overrides: str, multirun: bool = False) -> list[str]:
    folders.install(folders.user_confs([]))
    with pytest.raises(ConfigError) as caught:
        check_jobs("train", list(overrides), multirun, [])
    assert not GlobalHydra.instance().is_initialized()
    return list(caught.value.problems)


def test_defaults(cwd: Path) -> None:
    config = composed()
    assert (config.dataset.name, config.model.name, config.optim.name) == ("digits", "mlp", "sgd")
    assert (config.epochs, config.batch_size, config.seed, config.monitor) == (10, 128, 0, "auto")
    assert config.output_dir == cwd / "outputs" and config.data_dir is None
    assert not GlobalHydra.instance().is_initialized()


def test_a_stored_config_composes_to_itself(cwd: Path) -> None:
    config = composed("model=cnn", "model.channels=[4,8]", "optim=adam", "device.cudnn.benchmark=true", "clip=1")
    values = to_plain(config)
    assert values["model"]["channels"] == [4, 8] and values["device"]["cudnn"]["benchmark"] is True
    write(cwd / "conf", {"model/again": "", "device/again": ""})
    import yaml

    (cwd / "conf" / "model" / "again.yaml").write_text(yaml.safe_dump(values["model"]))
    (cwd / "conf" / "device" / "again.yaml").write_text(yaml.safe_dump(values["device"]))
    assert composed("model=again", "device=again", "optim=adam", "clip=1.0") == config


ORDER = ["flag", "second", "variable", "conf"]


@pytest.mark.parametrize("first", range(len(ORDER) + 1))
def test_search_order(first: int, cwd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--config-dir (in their order), then $TRAINKIT_CONF, then ./conf, then the packaged files."""
    for place, name in enumerate(ORDER):
        folder = cwd / name
        folder.mkdir()
        if place >= first:  # shadows the packaged linear, and mlp's default width, by the place it stands at
            write(folder, {"model/mlp": f"name: mlp\nhidden: [{place + 1}]\n"})
    monkeypatch.setenv("TRAINKIT_CONF", str(cwd / "variable"))
    config = composed(config_dirs=[cwd / "flag", cwd / "second"])
    expected = [first + 1] if first < len(ORDER) else composed().model.arguments["hidden"]
    assert config.model.arguments["hidden"] == expected


def test_several_folders_in_the_variable(cwd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(cwd / "a", {"model/one": "name: mlp\nhidden: [1]\n"})
    write(cwd / "b", {"model/one": "name: mlp\nhidden: [2]\n", "model/two": "name: mlp\nhidden: [2]\n"})
    monkeypatch.setenv("TRAINKIT_CONF", os.pathsep.join([str(cwd / "a"), str(cwd / "b"), ""]))
    assert composed("model=one").model.arguments["hidden"] == [1]
    assert composed("model=two").model.arguments["hidden"] == [2]


def test_the_packaged_files_are_still_there(cwd: Path) -> None:
    write(cwd / "conf", {"model/mine": "name: cnn\n"})
    assert composed("model=mine").model.name == "cnn"
    assert composed("model=linear").model.name == "linear"
    assert "mine" in folders.options("model", [cwd / "conf"]) and "mlp" in folders.options("model", [cwd / "conf"])


def test_the_verbs_own_file_can_be_shadowed(cwd: Path) -> None:
    text = (folders.packaged_conf() / "train.yaml").read_text().replace("epochs: 10", "epochs: 3")
    write(cwd / "conf", {"train": text})
    assert composed().epochs == 3
    assert composed("epochs=4").epochs == 4


def test_missing_folder(cwd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"config folder '.*/here/nope' does not exist"):
        folders.user_confs(["nope"])
    monkeypatch.setenv("TRAINKIT_CONF", "/nope")
    with pytest.raises(ConfigError, match=r"config folder '/nope' does not exist"):
        folders.user_confs([])


def test_the_checkouts_own_conf_is_not_a_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRAINKIT_CONF", raising=False)
    monkeypatch.chdir(folders.packaged_conf().parent)
    assert folders.user_confs([]) == []


def test_a_users_file_gets_the_arguments_it_leaves_out(cwd: Path) -> None:
    write(cwd / "conf", {"model/mine": "name: cnn\nchannels: [4]\n"})
    packaged = composed("model=cnn").model.arguments
    assert composed("model=mine").model.arguments == {**packaged, "channels": [4]}
    assert composed("model=mine", "model.hidden=7").model.arguments["hidden"] == 7  # no `+` needed
    assert problems_of("model=mine", "model.hiden=7")[0].startswith("model=cnn: key 'model.hiden' is not known")


def test_a_users_file_extends_another(cwd: Path) -> None:
    write(
        cwd / "conf",
        {
            "model/wide": "defaults: [cnn, _self_]\nhidden: 500\n",
            "model/wider": "defaults: [wide, _self_]\nchannels: [64]\n",
            "model/base_last": "defaults: [_self_, cnn]\nhidden: 500\n",
        },
    )
    packaged = composed("model=cnn").model.arguments
    assert composed("model=wide").model.arguments == {**packaged, "hidden": 500}
    assert composed("model=wider").model.arguments == {**packaged, "hidden": 500, "channels": [64]}
    assert composed("model=wider").model.name == "cnn"
    assert composed("model=wider", "model.hidden=3").model.arguments["hidden"] == 3
    assert composed("model=base_last").model.arguments == packaged  # what comes last wins


@pytest.mark.parametrize(
    ("value", "expected"),
    [("1e-3", 1e-3), ("1", 1.0), (".5", 0.5), ("5e-1", 0.5)],
)
def test_numbers_are_read_alike_on_the_command_line_and_in_a_file(value: str, expected: float, cwd: Path) -> None:
    write(cwd / "conf", {"optim/mine": f"name: sgd\nlr: {value}\n"})
    assert composed("optim=mine").optim.arguments["lr"] == expected
    assert composed(f"optim.lr={value}").optim.arguments["lr"] == expected


def test_interpolation_between_keys(cwd: Path) -> None:
    assert composed("epochs=7", "batch_size=${epochs}").batch_size == 7


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("k=v", "k='v'"),
        ("k=a b", "k='a b'"),
        ("k=ü", "k='ü'"),
        ("k=", "k="),
        ("k", "k"),
        ("k='x", "k='x"),
        ("k=[1,ü]", "k=[1,ü]"),
        ("k=a,b", "k=a,b"),
        ("k=${x}", "k=${x}"),
        ("k=a\\b", "k=a\\b"),
    ],
)
def test_quoted(text: str, expected: str) -> None:
    assert quoted(text) == expected


def test_parse_keeps_what_can_be_read_and_reports_the_rest() -> None:
    problems: list[str] = []
    parsed = parse(["seed=1", "a b=c", "data_dir=ü", "model=null", "~optim.lr", "x=[1"], problems)
    assert list(parsed) == ["seed=1", "data_dir='ü'", "~optim.lr"]
    assert [line.partition(":")[0] for line in problems] == [
        "cannot read the override 'a b=c'",
        "model=null",
        "cannot read the override 'x=[1'",
    ]
    assert parsed["data_dir='ü'"].value() == "ü"


def jobs_of(*overrides: str) -> list[Any]:
    folders.install([])
    return check_jobs("train", list(overrides), True, [])


def test_jobs_of_a_sweep(cwd: Path) -> None:
    jobs = jobs_of("model=mlp,linear", "seed=range(0,3)", "optim.lr=choice(0.1,0.2)", "epochs=1")
    found = [(job.model.name, job.seed, job.optim.arguments["lr"]) for job in jobs]
    assert found == [(m, s, lr) for m in ("mlp", "linear") for s in (0, 1, 2) for lr in (0.1, 0.2)]
    assert {job.epochs for job in jobs} == {1}


def test_glob_and_interval(cwd: Path) -> None:
    assert [job.model.name for job in jobs_of("model=glob(resnet*)")] == ["resnet18", "resnet9"]
    assert [job.optim.arguments["lr"] for job in jobs_of("optim.lr=interval(0.5,1)")] == [0.5]


def test_every_job_is_checked_before_the_first_starts(cwd: Path) -> None:
    assert problems_of("seed=0,x,1,y", multirun=True) == [
        "seed: expected an integer, got 'x'",
        "seed: expected an integer, got 'y'",
    ]
    assert problems_of("model=linear,mlp", "model.hidden=[4],[0]", multirun=True)[-1].startswith("model.hidden[0]:")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["model=mlp,cnn", "model.dropout=0.5"], ["model=mlp,cnn", "model.dropout=choice(0.5)"]),
        (["model=mlp,cnn", "model.dropout=0,0.5"], ["model=mlp,cnn", "model.dropout=0,0.5"]),
        (["model=mlp", "model.dropout=0.5"], ["model=mlp", "model.dropout=0.5"]),
        (["model=mlp,cnn", "optim.lr=1"], ["model=mlp,cnn", "optim.lr=1"]),
        (["model=mlp,cnn", "+model.x=1"], ["model=mlp,cnn", "+model.x=1"]),
    ],
)
def test_arguments_of_a_swept_group_wait_for_the_job(overrides: list[str], expected: list[str]) -> None:
    assert defer_to_jobs(overrides) == expected


def test_all_problems_at_once(cwd: Path) -> None:
    lines = problems_of("modle=cnn", "optim=adm", "optim.lr=x", "seed=x", "epochs=0", "~nope", "dataset=folder")
    starts = ["optim=…: option 'adm'", "key 'modle'", "~nope", "dataset.root is required", "seed:", "epochs:"]
    assert len(lines) == len(starts)
    assert all(any(line.startswith(start) for line in lines) for start in starts)


@pytest.mark.parametrize(
    ("word", "where"),
    [
        ('monitor="x', r'(" at character 9 is never closed: monitor=^"x)'),
        ("model.hidden=[1,(2]", "(] at character 19 closes nothing: model.hidden=[1,(2^])"),
        ("model.hidden=1]", "(] at character 15 closes nothing: model.hidden=1^])"),
        ("a={b:[1}", "(} at character 8 closes nothing: a={b:[1^})"),
        ("a={b:'}'", "({ at character 3 is never closed: a=^{b:'}')"),
        (r"a='it\'s", r"(' at character 3 is never closed: a=^'it\'s)"),
    ],
)
def test_where_a_quote_or_bracket_lacks_its_partner(word: str, where: str) -> None:
    problems: list[str] = []
    assert parse([word], problems) == {}
    assert where in problems[0]


@pytest.mark.parametrize("word", ["a=[1,{b:'x]'}]", "a b=c", r"a=it\'s", "x"])
def test_no_place_is_named_where_all_have_one(word: str) -> None:
    problems: list[str] = []
    parse([word], problems)
    assert not any(re.search(r"at character \d", problem) for problem in problems)
