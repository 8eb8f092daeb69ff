"""What kzoo's files answer on ARM, run by qemu, against x86: `python tests/clients/arm_client.py`.

Phones are ARM, and every other test runs on x86. This program sets itself up in the user's cache
(80 MB): qemu-user-static and an arm64 Python of Debian 12, unpacked and not installed, and LiteRT's
aarch64 wheel. It needs apt-get, dpkg and pip; nothing of the machine changes.

LiteRT is 1.4.0 on ARM: 2.3.0 ends in a segmentation fault under qemu 7.2. x86 runs both 1.4.0 and
the LiteRT that is installed, so that a difference can be told to be the processor's or the
version's. Times under qemu mean nothing and are not given.

A row of tests/bench/results/arm.csv is a file on a CPU: images, the partitions and the operators
outside XNNPACK there, whether those are what `audit` predicts; against x86 with the same LiteRT and
against x86 with the installed one (`_new`) the largest difference of any output in quanta (steps of
the int8 tensor it is dequantized from; of outputs computed in floats, millionths of their range; of
masks nothing), and the share of answers that change (top class, pixels' classes, anchors' classes).
Rows of files and CPUs that are not run (--only, --cpu) stay.

`--trained FOLDER` runs the nets of tests/trained_runs.py instead, which a recipe has trained, on
validation images of their own; `--run RUN ...` those of any finished runs, by their folders' names.
Their rows go to arm_trained.csv.
"""

import argparse
import csv
import dataclasses
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent)]
from conftest import gratings  # noqa: E402
from trained_runs import RUNS, trained_runs  # noqa: E402
from zoo_files import NETS, zoo_files  # noqa: E402

from kzoo.recipes import convert_file  # noqa: E402
from kzoo.recipes.data.images import Images  # noqa: E402
from kzoo.recipes.evaluation.finished_runs import open_finished  # noqa: E402
from kzoo.tflite import targets  # noqa: E402
from kzoo.tflite.convert.mask_output import end_in_mask  # noqa: E402
from kzoo.tflite.convert.postprocess import add_postprocess  # noqa: E402
from kzoo.weights.readers.flatbuffer import TfliteGraph, read_tflite  # noqa: E402

PYTHON = """python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libc6 libgcc-s1 libstdc++6
zlib1g libexpat1 libssl3 libffi8 libbz2-1.0 liblzma5 libuuid1 libsqlite3-0 libcrypt1""".split()  # noqa: SIM905, one line a package otherwise
OLD = "1.4.0"  # LiteRT on ARM
WHEELS = (f"ai-edge-litert=={OLD}", "numpy==2.3.5", "flatbuffers==25.12.19")
PLATFORMS = ("manylinux_2_17_aarch64", "manylinux2014_aarch64", "manylinux_2_27_aarch64",
             "manylinux_2_28_aarch64")  # fmt: skip
# qemu's CPUs, by what int8 kernels find on them.
CPUS = {
    "cortex-a72": "neither dotprod nor i8mm",
    "cortex-a76": "dotprod",
    "max,sve=off,sme=off": "dotprod and i8mm",
}
RESULTS = HERE.parent / "bench" / "results"
COLUMNS = ["net", "scheme", "cpu", "features", "images", "partitions", "outside", "predicted",
           "worst_quanta", "changed", "worst_quanta_new", "changed_new", "litert_arm",
           "litert_x86", "machine", "commit", "seed",
           "command"]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Files:
    """Files that are run on the same images (N, H, W, 3), uint8."""

    files: list[tuple[str, str, Path]]  # net, scheme, file
    images: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, default=cache() / "arm", help="what is set up")
    parser.add_argument("--files", type=Path, default=cache() / "zoo", help="made where missing")
    parser.add_argument("--trained", type=Path, help="folder of trained runs, made where missing")
    parser.add_argument("--run", type=Path, nargs="+", default=(), help="finished runs of kzoo")
    parser.add_argument("--only", nargs="+", choices=tuple(NETS), default=())
    parser.add_argument("--cpu", nargs="+", choices=tuple(CPUS), default=tuple(CPUS))
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--out", type=Path, help="default: arm.csv, or arm_trained.csv")
    given = parser.parse_args()
    set_up(given.root)
    only = tuple(given.only)
    if given.trained or given.run:
        assert set(RUNS) == set(NETS)
        runs = [*(trained_runs(given.trained, only) if given.trained else ())]
        runs += [(run.name, run) for run in given.run]
        groups = [run_files(name, run, given.images) for name, run in runs]
        learnt = "--trained FOLDER " if given.trained else f"--run {given.run[0].name} "
    else:
        made = [(n, s, f.absolute()) for n, s, f in zoo_files(given.files, only)]
        groups, learnt = [Files(made, gratings(given.images, seed=1)[0])], ""
    command = f"python tests/clients/arm_client.py {learnt}--images {given.images}"
    out = given.out or RESULTS / ("arm_trained.csv" if learnt else "arm.csv")
    for group in groups:
        write(out, list(rows_of(group, given.root, given.cpu, command)))


def run_files(name: str, folder: Path, count: int) -> Files:
    """The files of a finished run: float16, int8 and their forms; and its validation images."""
    run = open_finished(folder.absolute(), "model.keras")
    made = [(name, "float16", run.folder / "arm_float16.tflite")]
    if not made[0][2].is_file():
        convert_file(run.folder, made[0][2], target="gpu")
    forms = {"detect": (f"{name}_op", add_postprocess), "segment": (f"{name}_mask", with_mask)}
    if run.int8.is_file():
        made.append((name, "int8", run.int8.absolute()))
        if run.task.name in forms:
            form, change = forms[run.task.name]
            made.append((form, "int8", change(run.int8, run.folder / f"arm_{form}.tflite")))
    return Files(made, Images(run.val[:count], run.size)[:])


def with_mask(file: Path, out: Path) -> Path:
    out.write_bytes(file.read_bytes())
    end_in_mask(out)
    return out


def rows_of(group: Files, root: Path, cpus: Sequence[str], command: str) -> Iterator[list]:
    """The rows of the CSV, for files that are run on the same images."""
    work = root / "work"
    work.mkdir(exist_ok=True)
    np.save(work / "images.npy", group.images)
    for name in ("arm_runner.py", "../../tflite/runtime/trial.py"):
        (work / Path(name).name).write_bytes((HERE / name).read_bytes())
    paths = [file for _, _, file in group.files]
    run([sys.executable, "-P"], work, "x86", paths)
    run([root / "pip" / "bin" / "python", "-P"], work, f"x86 {OLD}", paths)
    for cpu in cpus:
        arm64 = root / "arm64"
        emulated = [root / "qemu/usr/bin/qemu-aarch64-static", "-cpu", cpu, "-L", arm64,
                    arm64 / "usr/bin/python3.11"]  # fmt: skip
        died = run(emulated, work, cpu, paths, root / "site")
        count = len(group.images)
        for net, scheme, file in group.files:
            found = [died[file]] * 7 if file in died else compared(work, cpu, file)
            row = [net, scheme, cpu, CPUS[cpu], count, *found, *stamp(command)]
            print(*row[:12], sep="\t", flush=True)
            yield row


def write(out: Path, rows: list[list]) -> None:
    """Write the rows to the CSV, in place of those that it has of the same files and CPUs."""
    kept = {}
    if out.is_file():
        with out.open(encoding="utf-8", newline="") as old:
            kept = {tuple(row[:3]): row for row in list(csv.reader(old))[1:]}
    kept |= {tuple(row[:3]): row for row in rows}
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", newline="", encoding="utf-8") as new:
        csv.writer(new, lineterminator="\n").writerows([COLUMNS, *(kept[k] for k in sorted(kept))])


def cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kzoo" / "clients"


def set_up(root: Path) -> None:
    """qemu, an arm64 Python and its packages below `root`, where they are not there yet."""
    if (root / "ready").is_file():
        return
    print(f"qemu, an arm64 Python and LiteRT are unpacked into {root}", flush=True)
    for part in ("debs", "lists/partial", "wheels", "site"):
        (root / part).mkdir(parents=True, exist_ok=True)
    # Downloads of root go as _apt otherwise, who may not write here.
    apt = ["apt-get", "-q", "-oAPT::Sandbox::User=root"]
    arm = [*apt, "-oAPT::Architecture=arm64", "-oAPT::Architectures=arm64",
           f"-oDir::State::Lists={(root / 'lists').absolute()}"]  # fmt: skip
    subprocess.run([*arm, "update"], check=True)
    subprocess.run([*arm, "download", *PYTHON], cwd=root / "debs", check=True)
    subprocess.run([*apt, "download", "qemu-user-static"], cwd=root / "debs", check=True)
    for package in sorted((root / "debs").glob("*.deb")):
        place = "qemu" if package.name.startswith("qemu") else "arm64"
        subprocess.run(["dpkg", "-x", package, root / place], check=True)
    tags = [word for tag in PLATFORMS for word in ("--platform", tag)]
    # An environment of uv has no pip.
    subprocess.run([sys.executable, "-m", "venv", root / "pip"], check=True)
    pip = [root / "pip" / "bin" / "python", "-m", "pip", "install", "-q", "--no-deps"]
    subprocess.run(
        [*pip, "--only-binary=:all:", *tags, "--python-version", "3.11",
         "--target", root / "site", *WHEELS], check=True,
    )  # fmt: skip
    subprocess.run([*pip, *WHEELS], check=True)  # of x86
    (root / "ready").touch()


def run(
    python: Sequence[str | Path], work: Path, name: str, files: list[Path], site: Path | None = None
) -> dict[Path, str]:
    """Outputs of all files into work/name; {file: how} of those that ended the process."""
    (work / name).mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": f"{work}{os.pathsep}{site or ''}".rstrip(":")}
    todo, died = list(files), {}
    while todo:
        command = [*python, work / "arm_runner.py", work / "images.npy", work / name, *todo]
        for file in todo:
            (work / name / f"{file.stem}.npz").unlink(missing_ok=True)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        left = [file for file in todo if not (work / name / f"{file.stem}.npz").is_file()]
        if left and not done.returncode:
            raise RuntimeError(f"{name} ran and left nothing: {done.stderr[-300:]}")
        if left:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            died[left[0]] = f"ended with code {done.returncode}: {last}"
        todo = left[1:]
    return died


def compared(work: Path, cpu: str, file: Path) -> list:
    """[partitions, operators outside, as predicted, then `differences` to x86's two LiteRTs]."""
    there = np.load(work / cpu / f"{file.stem}.npz")
    (cpu_list,) = targets(file, "cpu")
    predicted = [finding.index for finding in cpu_list.refused] == there["outside"].tolist()
    found = [int(there["partitions"]), len(there["outside"]), predicted]
    for name in (f"x86 {OLD}", "x86"):
        found += differences(file, np.load(work / name / f"{file.stem}.npz"), there)
    return found


def differences(file: Path, here: Mapping, there: Mapping) -> list[str]:
    """[The worst difference of an output, the share of answers that change]."""
    graph = read_tflite(file).graphs[0]
    worst = 0.0
    for index in graph.outputs:
        a, b = (side[str(index)].astype(np.float64) for side in (here, there))
        if graph.tensors[index].dtype != "uint8":  # the classes of a mask are no numbers
            worst = max(worst, float(np.abs(a - b).max()) / step(graph, index, a))
    changed = float(np.mean(answers_of(graph, here) != answers_of(graph, there)))
    return [f"{worst:.3g}", f"{changed:.4f}"]


def step(graph: TfliteGraph, index: int, values: np.ndarray) -> float:
    """What a difference is counted in: the int8 step behind an output, else a millionth of it."""
    for op in graph.operators:
        scales = graph.tensors[op.inputs[0]].scales if op.inputs else ()
        if index in op.outputs and op.name == "DEQUANTIZE" and scales:
            return scales[0]
    if graph.tensors[index].dtype == "int8":
        return 1.0
    return 1e-6 * max(float(np.ptp(values)), 1e-12)


def answers_of(graph: TfliteGraph, outputs: Mapping) -> np.ndarray:
    """What an app reads: the largest class of each image, pixel or anchor; masks as they are."""
    values = [outputs[str(index)] for index in graph.outputs]
    classes = next((v for v in reversed(values) if v.ndim > 1 and v.dtype == np.float32), values[0])
    if len(values) == 4:  # boxes, classes, scores, count
        return values[1]
    return classes.argmax(-1) if classes.dtype == np.float32 else classes


def stamp(command: str) -> list[str]:
    import ai_edge_litert

    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    versions = [OLD, ai_edge_litert.__version__]
    return [*versions, platform.machine(), commit.stdout.strip(), "0, 1", command]


if __name__ == "__main__":
    main()
