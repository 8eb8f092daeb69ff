"""Loading of whole Keras models from untrusted files, without running code in them.

Keras' safe mode refuses pickled functions. Here all class names in a file, and its uncompressed
size, are checked before Keras loads it, so that errors name the layer and say what to do.
"""

import contextlib
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from kzoo.weights.readers.limits import FAULTS, check_archive, open_hdf5, parse_json

CONFIG, WEIGHTS = "config.json", "model.weights.h5"  # in a .keras file
HDF5 = b"\x89HDF\r\n\x1a\n"
# Packages whose classes Keras finds by itself; the user has to import any other.
PACKAGES = ("keras", "keras_hub", "keras_cv", "keras_nlp", "kzoo", "builtins")
PROGRAMS = {  # layers that contain or load code
    "Lambda": "a Python function",
    "__lambda__": "a Python function",
    "TFSMLayer": "a SavedModel of TensorFlow, which may do anything",
    "TorchModuleWrapper": "a pickled module of PyTorch",
    "JaxLayer": "a function of JAX",
    "FlaxLayer": "a module of Flax",
}


def load_model(path: str | os.PathLike[str], *, compile: bool = False) -> keras.Model:
    """Return the model of a .keras file, or of an .h5 file with a whole model.

    compile: whether to restore the loss and the optimizer's state.

    Raises FileNotFoundError, and ValueError for a file with a layer that contains code (such as
    Lambda) or is of a package that is not imported, that decompresses to far more than its size,
    that is damaged or has no Keras model. No code in the file is run.
    """
    file = Path(path)
    if file.is_dir():
        raise ValueError(
            f"{str(file)!r} is a folder, and no .keras or .h5 file. A SavedModel is not read: save "
            "the model as .keras."
        )
    if not file.is_file():
        raise FileNotFoundError(f"There is no model file {str(file)!r}.")
    with errors_naming(file):
        config = saved_config(file)
        if not compile and isinstance(config, dict):
            config = config | {"compile_config": None}  # Keras ignores it too
        for part in saved_objects(config):
            require_known(part)
        model = keras.saving.load_model(file, compile=compile, safe_mode=True)
        if not isinstance(model, keras.Model):
            raise ValueError(f"It holds a {type(model).__name__}, not a model.")
    return model


@contextlib.contextmanager
def errors_naming(file: Path) -> Iterator[None]:
    """Convert exceptions that readers raise for a damaged file to a ValueError that names it."""
    try:
        yield
    except FAULTS as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(f"{file} cannot be loaded as a Keras model. {reason}") from error


def saved_config(file: Path) -> Any:
    """Return the model's configuration in a file; raise one of `FAULTS` if it is damaged."""
    with file.open("rb") as stream:
        start = stream.read(len(HDF5))
    if start == HDF5:
        with open_hdf5(file.read_bytes()) as root:
            if "model_config" not in root.attrs:
                raise ValueError(
                    "It contains only weights: pass them as weights= when the model is built."
                )
            return parse_json(root.attrs["model_config"], "Its configuration")
    with zipfile.ZipFile(file) as archive:
        check_archive(archive)
        config = parse_json(archive.read(CONFIG), "Its configuration")
        if WEIGHTS in archive.namelist():
            with open_hdf5(archive.read(WEIGHTS)):
                pass
    return config


def saved_objects(config: Any) -> Iterator[dict[str, Any]]:
    """Yield each nested dict of a configuration that has a class name."""
    waiting = [config]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if isinstance(part.get("class_name"), str):
                yield part
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part


def require_known(config: dict[str, Any]) -> None:
    """Raise ValueError if a part of a configuration contains code or is of an unknown package."""
    name, module = config["class_name"], config.get("module")
    inner = config.get("config")
    layer = inner.get("name") if isinstance(inner, dict) else None
    called = f"{layer!r} ({name})" if layer else repr(name)
    registered = config.get("registered_name")
    if isinstance(registered, str) and keras.saving.get_registered_object(registered) is not None:
        return
    if name in PROGRAMS:
        raise ValueError(
            f"Its layer {called} holds {PROGRAMS[name]}: refused, and none of it was run. Build "
            "the model with layers of Keras in its place (Rescaling, Activation, a layer of your "
            "own) and save it again; or, if you trust the file, load it in Python with "
            "keras.saving.load_model(path, safe_mode=False) and pass the model itself to kzoo."
        )
    if isinstance(module, str) and module.split(".")[0] not in PACKAGES:
        raise ValueError(
            f"Its {called} is of the module {module!r}, which kzoo does not import for a model "
            "file. If you "
            "trust it, import that module in Python, load the model with "
            "keras.saving.load_model(path, custom_objects=...) and pass the model itself to kzoo."
        )
