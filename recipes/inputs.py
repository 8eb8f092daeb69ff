"""Files and folders that a command is given, checked before anything heavy is imported."""

import os
from pathlib import Path

NO_IMAGES = "Name a folder with images, a CSV file, or a packed folder."


def require_data(data: str | Path) -> None:
    """Raise ValueError where there are no data, or an empty folder."""
    path = Path(data)
    if not path.exists():
        raise ValueError(f"There is no {data}. {NO_IMAGES}")
    if path.is_dir() and not any(files for *_, files in os.walk(path, followlinks=True)):
        raise ValueError(f"{data} holds no images: it is an empty folder. {NO_IMAGES}")


def require_file(file: str | Path) -> None:
    """Raise ValueError where there is no such file."""
    if not Path(file).is_file():
        raise ValueError(f"There is no file {str(file)!r}.")


def require_run(folder: str | Path) -> None:
    """Raise ValueError where there is no run of kzoo."""
    path = Path(folder)
    if not path.exists():
        raise ValueError(f"There is no folder {str(folder)!r}: name the folder of a kzoo run.")
    if not path.is_dir():
        raise ValueError(f"{folder} is a file: name the folder of a kzoo run.")
    if not (path / "config.json").is_file():
        raise ValueError(f"{folder} is not a kzoo run folder: it has no config.json.")


def require_model(model: str | Path, suffixes: tuple[str, ...] = (".keras",)) -> None:
    """Raise ValueError where there is neither a run of kzoo nor a model file of that name."""
    path, kinds = Path(model), " or ".join(suffixes)
    if path.is_dir():
        require_run(path)
    elif not path.is_file():
        raise ValueError(f"There is no {model}. Name a run folder or a {kinds} file.")
    elif path.suffix not in suffixes:
        raise ValueError(f"{model} is no {kinds} file. Name one, or a run folder.")
