"""The closed list of names: what can be registered, what is refused, and how plugins take part."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainkit import registry
from trainkit.errors import ConfigError
from trainkit.registry import import_plugins, register


@pytest.fixture(autouse=True)
def registry_restored() -> Iterator[None]:
    """The list afterwards as it was before, but for packaged modules, which are imported only once."""
    before = dict(registry._components)
    yield
    for key, component in list(registry._components.items()):
        if not component.build.__module__.startswith("trainkit."):
            del registry._components[key]
    registry._components.update(before)


def test_register_takes_the_functions_name_and_keeps_the_function() -> None:
    @register("model")
    def tiny_one(in_shape: int, *, width: int = 2) -> int:
        """A tiny one.

        With more to say.
        """
        return in_shape * width

    assert tiny_one(3) == 6
    component = registry.get("model", "tiny_one")
    assert component.build is tiny_one
    assert component.summary == "A tiny one."
    assert list(component.schema) == ["width"]
    assert "tiny_one" in registry.names("model")
    assert registry.find("optim", "tiny_one") is None


def test_register_under_another_name_and_what_it_serves() -> None:
    @register("loss", "other", serves=["regression"])
    def build() -> None: ...

    assert registry.get("loss", "other").serves == ("regression",)
    assert registry.find("loss", "build") is None
    assert registry.get("loss", "other").summary == ""


def test_unknown_group() -> None:
    with pytest.raises(
        ValueError, match=r"group 'modl' is not known \(did you mean model\?\); choose from: dataset, holdout, model"
    ):
        register("modl")


@pytest.mark.parametrize("name", ["", "_x", "a-b", "a.b", "../x", "a b", "a/b", "ä", "x" * 65, "a\n", "<lambda>"])
def test_names_that_are_no_plain_word(name: str) -> None:
    def build() -> None: ...

    build.__name__ = name
    with pytest.raises(ValueError, match="cannot name a model: use letters, digits and _"):
        register("model")(build)
    assert registry.find("model", name) is None


@pytest.mark.parametrize("name", ["x", "3d", "A_1", "x" * 64])
def test_names_that_are(name: str) -> None:
    def build() -> None: ...

    register("model", name)(build)
    assert registry.get("model", name).name == name


def test_a_name_is_given_once() -> None:
    def mlp() -> None: ...

    with pytest.raises(ValueError, match=r"model 'mlp' is already registered by trainkit\.models\.mlp"):
        register("model")(mlp)
    assert registry.get("model", "mlp").build.__module__ == "trainkit.models.mlp"


def test_a_module_may_register_its_own_name_again() -> None:
    """As importlib.reload does, and a notebook's cell that is run twice."""

    def build(*, a: int = 1) -> None: ...

    register("model", "again")(build)
    register("model", "again")(build)
    assert list(registry.get("model", "again").schema) == ["a"]


def test_get_names_the_nearest() -> None:
    with pytest.raises(
        ConfigError,
        match=r"^model .cnm. is not known \(did you mean cnn\?\); choose from: airbench, cnn, .*torchvision$",
    ):
        registry.get("model", "cnm")


@pytest.mark.parametrize("group", registry.FAMILIES)
def test_every_component_has_a_summary_and_a_schema(group: str) -> None:
    for name in registry.names(group):
        component = registry.get(group, name)
        assert component.summary
        assert all(key.isidentifier() for key in component.schema)


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cwd, where plugins are found; the path and the modules afterwards as before."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return tmp_path


PLUGIN = (
    "from trainkit.registry import register\n\n"
    "@register('model')\ndef {name}(in_shape, num_outputs, *, depth: int = 4): ...\n"
)


def test_plugin_beside_the_cwd(beside: Path) -> None:
    (beside / "plugin_one.py").write_text(PLUGIN.format(name="from_plugin"))
    (beside / "pack").mkdir()
    (beside / "pack" / "__init__.py").touch()
    (beside / "pack" / "models.py").write_text(PLUGIN.format(name="from_pack"))
    import_plugins(["plugin_one", "pack.models"])
    assert registry.get("model", "from_plugin").schema["depth"].default == 4
    assert registry.get("model", "from_pack").build.__module__ == "pack.models"
    assert sys.path[-1] == str(beside)  # last: a file beside the user never shadows an installed package


def test_no_plugins_leave_the_path_alone(beside: Path) -> None:
    import_plugins([])
    assert str(beside) not in sys.path


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, r"ModuleNotFoundError: No module named 'plugin_bad'"),
        ("def f(:", r"SyntaxError: "),
        ("import nope_nope", r"ModuleNotFoundError: No module named 'nope_nope'"),
        ("1 / 0", r"ZeroDivisionError: "),
        ("raise SystemExit(3)", r"SystemExit: 3"),
        (PLUGIN.format(name="mlp"), r"ValueError: model 'mlp' is already registered by trainkit\.models\.mlp"),
        (PLUGIN.replace("'model'", "'modle'").format(name="x"), r"ValueError: group 'modle' is not known"),
    ],
)
def test_plugin_that_does_not_import(beside: Path, text: str | None, reason: str) -> None:
    if text is not None:
        (beside / "plugin_bad.py").write_text(text)
    with pytest.raises(ConfigError, match=rf"^plugins: cannot import 'plugin_bad' \({reason}"):
        import_plugins(["plugin_bad"])


@pytest.mark.parametrize("group", registry.FAMILIES)
def test_having_finds_every_argument(group: str) -> None:
    schemas = {name: registry.get(group, name).schema for name in registry.names(group)}
    for argument in {argument for schema in schemas.values() for argument in schema}:
        assert registry.having(group, argument) == [name for name in schemas if argument in schemas[name]], argument


def test_a_key_that_nothing_has_loads_no_numpy() -> None:
    code = "import sys; from trainkit.cli import main; code = main(['train', 'nokey=1'])"
    code += "; sys.exit(code if 'numpy' not in sys.modules else 1)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60).returncode == 2
