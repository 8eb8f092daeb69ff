"""What comes with kzoo and what it does unasked: packages, network, programs in files."""

import ast
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from campaign.cases import ANSWER, Budget, Case

ROOT = Path(__file__).parents[3]
PACKAGES = ("kzoo", "recipes", "tflite")
# Where a pickle is read, and why that is no stranger's: docs/reliability.md tells the same.
EXPLAINED = {
    "kzoo/weights/readers/torch_file.py": "an unpickler that knows four names and refuses others",
    "tflite/convert/converter.py": "a job for a process of its own, in a new private folder",
    "recipes/classify.py": "a job for the process of tfmot, which the run has just written",
    "recipes/training/tfmot_engine.py": "writes that job",
}
# Of bandit's findings those that are looked at and explained in docs/reliability.md, by test.
BANDIT_EXPLAINED = {
    "B101": "assert states what holds; nothing is checked by it",
    "B301": "jobs that the same program has just written, see EXPLAINED",
    "B403": "the same, and an unpickler that refuses all but tensors",
    "B404": "TensorFlow, trials of files, npm and tfmot run in processes of their own",
    "B405": "names of types; what is parsed is parsed by defusedxml",
    "B406": "escape() writes XML",
    "B506": "a loader that extends yaml.SafeLoader",
    "B603": "fixed programs, no shell, file names as arguments",
    "B610": "Detector.extra is no SQL",
}
OFFLINE = """
import socket, sys
def refuse(*_, **__): raise SystemExit("a connection was made at import")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import kzoo, kzoo.api, kzoo.recipes.api, kzoo.tflite.api, kzoo.recipes.cli
kzoo.MobileNetV2(0.35, input_shape=(32, 32, 3), classes=2)
"""


def sources() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))
            if not {"recipes", "tflite"} & set(path.relative_to(ROOT / package).parts)]  # fmt: skip


def no_eval() -> str:
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            if named and node.func.id in ("eval", "exec", "compile", "__import__"):
                return f"{path.relative_to(ROOT)}:{node.lineno} calls {node.func.id}"
            if isinstance(node, ast.keyword) and node.arg == "shell":
                return f"{path.relative_to(ROOT)}:{node.value.lineno} starts a shell"
    return ANSWER


def no_pickle() -> str:
    """Pickles, and other formats that can hold one, outside the explained places."""
    for path in sources():
        name, text = str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
        if name in EXPLAINED:
            continue
        for node in ast.walk(ast.parse(text)):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            if {"pickle", "marshal", "shelve", "dill", "joblib"} & set(modules):
                return f"{name}:{node.lineno} imports {modules}"
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                return f"{name}:{node.value.lineno} allows pickles"
    return ANSWER


def offline() -> str:
    done = subprocess.run([sys.executable, "-c", OFFLINE], capture_output=True, text=True)
    return ANSWER if done.returncode == 0 else (done.stderr.strip().splitlines() or ["?"])[-1][:160]


def wheel() -> str:
    """The wheel holds the packages and nothing else: no tests, no weights, no links."""
    import zipfile

    with tempfile.TemporaryDirectory() as name:
        command = [shutil.which("uv") or "uv", "build", "--wheel", "--out-dir", name, str(ROOT)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return f"not built: {done.stderr.strip().splitlines()[-1:]}"
        (file,) = Path(name).glob("*.whl")
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            size = sum(entry.file_size for entry in archive.infolist())
    odd = [n for n in names if not n.startswith(("kzoo/", "kzoo-")) or
           n.endswith((".tflite", ".keras", ".h5", ".pth", ".pyc", ".so"))]  # fmt: skip
    return f"holds {odd[:3]}" if odd or size > 5e6 else ANSWER


def bandit() -> str:
    command = ["uvx", "bandit", "-q", "-r", *PACKAGES, "-f", "json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    try:
        found = json.loads(done.stdout)["results"]
    except (ValueError, KeyError):
        return f"bandit did not run: {done.stderr.strip()[-120:]}"
    left = [f"{r['test_id']} {r['filename']}:{r['line_number']}" for r in found
            if r["test_id"] not in BANDIT_EXPLAINED]  # fmt: skip
    return ANSWER if not left else f"{len(left)} findings: {left[:3]}"


def pip_audit() -> str:
    """Known weaknesses of what is installed."""
    frozen = subprocess.run(
        ["uv", "pip", "freeze", "--python", sys.executable], capture_output=True, text=True,
        env=os.environ,
    )  # fmt: skip
    lines = [line for line in frozen.stdout.splitlines() if "==" in line]
    with tempfile.TemporaryDirectory() as name:
        listed = Path(name, "requirements.txt")
        listed.write_text("\n".join(lines) + "\n")
        command = ["uvx", "pip-audit", "-r", str(listed), "--no-deps", "--disable-pip"]
        done = subprocess.run(command, capture_output=True, text=True)
    unknown = done.stdout.count("could not be audited")
    if done.returncode == 0 and not unknown:
        return ANSWER
    if unknown:  # the index of this machine does not serve what pip-audit asks for
        return f"{unknown} of {len(lines)} packages are unknown to the index that was asked"
    return f"pip-audit: {(done.stderr.strip() or done.stdout.strip())[-140:]}"


CHECKS: dict[str, Callable[[], str]] = {
    "no eval, exec or shell": no_eval, "no pickle of strangers": no_pickle,
    "no network at import": offline, "wheel": wheel, "bandit": bandit, "pip-audit": pip_audit,
}  # fmt: skip


def cases(budget: Budget, checks: tuple[str, ...] = tuple(CHECKS)) -> Iterator[Case]:
    """Yield what each check has found."""
    for name in checks:
        yield Case(name, "", CHECKS[name]())
