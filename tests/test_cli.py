"""The command line: what it costs, what it refuses at once, and that nothing else is printed."""

import contextlib
import dataclasses
import errno
import importlib.util
import json
import os
import re
import resource
import subprocess
import sys
import tomllib
from pathlib import Path

import keras
import pytest

import kzoo
from kzoo.detection.losses import BOX_LOSSES, LOSSES
from kzoo.recipes import cli
from kzoo.recipes.cli import COMMANDS, main, parse
from kzoo.recipes.commands.files import benchmark, convert
from kzoo.recipes.commands.images import pack
from kzoo.recipes.configs import detect, segment
from kzoo.recipes.data.box_batches import SCALE_JITTER
from kzoo.recipes.data.formats import FORMATS
from kzoo.recipes.models import stored_sizes
from kzoo.recipes.segment import HEADS, OUTPUTS
from kzoo.recipes.task import list_tasks
from kzoo.saved_classes import CLASSES, StandIn
from kzoo.tflite import SCHEMES
from kzoo.tflite.inspect.benchmark import RUNTIMES

# Keras is imported sooner on JAX: some 3 s of CPU, and 9 s on TensorFlow.
QUICKEST = {"KERAS_BACKEND": "jax"} if importlib.util.find_spec("jax") else {}
ROOT = Path(__file__).parents[1]
HEAVY = {"keras", "tensorflow", "jax", "torch", "numpy", "PIL", "matplotlib", "ai_edge_litert"}


def kzoo_command(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as a person runs it, in a process of its own."""
    command = [sys.executable, "-m", "kzoo.recipes.cli", *map(str, words)]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)


def python(code: str) -> str:
    """What a program prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | QUICKEST, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def answered(*words: str) -> tuple[float, set[str], int]:
    """(CPU seconds, heavy packages that were imported, exit code) of a command."""
    code = (
        "import sys; from kzoo.recipes.cli import main; code = main(sys.argv[1:]); "
        "print(code, *sys.modules)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    status, *modules = done.stdout.splitlines()[-1].split()
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, HEAVY & set(modules), int(status)


class ResourceExhaustedError(Exception):
    """Called as TensorFlow's is."""


@pytest.mark.parametrize(
    "error",
    [MemoryError(), ResourceExhaustedError("OOM when allocating tensor"),
     RuntimeError("DefaultCPUAllocator: can't allocate memory"),
     RuntimeError("Status: 1, message: could not create a primitive, in mkl_conv_ops.cc"),
     RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes."),
     RuntimeError("can't start new thread")],  # whose stack finds no place
)  # fmt: skip
def test_memory_that_runs_out_is_one_line(error, monkeypatch, capsys):
    def fail(options):
        raise error

    command = dataclasses.replace(COMMANDS["list"], run=fail)
    monkeypatch.setitem(COMMANDS, "list", command)
    assert main(["list"]) == 1
    told = capsys.readouterr().err
    assert re.fullmatch(r"kzoo: memory ran out\. .*--batch-size.*--size.*\n", told)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.EROFS, "Read-only file system", "/ro/runs"),
         r"Read-only file system: /ro/runs\. Mount it .*--out"),
        (PermissionError(errno.EACCES, "Permission denied", "runs"),
         r"Permission denied: runs\. Change its permissions, .*--out"),
        (OSError(errno.ENOSPC, "No space left on device"),
         r"No space left on device\. Make room and run the same command again"),
        (FileNotFoundError("There is no folder 'a'."), r"There is no folder 'a'\."),
    ],
)  # fmt: skip
def test_a_place_that_cannot_be_written_is_told_with_what_to_do(error, told):
    assert re.match(told, cli.message(error))


@pytest.mark.skipif(sys.platform != "linux", reason="address spaces are limited on Linux")
@pytest.mark.parametrize(
    ("act", "status", "told"),
    [
        ("import os; os.abort()", 1,
         r"kzoo: memory ran out\. .* limited to 3\.0 GB \(ulimit -v\).*--batch-size.*\n"),
        ("raise ValueError('wrong')", 1, "kzoo: wrong\n"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", 143,
         r"kzoo: stopped\. The same command resumes a training\.\n"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGHUP)", 1,
         r"kzoo: the command was ended by SIGHUP\. The same command resumes a training\.\n"),
        ("return 'done'", 0, ""),
    ],
)  # fmt: skip
def test_a_limited_process_that_cplusplus_ends_is_one_line(act, status, told):
    """TensorFlow aborts where std::bad_alloc is thrown: nothing of it is left to tell."""
    code = f"""
import dataclasses, resource, sys
from kzoo.recipes import cli
def act(options): {act}
cli.COMMANDS["list"] = dataclasses.replace(cli.COMMANDS["list"], run=act)
resource.setrlimit(resource.RLIMIT_AS, (3 * 10**9,) * 2)
sys.argv[1:] = ["list"]
sys.exit(cli.main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == status
    assert re.fullmatch(told, done.stderr)
    assert done.stdout == "done\n" * (status == 0)


def test_a_second_interrupt_is_no_traceback(monkeypatch):
    """People press Ctrl-C twice: `kzoo serve` ended in a traceback."""

    @contextlib.contextmanager
    def interrupted():
        yield str
        raise KeyboardInterrupt

    def stopped(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "own_terminal", interrupted)
    monkeypatch.setitem(COMMANDS, "list", dataclasses.replace(COMMANDS["list"], run=stopped))
    monkeypatch.setattr(sys, "argv", ["kzoo", "list"])
    assert main() == 130


def test_names_that_the_terminal_cannot_show_do_not_end_a_command(tmp_path):
    file = tmp_path / "Löwe 猫.txt"
    code = "from kzoo.recipes import cli; import dataclasses as d, sys\n"
    code += "cli.COMMANDS['list'] = d.replace(cli.COMMANDS['list'], run=lambda options: '猫')\n"
    code += "sys.argv[1:] = ['list']; sys.exit(cli.main())"
    file.write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, file], env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"\\u732b\n", b"")


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["list"], 0),
        (["list", "--json"], 0),
        (["clasify", "x"], 2),
        (["classify"], 2),
        (["classify", "x", "--epocs", "3"], 2),
        (["classify", "/none"], 1),
        (["classify", ".", "--model", "mobilenet_v3_smal"], 1),
        (["segment", ".", "--head", "lrasp"], 1),
        (["convert", "a.keras", "b.tflite", "--scheme", "int9"], 1),
        (["audit", "none.tflite"], 1),
        (["list", "--alpha", "-1"], 1),
        (["list", "--size", "320x"], 1),
        (["pack", "/none", "packed"], 1),
        (["weights", "get", "nothing"], 1),
        (["predict", "none", "a.jpg"], 1),
        (["predict", "mobilenet_v9", "a.jpg"], 1),
        (["serve", "none.tflite"], 1),
        (["android", "none"], 1),
        (["sensitivity", "none"], 1),
        (["benchmark", "none.tflite"], 1),
        (["compare", "none"], 1),
        (["plan", "--batch-size", "3", "--devices", "2"], 1),
        *(([name, "--help"], 0) for name in COMMANDS),
    ],
)
def test_help_and_wrong_usage_cost_no_keras(words, status):
    seconds, heavy, found = answered(*words)
    assert found == status
    assert not heavy
    assert seconds < 1


def test_an_empty_folder_is_refused_at_once(tmp_path):
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    seconds, heavy, status = answered("classify", str(tmp_path))
    assert (heavy, status) == (set(), 1)
    assert seconds < 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["clasify", "x"], "there is no command 'clasify'. Did you mean 'classify'?"),
        (["classify", "x", "--epocs", "3"], "it takes no --epocs. Did you mean '--epochs'?"),
        (["list", "--siez", "96"], "it takes no --siez. Did you mean '--size'?"),
        (["audit", "a", "b"], "it takes no b"),
        (["audit"], "the following arguments are required: FILE"),
        (["sensitivity", "a", "--top", "many"], "argument --top: invalid int value: 'many'"),
        (["help", "clasify"], "there is no command 'clasify'. Did you mean 'classify'?"),
        (["--verbose"], "unrecognized arguments: --verbose"),
    ],
)
def test_wrong_usage_is_answered_in_two_lines(words, message, capsys):
    assert main(words) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert message in first
    assert second.startswith("See kzoo")


@pytest.mark.parametrize(
    "words", [["--model", "a.keras", "b.tflite"], ["b.tflite", "--io", "int8", "--model=a.keras"]]
)
def test_the_first_argument_may_be_a_flag(words):
    _, options = parse(["convert", *words])
    assert (options["model"], options["out"]) == ("a.keras", "b.tflite")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["classify", ".", "--model", "mobilenet_v3_smal"], "Did you mean 'mobilenet_v3_small'?"),
        (["segment", ".", "--output", "masks"], "Received: 'masks'. Did you mean 'mask'?"),
        (["classify", "none"], "There is no none. Name a folder with images"),
        (["convert", "none", "out.tflite"], "There is no none. Name a run folder or a .keras file"),
        (["convert", __file__, "out.tflite"], "test_cli.py is not a .keras file. Name one"),
        (["audit", "none.tflite"], "There is no file 'none.tflite'"),
        (["audit", "."], ". is a folder: name a file in it."),
        (["list", "--alpha", "-1"], "alpha must be a number > 0. Received: -1"),
        (["list", "--size", "31"], "in px and at least 32 each"),
        (["list", "--size", "big"], "--size 320 or --size 320x240 (WIDTHxHEIGHT)"),
        (["pack", "none", "packed"], "There is no none. Name a folder with images"),
        (["predict", "mobilenet_v9", "a.jpg"], "There is no mobilenet_v9. Name a run folder or a"),
        (["predict", "mobilenet_v3_smal", "a.jpg"], "Did you mean 'mobilenet_v3_small'?"),
        (["convert", "lrasp", "a.tflite"], "Did you mean 'lraspp'?"),
        (["serve", "none.tflite"], "There is no none.tflite. Name a run folder or a .tflite file."),
        (["compare", "none"], "There is no folder 'none': name the folder of a kzoo run"),
        (["compare", __file__], "test_cli.py is a file: name the folder of a kzoo run"),
        (["classify", "https://a.org/b"], "https://a.org/b is a URL: download it, then name"),
        (["predict", "https://a.org/b", "a.jpg"], "https://a.org/b is a URL: download it"),
        (["benchmark", __file__, "--runtime", "lite"], "one of litert, compiled, reference"),
    ],
)
def test_wrong_values_are_refused_in_one_line(words, message, capsys):
    assert main(words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("kzoo: ")
    assert message in line


def test_a_run_in_place_of_its_file(tmp_path, capsys):
    (tmp_path / "model.tflite").touch()
    assert main(["audit", str(tmp_path)]) == 1
    assert f"such as {tmp_path / 'model.tflite'}." in capsys.readouterr().err


def test_a_folder_that_is_no_run(tmp_path, capsys):
    assert main(["compare", str(tmp_path)]) == 1
    assert f"{tmp_path} is not a kzoo run folder: it has no config.json" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["detect", str(tmp_path / "empty")]) == 1
    assert "holds no images: it is an empty folder" in capsys.readouterr().err


def test_help_groups_the_commands_and_shows_an_example(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in COMMANDS)
    for name, command in COMMANDS.items():
        assert command.example.startswith(f"kzoo {name}")
        assert main([name, "--help"]) == 0
        assert f"Example:\n  {command.example}" in capsys.readouterr().out


def test_help_is_a_command_too(capsys):
    for words, same in ((["help"], ["--help"]), (["help", "list"], ["list", "--help"])):
        assert main(words) == 0
        text = capsys.readouterr().out
        assert main(same) == 0
        assert text == capsys.readouterr().out


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"kzoo {kzoo.__version__}\n"


def test_list_as_a_table_and_as_json(capsys):
    assert main(["list"]) == 0
    table = capsys.readouterr().out
    assert "mobilenet_v2                         3,504,872     300.8" in table
    assert main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["models"][1] == {
        "model": "mobilenet_v2", "parameters": 3504872, "macs": 300774272,
    }  # fmt: skip


def test_list_at_another_width_builds_the_models(capsys, monkeypatch):
    monkeypatch.setattr(kzoo, "list_models", lambda: ("mobilenet_v2",))
    assert main(["list", "--alpha", "0.35", "--size", "96"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.endswith("at alpha 0.35 and 96 px")
    assert row.split()[:2] == ["mobilenet_v2", "1,677,128"]  # as in keras.applications
    assert main(["list", "--size", "448x224"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.endswith("at alpha 1 and 448x224 px")
    square = int(stored_sizes()[1].macs) / 1e6
    assert float(row.split()[2]) == pytest.approx(2 * square, rel=0.01)


def a_run(folder, task, *files):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"task": task}))
    for name in files:
        (folder / name).touch()
    return str(folder)


def test_runs_that_a_command_cannot_use_cost_no_keras(tmp_path):
    photos = a_run(tmp_path / "photos", "classify", "results.json")
    boxes = a_run(tmp_path / "boxes", "detect", "results.json")
    stopped = a_run(tmp_path / "stopped", "classify")
    for words in (
        ["compare", photos, boxes], ["compare", photos, stopped], ["compare", stopped],
        ["sensitivity", stopped], ["android", stopped], ["predict", stopped, "a.jpg"],
        ["evaluate", stopped, str(tmp_path)], ["convert", stopped, "a.tflite"], ["serve", stopped],
    ):  # fmt: skip
        seconds, heavy, status = answered(*words)
        assert (heavy, status) == (set(), 1), words
        assert seconds < 1


def test_runs_of_two_tasks_are_not_compared(tmp_path, capsys):
    photos = a_run(tmp_path / "photos", "classify", "results.json")
    boxes = a_run(tmp_path / "boxes", "detect", "results.json")
    assert main(["compare", photos, boxes]) == 1
    error = capsys.readouterr().err
    assert f"{photos} is a run of `kzoo classify` and {boxes} one of `kzoo detect`: only" in error


LARGE = 8_000_000  # parameters, whose first values alone take seconds


@pytest.mark.parametrize(
    "stored",
    [
        pytest.param(size, id=size.model, marks=[pytest.mark.slow] * (size.parameters > LARGE))
        for size in stored_sizes()
    ],
)
def test_the_stored_sizes_are_the_models(stored):
    found = kzoo.profile(kzoo.create_model(stored.model))
    assert (stored.parameters, stored.macs) == (found.trainable, found.macs)


def test_every_model_is_stored():
    assert tuple(sorted(size.model for size in stored_sizes())) == kzoo.list_models()


def test_choices_are_those_of_the_code_that_takes_them():
    assert tuple(LOSSES) == detect.CLASS_LOSSES
    assert tuple(BOX_LOSSES) == detect.BOX_LOSSES
    assert set(SCALE_JITTER) == set(detect.SCALE_JITTERS)
    assert tuple(FORMATS) == detect.BOX_FORMATS
    assert tuple(HEADS) == segment.SEGMENTATION_HEADS
    assert tuple(OUTPUTS) == segment.SEGMENTATION_OUTPUTS
    assert set(list_tasks()) >= set(pack.TASKS)
    assert tuple(RUNTIMES) == benchmark.RUNTIMES
    assert {name: str(scheme) for name, scheme in SCHEMES.items()} == convert.SCHEMES
    assert set(convert.INPUTS) == {io for scheme in SCHEMES.values() for io in scheme.inputs}


def test_names_are_imported_on_demand():
    code = (
        "import sys, kzoo; assert 'keras' not in sys.modules; "
        "assert 'MobileNetV2' in dir(kzoo); from kzoo import *; assert MobileNetV2, profile; "
        "import kzoo.recipes.classify; from kzoo.recipes import classify; "
        "assert callable(classify) and kzoo.recipes.classify is classify; "
        "import kzoo.tflite.convert.request; assert callable(kzoo.tflite.convert); "
        "from kzoo.recipes.classify import Config; from kzoo import qat; print(qat.__name__)"
    )
    assert python(code) == "kzoo.qat\n"
    with pytest.raises(AttributeError, match=r"module 'kzoo' has no attribute 'MobileNetV5'"):
        kzoo.MobileNetV5  # noqa: B018


@pytest.mark.parametrize("order", ["import keras, kzoo", "import kzoo, keras", "import kzoo"])
def test_saved_classes_are_known_whatever_is_imported_first(order):
    code = (
        f"{order}\nimport keras\nconfig = {{'module': 'kzoo.quantization.layers', 'class_name': "
        "'FakeQuant', 'config': {'name': 'x', 'low': -1.0, 'high': 1.0}, "
        "'registered_name': 'kzoo>FakeQuant'}\n"
        "layer = keras.saving.deserialize_keras_object(config)\n"
        "print(keras.saving.get_registered_name(type(layer)))"
    )
    assert python(code) == "kzoo>FakeQuant\n"


def test_the_saved_classes_are_all_that_are_registered():
    for module in set(CLASSES.values()):
        __import__(module)
    known = {
        name.removeprefix("kzoo>"): kind
        for name, kind in keras.saving.get_custom_objects().items()
        if name.startswith("kzoo>")
    }
    assert not [name for name, kind in known.items() if isinstance(kind, StandIn)]
    assert {name: kind.__module__ for name, kind in known.items()} == CLASSES


def test_env_tells_versions_backend_and_machine(capsys):
    assert main(["env"]) == 0
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert rows["kzoo"] == kzoo.__version__
    assert rows["keras"] == keras.__version__
    assert rows["backend"] == keras.backend.backend()
    assert main(["env", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["packages"]["keras"] == keras.__version__
    assert found["cores"] >= 1


@pytest.mark.parametrize("recipe", ["classify", "detect", "multilabel", "segment"])
def test_a_misspelt_option_of_a_recipe_is_told_with_the_nearest(recipe):
    words = (
        rf"^{recipe}\(\) got an unexpected keyword argument 'epocs'\. Did you mean 'epochs'\? It "
    )
    with pytest.raises(TypeError, match=words):
        getattr(kzoo.recipes, recipe)("nowhere", epocs=3)


def test_a_package_that_is_missing_is_told_with_the_extra_that_brings_it(monkeypatch, capsys):
    def absent(name):
        def fails(options):
            raise ModuleNotFoundError(f"No module named {name!r}", name=f"{name}.core")

        return dataclasses.replace(cli.COMMANDS["env"], run=fails)

    monkeypatch.setattr(cli.importlib.util, "find_spec", lambda name: name == "jax" or None)
    assert cli.run(absent("tensorflow"), {}, False) == 1
    told = capsys.readouterr().err
    assert "pip install 'kzoo[tensorflow]', or set KERAS_BACKEND=jax" in told
    assert cli.run(absent("array_record"), {}, False) == 1
    assert "pip install 'kzoo[large]'." in capsys.readouterr().err
    with pytest.raises(ModuleNotFoundError):  # a fault of the code, not of the installation
        cli.run(absent("kzoo"), {}, False)


def test_the_extras_that_are_told_are_those_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert set(cli.EXTRAS.values()) <= set(extras)
    for package, extra in cli.EXTRAS.items():
        names = {"PIL": "pillow", "yaml": "pyyaml", "ai_edge_litert": "ai-edge-litert"}
        assert any(line.startswith(names.get(package, package)) for line in extras[extra]), package
