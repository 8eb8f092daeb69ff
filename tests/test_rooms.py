"""The rooms of the tree: which way imports go, what each may use, and what is packed."""

import ast
import importlib.util
import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STANDARD = frozenset(sys.stdlib_module_names)
PROGRAMS_ONLY = frozenset({"argparse", "getpass", "optparse"})  # of the standard library

# room: (folder, packages it may import, those it may import inside a function only)
ROOMS = {
    "kzoo": ("kzoo", {"keras", "numpy", "kzoo"}, {"h5py"}),
    "kzoo.tflite": (
        "tflite",
        {"keras", "numpy", "kzoo", "kzoo.tflite", "flatbuffers"},  # TensorFlow's own dependency
        {"tensorflow", "ai_edge_litert"},
    ),
    "kzoo.recipes": (
        "recipes",
        {
            "keras",
            "numpy",
            "kzoo",
            "kzoo.tflite",
            "kzoo.recipes",
            "PIL",
            "matplotlib",
            "rich",
            "yaml",
            "defusedxml",
            "imagehash",
            "pillow_heif",
            "cv2",
        },
        {"pycocotools", "jax", "array_record", "tf_keras", "keras_cv"},
    ),
}
# kzoo/interop is the one place of the models' room that knows of other libraries, when asked.
NEIGHBOURS = {"tf_keras", "tensorflow_model_optimization", "tensorflow", "keras_cv", "keras_hub"}
# Inside a room, from the ground up: a file imports its own floor or one below.
FLOORS = {
    "kzoo": (
        ("arguments", "devices", "files", "lazy", "old_names", "saved_classes", "sizes"),
        ("depthwise",),
        ("preprocessing", "registry"),
        ("weights.readers", "weights.checkpoint"),
        ("weights",),
        ("backbones",),
        ("detection", "segmentation"),
        ("quantization", "qat"),
        ("interop",),
        ("api",),
    ),
    "kzoo.tflite": (
        ("ports", "writer", "xnnpack"),
        ("metadata",),
        ("runtime",),
        ("inspect",),
        ("convert",),
        ("api",),
    ),
    "kzoo.recipes": (
        ("distributed", "progress", "options", "models", "inputs", "prediction", "task"),
        ("configs",),
        ("data",),
        ("training",),
        ("evaluation",),
        ("inspection",),
        ("pipeline",),
        ("classify", "detect", "multilabel", "segment"),
        ("programs",),
        ("commands",),
        ("cli",),
        ("api",),
    ),
}
MOST_FILES = 15  # in a folder
FILES = [
    pytest.param(room, path, id=str(path.relative_to(ROOT)))
    for room, (folder, _, _) in ROOMS.items()
    for path in sorted((ROOT / folder).rglob("*.py"))
    if not {"recipes", "tflite"} & set(path.relative_to(ROOT / folder).parts)  # the symlinks
]


def room_of(module: str) -> str:
    """kzoo.tflite.inspect.audit -> kzoo.tflite, kzoo.backbones.rows -> kzoo, PIL.Image -> PIL."""
    inside = next(
        (room for room in ROOMS if f"{module}.".startswith(f"{room}.") and "." in room), ""
    )
    return inside or module.split(".")[0]


def imports(path: Path) -> list[tuple[str, bool, int]]:
    """(module, whether it is imported inside a function, line) of every import in a file."""
    found = []

    def visit(node: ast.AST, lazy: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend((alias.name, lazy, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: from kzoo.x import y, not from .x"
            found.append((node.module, lazy, node.lineno))
            if node.module == "kzoo":  # from kzoo import tflite
                found.extend((f"kzoo.{alias.name}", lazy, node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "neighbour":
            found.append((ast.literal_eval(node.args[0]), lazy, node.lineno))
        lazy = lazy or isinstance(node, ast.FunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, lazy)

    visit(ast.parse(path.read_text()), False)
    return found


@pytest.mark.parametrize(("room", "path"), FILES)
def test_imports_go_one_way(room, path):
    _, at_once, lazily = ROOMS[room]
    if path.parent == ROOT / "kzoo" / "interop":
        lazily = lazily | NEIGHBOURS
    for module, lazy, line in imports(path):
        package = room_of(module)
        fits = package in at_once or (lazy and package in lazily) or package in STANDARD
        assert fits, f"{path.name}:{line} imports {module}; DESIGN.md, 'Rooms': {room} must not"
        assert not module.startswith("keras.src"), f"{path.name}:{line}: keras.src is private"


def module_of(room: str, path: Path) -> str:
    """recipes/data/images.py -> kzoo.recipes.data.images"""
    inside = path.relative_to(ROOT / ROOMS[room][0]).with_suffix("").parts
    return ".".join((room, *inside)).removesuffix(".__init__")


def floor_of(module: str) -> tuple[str, int] | None:
    """(Room, floor) of a module; None of a room itself, which shows what its floors hold."""
    room = room_of(module)
    inside = module.removeprefix(room).removeprefix(".")
    if room not in FLOORS or not inside:
        return None
    for number, floor in enumerate(FLOORS[room]):
        if any(f"{inside}.".startswith(f"{name}.") for name in floor):
            return room, number
    raise AssertionError(f"{module} stands on no floor of {room}: add it to FLOORS")


MODULES = {module_of(*case.values): case.values[1] for case in FILES}


def edges(module: str) -> set[str]:
    """The modules of kzoo that a module imports by name, anywhere in its file."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in MODULES else str(node.module))
    return (found & MODULES.keys()) - {module}


def test_a_recipe_is_imported_from_its_file():
    """`from kzoo.recipes import classify` is the function, and imports all of recipes for it."""
    functions = {"classify", "detect", "multilabel", "segment"}
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "kzoo.recipes":
                found = functions & {alias.name for alias in node.names}
                where = f"{module}:{node.lineno}"
                assert not found, f"{where}: from kzoo.recipes.{found.pop()} import ..."


@pytest.mark.parametrize("module", [module for module in MODULES if "__main__" not in module])
def test_imports_go_down(module):
    own = floor_of(module)
    for other in edges(module):
        below = floor_of(other)
        if own and below and own[0] == below[0]:
            assert below[1] <= own[1], f"{module} imports {other}, which is on a floor above it"


def test_there_is_no_import_cycle():
    rooms = {"kzoo", "kzoo.tflite", "kzoo.recipes"}  # these import what they show
    left = {module: edges(module) - rooms for module in MODULES if module not in rooms}
    while free := [module for module, needs in left.items() if not needs & left.keys()]:
        for module in free:
            del left[module]
    assert not left


def test_folders_are_small():
    for folder in {path.parent for path in MODULES.values()}:
        count = len([path for path in folder.glob("*.py") if path.name != "__init__.py"])
        assert count <= MOST_FILES, f"{folder.name} holds {count} files"


@pytest.mark.parametrize(("room", "path"), FILES)
def test_only_programs_talk_to_a_terminal(room, path):
    if room == "kzoo.recipes":
        return
    for module, _, line in imports(path):
        assert module not in PROGRAMS_ONLY, f"{path.name}:{line} imports {module}"
    module = ast.parse(path.read_text())
    # Under `if __name__ == "__main__"` a process of its own answers the one that started it.
    module.body = [node for node in module.body if "__main__" not in ast.unparse(node)]
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("print", "input"), f"{path.name}:{node.lineno} prints"


def test_the_readers_of_imports_see_them(tmp_path):
    file = tmp_path / "example.py"
    file.write_text(
        "import keras.ops\nfrom kzoo import tflite\n\ndef f():\n    import tensorflow as tf\n"
        "    cv = neighbour('keras_cv', 'keras-cv')\n"
    )
    assert imports(file) == [
        ("keras.ops", False, 1),
        ("kzoo", False, 2),
        ("kzoo.tflite", False, 2),
        ("tensorflow", True, 5),
        ("keras_cv", True, 6),
    ]
    rooms = [room_of(module) for module, _, _ in imports(file)]
    assert rooms == ["keras", "kzoo", "kzoo.tflite", "tensorflow", "keras_cv"]


def run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_kzoo_costs_keras_and_numpy():
    if importlib.util.find_spec("jax") is None:
        pytest.skip("JAX is not installed: TensorFlow or PyTorch would be loaded by Keras itself")
    code = "import sys, keras; print(*sys.modules); import kzoo; kzoo.MobileNetV2; "
    lines = run(code + "print(*sys.modules)", KERAS_BACKEND="jax").splitlines()
    # Keras itself imports h5py, and Pillow where it is installed.
    heavy = {"tensorflow", "torch", "ai_edge_litert", "matplotlib", "rich", "argparse"}
    by_keras, loaded = (set(line.split()) for line in lines[-2:])
    assert not heavy & (loaded - by_keras)
    assert not {"tensorflow", "torch"} & loaded
    assert not [name for name in loaded if room_of(name) in ("kzoo.tflite", "kzoo.recipes")]


def test_the_list_of_packages_is_the_tree():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    tree = set()
    for room, (folder, _, _) in ROOMS.items():
        for path in (ROOT / folder).rglob("__init__.py"):
            inside = path.parent.relative_to(ROOT / folder).parts
            if not {"recipes", "tflite"} & set(inside):
                tree.add(".".join((room, *inside)))
    assert sorted(settings["packages"]) == sorted(tree)
    assert settings["package-dir"] == {room: folder for room, (folder, _, _) in ROOMS.items()}
    for link in ("recipes", "tflite"):
        assert (ROOT / "kzoo" / link).readlink() == Path("..") / link


@pytest.mark.slow
def test_wheel_and_sdist_beside_the_package_called_tflite(tmp_path):
    """kzoo's tflite/ folder must not overwrite PyPI's package of that name, nor that one kzoo's."""
    build = [sys.executable, "-m", "build", "--outdir", tmp_path / "dist", ROOT]
    built = subprocess.run(build, capture_output=True, text=True)
    if built.returncode and "Could not find a version" in built.stdout + built.stderr:
        pytest.skip("no package index to get setuptools from")
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")  # made from the sdist
    (sdist,) = (tmp_path / "dist").glob("*.tar.gz")

    packed = set(zipfile.ZipFile(wheel).namelist())
    expected = {path.relative_to(ROOT) for _, path in (case.values for case in FILES)}
    expected = {str(p if p.parts[0] == "kzoo" else "kzoo" / p) for p in expected}
    expected |= {"kzoo/py.typed", "kzoo/recipes/models.csv", "kzoo/recipes/programs/serve.html"}
    expected |= {f"kzoo/weights/data/{name}.txt" for name in ("coco", "imagenet", "voc")}
    app = ROOT / "recipes" / "programs" / "android_app"
    expected |= {f"kzoo/{path.relative_to(ROOT)}" for path in app.rglob("*") if path.is_file()}
    assert expected == {name for name in packed if name.startswith("kzoo/")}
    assert not [name for name in packed if name.startswith(("tests", "tflite", "recipes"))]
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "tflite/__init__.py", "recipes/cli.py"} <= names

    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    site = next((tmp_path / "venv" / "lib").glob("python*/site-packages"))
    (site / "parent.pth").write_text(  # keras and the rest from here, in seconds
        "\n".join(p for p in sys.path if p.endswith("site-packages"))
    )
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall"]
    code = "import kzoo, kzoo.tflite, kzoo.recipes, tflite; print(kzoo.__file__, tflite.Model)"
    for order in ((wheel, "tflite"), ("tflite", wheel)):
        for package in order:
            done = subprocess.run([*install, package], capture_output=True, text=True)
            if package == "tflite" and done.returncode:
                pytest.skip(f"no package index to get tflite from: {done.stderr.strip()[-200:]}")
            assert done.returncode == 0, done.stderr
        found = subprocess.run([python, "-c", code], cwd=tmp_path, capture_output=True, text=True)
        assert str(site) in found.stdout, found.stderr  # and not the checkout
