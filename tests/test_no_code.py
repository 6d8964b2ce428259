"""What could run code out of a file stands nowhere in the package, by its syntax trees; exceptions have reasons."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[1] / "src" / "trainkit"
FILES = sorted(SRC.rglob("*.py"))

MODULES = r"(c?[pP]ickle\w*|dill|cloudpickle|joblib|shelve|marshal|subprocess|multiprocessing|runpy|codeop|ctypes)\b.*"
CALLS = r"""(?x)
    eval | exec | compile | __import__ | importlib\.import_module
    | os\.(system|popen|exec\w+|spawn\w+|posix_spawn\w*|startfile|fork\w*)
    | (torch|joblib|dill|pickle|pandas|pd|np|numpy)\.(load|save|read_pickle)
    | torch\.(jit|hub|export|package)\.\w+ | .*\.load_state_dict_from_url
    | yaml\.(load|load_all|full_load\w*|unsafe_load\w*)
    | (hydra\.utils\.)?(instantiate|call|get_class|get_method|get_object)
    | .*\.(extractall|unpack_archive)
"""
KEYWORDS = {"allow_pickle": "True", "weights_only": "False", "shell": "True"}

# (file, what is found there) -> why it is safe there
ALLOWED = {
    ("cli.py", "os.execv"): "starts this same command again, in UTF-8 mode",
    ("launch/verbs.py", "importlib.import_module"): "of the table of verbs",
    ("export/formats.py", "importlib.import_module"): "of three packages that ONNX needs",
    ("export/formats.py", "torch.export.export"): "makes a program of the model in memory",
    ("export/formats.py", "torch.export.Dim"): "is an argument of that",
    (
        "export/formats.py",
        "torch.export.save",
    ): "writes that program, without its example inputs, which would be a pickle",
    (
        "export/formats.py",
        "torch.export.load",
    ): "reads back the bytes that were just written, to check them; never a file",
    ("run_folders/configs.py", "yaml.load"): "with the safe loader, in C",
    ("init/weights.py", "torch.load"): "with weights_only=True: a file with code in it is refused, see tests/init",
    ("models/torchvision_models.py", "torch.hub.get_dir"): "says where torch keeps what it downloads",
    (
        "models/torchvision_models.py",
        "torch.hub.download_url_to_file",
    ): "keeps the file that torchvision publishes, whose digest must be right; it is read as any other file",
    ("loggers/choose.py", "importlib.import_module"): "of three loggers, by names that were checked",
    ("runtime.py", "ctypes"): "calls mallopt of the C library",
    ("registry.py", "importlib.import_module"): "of packaged components, and of plugins, which the command line names",
    ("schema.py", "eval"): "of an annotation in the source of a registered builder, which has been imported anyway",
    (
        "data/images/decoders.py",
        "subprocess",
    ): "starts the decoding workers: this interpreter, a fixed module, no shell",
}


def risky(tree: ast.AST) -> set[str]:
    """What of the lists above a syntax tree holds."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if re.fullmatch(MODULES, alias.name)}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in names if re.fullmatch(MODULES, name) or re.fullmatch(CALLS, name)}
        elif isinstance(node, (ast.Attribute, ast.Call)):
            text = ast.unparse(node.func if isinstance(node, ast.Call) else node)
            found |= {text} if re.fullmatch(CALLS, text) else set()
        elif isinstance(node, ast.keyword) and ast.unparse(node.value) == KEYWORDS.get(node.arg or ""):
            found.add(f"{node.arg}={ast.unparse(node.value)}")
    return found


def test_nothing_in_the_package_runs_code_out_of_a_file() -> None:
    found = {(str(file.relative_to(SRC)), what) for file in FILES for what in risky(ast.parse(file.read_text("utf-8")))}
    assert found == set(ALLOWED)  # an exception that is not needed any more goes too


def test_numpy_files_are_read_without_pickle() -> None:
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "np.load":
                assert "allow_pickle=False" in ast.unparse(node), file


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("import pickle", "pickle"),
        ("from multiprocessing.connection import Client", "multiprocessing.connection.Client"),
        ("torch.load(path, weights_only=True)", "torch.load"),
        ("torch.load(path, weights_only=False)", "weights_only=False"),
        ("from torch import load", "torch.load"),
        ("torch.hub.load('a', 'b')", "torch.hub.load"),
        ("joblib.load(path)", "joblib.load"),
        ("np.load(path, allow_pickle=True)", "allow_pickle=True"),
        ("yaml.load(text, Loader=yaml.UnsafeLoader)", "yaml.load"),
        ("hydra.utils.instantiate(node)", "hydra.utils.instantiate"),
        ("from hydra.utils import instantiate", "hydra.utils.instantiate"),
        ("os.system('ls')", "os.system"),
        ("run('ls', shell=True)", "shell=True"),
        ("exec(text)", "exec"),
        ("tar.extractall(folder)", "tar.extractall"),
    ],
)
def test_it_would_be_found(line: str, what: str) -> None:
    assert what in risky(ast.parse(line))
