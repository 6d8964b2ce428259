"""`trainkit doctor`: this machine and this installation, for a bug report. Shows no environment but what it lists."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import shutil
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainkit.config.flags import FlagParser
from trainkit.console.columns import fitted, prose_width
from trainkit.data.images.cache import cache_folder, cap_bytes
from trainkit.errors import ConfigError, TrainkitError, first_line
from trainkit.machine import default_data_dir, free_host_memory, num_cpus
from trainkit.text import say, say_json
from trainkit.version import __version__

HELP = """\
usage: trainkit doctor [--json]

Versions, devices, memory, disk, cache and data folders, extras and Hydra plugins; a small forward and backward pass on
every device; combinations known not to work. Paste it into a bug report: of the environment it shows only the
variables that change what trainkit does, and your home folder as ~. Exit code 1 when something does not work."""

# Only these are shown: any other variable may hold a secret.
VARIABLES = (
    *("TRAINKIT_DATA", "TRAINKIT_CACHE", "TRAINKIT_CACHE_GB", "TRAINKIT_CONF", "TRAINKIT_FULL_ERROR"),
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG", "NO_COLOR"),
)
LITTLE_DISK = 10**9  # bytes, below which a run's checkpoints may not fit


def doctor(argv: Sequence[str]) -> int:
    """Print what is found. Returns 1 when something does not work, else 0."""
    parser = FlagParser("doctor")
    parser.add_argument("--json", action="store_true")
    flags = parser.read(argv)
    problems: list[str] = []
    hints: list[str] = []
    facts = {
        "trainkit": {"version": __version__, "folder": _home(Path(__file__).parents[1])},
        "python": {"version": platform.python_version(), "executable": _home(Path(sys.executable))},
        "platform": platform.platform(),
        "packages": packages(problems, hints),
        "extras": extras(),
        "hydra_plugins": hydra_plugins(problems),
        "cpu": {"processors": num_cpus(), "memory_free": free_host_memory()},
        **torch_facts(problems, hints),
        "folders": folders(problems, hints),
        "variables": {name: _home(Path(os.environ[name])) for name in VARIABLES if name in os.environ},
        "problems": problems,
        "hints": hints,
    }
    if flags.json:
        say_json(facts, indent=2)
    else:
        say(*(part for line in report(facts) for part in fitted(line, prose_width())))
    return 1 if problems else 0


def _home(path: Path) -> str:
    """A path with the home folder, which names its owner, as ~."""
    home = Path.home()
    return str(Path("~") / path.relative_to(home)) if path.is_relative_to(home) and home != Path("/") else str(path)


def _requirements() -> list[Any]:
    """What the installed trainkit asks for; nothing when it runs from a checkout that is not installed."""
    from packaging.requirements import Requirement

    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return [Requirement(text) for text in importlib.metadata.requires("trainkit") or []]
    return []


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def packages(problems: list[str], hints: list[str]) -> dict[str, str | None]:
    """Versions of what trainkit needs, judged by its own requirements; and whether torchvision fits torch."""
    from packaging.requirements import Requirement

    found: dict[str, str | None] = {}
    needed = [r for r in _requirements() if r.marker is None or r.marker.evaluate({"extra": ""})]
    if not needed:
        hints.append("trainkit is not installed here but runs from its folder: versions are not judged")
    for requirement in needed:
        version = found[requirement.name] = _installed(requirement.name)
        if version is None:
            problems.append(f"{requirement.name} is not installed: pip install '{requirement}'")
        elif not requirement.specifier.contains(version, prereleases=True):
            problems.append(f"{requirement.name} {version} does not fit {requirement.specifier}: install another")
    torch = _installed("torch")
    for text in importlib.metadata.requires("torchvision") or [] if _installed("torchvision") else []:
        wanted = Requirement(text)
        if wanted.name == "torch" and torch and not wanted.specifier.contains(torch, prereleases=True):
            problems.append(f"torchvision wants torch {wanted.specifier}, but torch {torch} is installed")
    return found


def extras() -> dict[str, dict[str, str | None]]:
    """The packages of each extra with their versions, None for what is not installed."""
    found: dict[str, dict[str, str | None]] = {}
    for requirement in _requirements():
        for name in importlib.metadata.metadata("trainkit").get_all("Provides-Extra") or []:
            mine = requirement.marker is not None and not requirement.marker.evaluate({"extra": ""})
            if mine and requirement.marker.evaluate({"extra": name}) and requirement.name != "trainkit":
                found.setdefault(name, {})[requirement.name] = _installed(requirement.name)
    return found


def hydra_plugins(problems: list[str]) -> list[str]:
    """The launchers and sweepers that Hydra finds."""
    from hydra.core.plugins import Plugins
    from hydra.plugins.launcher import Launcher
    from hydra.plugins.sweeper import Sweeper

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kinds = [plugin for base in (Launcher, Sweeper) for plugin in Plugins.instance().discover(base)]
    except Exception as error:  # a plugin's own import
        problems.append(f"a Hydra plugin does not import ({type(error).__name__}: {error}); remove or update it")
        return []
    return sorted(plugin.__name__ for plugin in kinds)


def torch_facts(problems: list[str], hints: list[str]) -> dict[str, Any]:
    """What torch says of itself and of each device, after using it."""
    try:
        import torch

        from trainkit.runtime import cpu, environment
    except Exception as error:  # a broken installation fails in many ways
        problems.append(f"torch does not import ({first_line(error)})")
        return {"torch": None, "devices": []}
    facts = environment(cpu())
    threads = torch.get_num_threads()
    if threads > num_cpus():
        hints.append(f"{threads} threads on {num_cpus()} processors are slow: set device.threads={num_cpus()}")
    devices = [torch.device("cpu")] + [torch.device("cuda", i) for i in range(torch.cuda.device_count())]
    if torch.version.cuda is not None and len(devices) == 1:
        hints.append(f"torch is built for CUDA {torch.version.cuda} but sees no GPU; training uses the CPU")
    return {
        "torch": {
            "version": torch.__version__,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version() if torch.version.cuda else None,  # type: ignore[no-untyped-call]
            "threads": threads,
            "cpu_capability": facts["cpu_capability"],
        },
        "devices": [_try_device(device, facts["device_name"], problems) for device in devices],
    }


def _try_device(device: Any, cpu_name: str, problems: list[str]) -> dict[str, Any]:
    """A device after a real convolution, its gradient and an optimizer step, compared with the CPU's in float64."""
    import torch

    found: dict[str, Any] = {"device": str(device), "name": cpu_name}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {"name": properties.name, "memory": properties.total_memory}
        found["capability"] = f"{properties.major}.{properties.minor}"
        found["memory_free"] = torch.cuda.mem_get_info(device)[0]
    try:
        weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))
        images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
        gradients = []
        for place, kind in ((device, torch.float32), (torch.device("cpu"), torch.float64)):
            parameter = weight.to(place, kind).clone().requires_grad_()
            loss = torch.nn.functional.conv2d(images.to(place, kind), parameter).square().mean()
            loss.backward()  # type: ignore[no-untyped-call]
            assert parameter.grad is not None
            gradients.append(parameter.grad.cpu().double())
            torch.optim.SGD([parameter], lr=0.1).step()
        ours, reference = gradients
        found["works"] = torch.allclose(ours, reference, rtol=1e-2, atol=1e-3)  # loose enough for TF32
        reason = "its gradients are wrong"
    except Exception as error:  # a driver, a kernel that was not built for this GPU, …
        found["works"] = False
        reason = first_line(error)
    if not found["works"]:
        problems.append(f"{device} ({found['name']}) does not compute: {reason}")
    return found


def folders(problems: list[str], hints: list[str]) -> dict[str, dict[str, Any]]:
    """Where trainkit reads and writes, and the room there. Nothing is written to find out."""
    places = {"output": Path("outputs"), "data": default_data_dir(), "cache": cache_folder()}
    found = {}
    for name, path in places.items():
        there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
        free = shutil.disk_usage(there).free
        found[name] = {"path": _home(path), "exists": path.exists(), "bytes": _size(path) if name != "data" else None}
        found[name] |= {"free": free, "writable": os.access(there, os.W_OK)}
        if not found[name]["writable"]:
            said = problems if name == "output" else hints
            said.append(f"the {name} folder {_home(path)} cannot be written by this user")
        if free < LITTLE_DISK:
            hints.append(f"the {name} folder {_home(path)} is on a disk with {free:,} bytes free")
    try:
        found["cache"]["cap"] = cap_bytes()
    except ConfigError as error:
        problems.append(str(error))
    with contextlib.suppress(TrainkitError):
        from trainkit.config.folders import packaged_conf

        found["conf"] = {"path": _home(packaged_conf())}
    return found


def _size(folder: Path) -> int:
    """Bytes of all files below a folder; what cannot be read counts nothing."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_size
    return total


def report(facts: dict[str, Any]) -> list[str]:
    """The facts as lines for a person."""
    torch = facts["torch"]
    lines = [
        f"trainkit {facts['trainkit']['version']} in {facts['trainkit']['folder']}",
        f"python {facts['python']['version']}, {facts['python']['executable']}",
        facts["platform"],
        f"{facts['cpu']['processors']} processors, {_gb(facts['cpu']['memory_free'])} memory free",
    ]
    if torch:
        cuda = f"CUDA {torch['cuda']}, cuDNN {torch['cudnn']}" if torch["cuda"] else "built for the CPU"
        lines.append(f"torch {torch['version']}, {cuda}, {torch['threads']} threads, {torch['cpu_capability']}")
    lines += ["", "devices"]
    for device in facts["devices"]:
        memory = f", {_gb(device['memory_free'])} of {_gb(device['memory'])} free" if "memory" in device else ""
        lines.append(f"  {device['device']:8} {device['name']}{memory}: {'works' if device['works'] else 'FAILS'}")
    lines += ["", "packages"] + [f"  {name} {version or 'missing'}" for name, version in facts["packages"].items()]
    lines += ["", "extras"]
    width = max(map(len, facts["extras"]), default=0)
    for name, members in facts["extras"].items():
        shown = ", ".join(f"{package} {version or '(not installed)'}" for package, version in members.items())
        lines.append(f"  {name:{width}} {shown}")
    lines += ["", f"hydra plugins: {', '.join(facts['hydra_plugins'])}", "", "folders"]
    for name, place in facts["folders"].items():
        room = f", {_gb(place['free'])} free" if "free" in place else ""
        size = f", {_gb(place['bytes'])} used" if place.get("bytes") else ""
        absent = "" if place.get("exists", True) else ", not there yet"
        lines.append(f"  {name:8} {place['path']}{absent}{size}{room}")
    lines += [""] + [f"{name}={value}" for name, value in facts["variables"].items()]
    lines += [f"hint: {text}" for text in facts["hints"]] + [f"problem: {text}" for text in facts["problems"]]
    return lines if facts["problems"] else [*lines, "all works"]


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
