"""The command line: `kzoo COMMAND --help` lists the options of a command."""

import argparse
import errno
import importlib.util
import io
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import kzoo
from kzoo.recipes.commands.about import env, list_models, weights
from kzoo.recipes.commands.files import audit, benchmark, compare, convert, sensitivity
from kzoo.recipes.commands.images import inspect_data, pack
from kzoo.recipes.commands.json_output import json_text
from kzoo.recipes.commands.limited import advice, in_child, limit_gb
from kzoo.recipes.commands.quiet import own_terminal
from kzoo.recipes.commands.train import classify, demo, detect, multilabel, plan, segment
from kzoo.recipes.commands.use import android, evaluate, predict, serve
from kzoo.recipes.options import Command, add_flags, did_you_mean, from_flags

GROUPS = {
    "Train on your own images": (demo, classify, multilabel, detect, segment, plan),
    "Prepare images": (inspect_data, pack),
    "Use a trained model": (predict, evaluate, serve, android),
    "Create and check .tflite files": (convert, audit, compare, sensitivity, benchmark),
    "About kzoo": (list_models, weights, env),
}
BACKENDS = ("tensorflow", "jax", "torch")
# How a process ends whose libraries cannot allocate memory.
FAILED_ALLOCATIONS = {signal.SIGABRT, signal.SIGSEGV}
# Optional packages, and the extra of pyproject.toml that installs each.
EXTRAS = {name: name for name in BACKENDS} | {
    "ai_edge_litert": "tensorflow", "PIL": "recipes", "matplotlib": "recipes", "rich": "recipes",
    "pycocotools": "recipes", "yaml": "recipes", "defusedxml": "recipes", "imagehash": "recipes",
    "array_record": "large",
}  # fmt: skip
COMMANDS = {file.COMMAND.name: file.COMMAND for files in GROUPS.values() for file in files}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code.

    0; 1 after an error, which is one line on stderr; 2 for wrong usage.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    traceback = "--traceback" in words
    words = [word for word in words if word != "--traceback"]
    try:
        command, options = parse(words)
    except SystemExit as done:  # argparse has printed help or an error
        return int(done.code or 0)
    if arguments is not None:  # called by a program: its stderr is not redirected
        return run(command, options, traceback)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal or pipe that is not in UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return on_terminal(command, options, traceback)
    except KeyboardInterrupt:  # a second one, while the first is handled
        return 128 + signal.SIGINT


def on_terminal(command: Command, options: Mapping[str, Any], traceback: bool) -> int:
    """Run a command on a user's terminal; return the exit code."""
    with own_terminal() as remarks:
        try:
            if limit_gb() is None:
                return run(command, options, traceback)
            code = in_child(lambda: run(command, options, traceback))
            if code == -signal.SIGTERM:
                print("kzoo: stopped. The same command resumes a training.", file=sys.stderr)
                return 128 + signal.SIGTERM
            if code < 0:  # only in the parent: the child was killed
                said = advice(limit_gb())
                if -code not in FAILED_ALLOCATIONS:
                    name = signal.Signals(-code).name
                    said = f"the command was ended by {name}. The same command resumes a training."
                print(remarks() * traceback + f"kzoo: {said}", file=sys.stderr)
            return code if code >= 0 else 1
        except Exception:
            print(remarks(), file=sys.stderr, end="")  # libraries' output may explain the error
            raise


def run(command: Command, options: Mapping[str, Any], traceback: bool) -> int:
    """Run a command and print its result or its error; return the exit code."""
    try:
        result = command.run(command.options(**options))
        if result is not None:
            print(json_text(result) if options.get("json") else result, flush=True)
    except KeyboardInterrupt:
        print("kzoo: stopped. The same command resumes a training run.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `kzoo list | head`
        sys.stdout = None
        return 0
    except Exception as error:
        words = message(error)
        if traceback or words is None:
            raise
        print(f"kzoo: {words}", file=sys.stderr)
        return 1
    return 0


def message(error: Exception) -> str | None:
    """Return the message of an error that the user can fix; None for a bug."""
    if out_of_memory(error):
        return advice(limit_gb())
    if isinstance(error, OSError) and error.errno in TO_DO:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}. {TO_DO[error.errno]}."
    if isinstance(error, ValueError | OSError):
        return str(error)
    missing = str(error.name).split(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    return to_install(missing) if missing in EXTRAS else None


ELSEWHERE = "or name a place where you may write (--out FOLDER of a run)"
ROOM = "Make room and run the same command again: a training goes on where it was"
TO_DO = {
    errno.EACCES: f"Change its permissions, {ELSEWHERE}",
    errno.EPERM: f"Change its permissions, {ELSEWHERE}",
    errno.EROFS: f"Mount it for writing, {ELSEWHERE}",
    errno.ENOSPC: ROOM,
    errno.EDQUOT: ROOM,
}

NO_MEMORY = (  # messages of the frameworks and oneDNN
    "RESOURCE_EXHAUSTED", "ResourceExhausted", "can't allocate memory", "out of memory",
    "bad_alloc", "Unable to allocate", "could not create a primitive", "Cannot allocate memory",
    "failed to map segment", "can't start new thread",
)  # fmt: skip


def out_of_memory(error: Exception) -> bool:
    """Return whether an error of any framework means that memory ran out."""
    message = f"{type(error).__name__}: {error}"
    return isinstance(error, MemoryError) or any(words in message for words in NO_MEMORY)


def to_install(package: str) -> str:
    """Return the message for a package of `EXTRAS` that is not installed."""
    extra = EXTRAS[package]
    installed = [name for name in BACKENDS if importlib.util.find_spec(name)]
    other = f", or set KERAS_BACKEND={installed[0]}" if package in BACKENDS and installed else ""
    return f"this needs {package}, which is not installed: pip install 'kzoo[{extra}]'{other}."


def parse(words: Sequence[str]) -> tuple[Command, dict[str, Any]]:
    """Return (command, options) from the words of a command line.

    Raises SystemExit after printing help (0) or a usage error (2).
    """
    parser = Parser(prog="kzoo", usage="kzoo COMMAND ...", description=overview(),
                    formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--version", action="version", version=f"kzoo {kzoo.__version__}")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    if not words or words[0].startswith("-"):
        parser.parse_args(words or ["--help"])
        parser.error("name a command")
    name, *rest = words
    if name == "help":  # kzoo help COMMAND is kzoo COMMAND --help
        return parse([*rest[:1], "--help"])
    if name not in COMMANDS:
        parser.error(f"there is no command {name!r}{did_you_mean(name, COMMANDS)}")
    command = COMMANDS[name]
    own = parser_of(command)
    given, unknown = own.parse_known_args(with_first_in_place(own, rest))
    if unknown:
        word = next((word for word in unknown if word.startswith("-")), unknown[0])
        near = did_you_mean(word.partition("=")[0], own._option_string_actions)
        own.error(f"it takes no {word}{near}")
    return command, from_flags(command.options, given)


def with_first_in_place(parser: argparse.ArgumentParser, words: Sequence[str]) -> list[str]:
    """Return the words with a first argument that was given as a flag, `--model NAME`, in front."""
    first = next((action.dest for action in parser._actions if not action.option_strings), None)
    for i, word in enumerate(words):
        flag, equals, value = word.partition("=")
        if flag == f"--{first}" and (equals or i + 1 < len(words)):
            after = i + (1 if equals else 2)
            return [value if equals else words[i + 1], *words[:i], *words[after:]]
    return list(words)


def parser_of(command: Command) -> "Parser":
    """Return the parser of a command's own flags."""
    example = f"Example:\n  {command.example}" if command.example else None
    own = Parser(prog=f"kzoo {command.name}", description=command.about, epilog=example,
                 formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    add_flags(own, command.options)
    return own


class Parser(argparse.ArgumentParser):
    """A parser whose errors are two lines, without the usage of thirty flags."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\nSee {self.prog} --help.\n")


def overview() -> str:
    """Return the commands by group, a line each."""
    lines = [str(kzoo.__doc__)]
    for title, files in GROUPS.items():
        lines += ["", f"{title}:"]
        lines += [f"  {file.COMMAND.name:12} {file.COMMAND.about}" for file in files]
    return "\n".join([*lines, "", "kzoo COMMAND --help lists the options of a command."])


if __name__ == "__main__":
    sys.exit(main())
