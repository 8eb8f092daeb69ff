"""The command line: `kzoo COMMAND --help` tells what each command takes.

Libraries that take seconds to import, but for Keras, are imported by the command that needs them.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Runs one command. Returns 0, or 1 after one line that says what was wrong."""
    parser = argparse.ArgumentParser(prog="kzoo", description="MobileNets for your own images.")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=Command
    )
    for name, add in COMMANDS.items():
        text = (add.__doc__ or "").strip()
        commands.add_parser(name, help=text, description=text, add=add)
    given = parser.parse_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's remarks on the machine
    try:
        given.action(given)
    except KeyboardInterrupt:
        print("kzoo: stopped. The same command goes on from the last epoch.", file=sys.stderr)
        return 130
    except Exception as error:
        if given.traceback or not isinstance(error, ValueError | OSError):
            raise
        print(f"kzoo: {error}", file=sys.stderr)
        return 1
    return 0


Run = Callable[[argparse.Namespace], None]


class Command(argparse.ArgumentParser):
    """One command's parser, which learns its flags when it is asked to parse them."""

    def __init__(self, *, add: Callable[[argparse.ArgumentParser], Run], **options):
        super().__init__(**options)
        self.add = add

    def parse_known_args(self, args=None, namespace=None):
        self.set_defaults(action=self.add(self))
        return super().parse_known_args(args, namespace)


def demo(command: argparse.ArgumentParser) -> Run:
    """draw images, train on them, end with a verified int8 file: about two minutes"""
    command.add_argument("--out", default="runs/demo", help="folder (default: runs/demo)")

    def run(given: argparse.Namespace) -> None:
        from kzoo.recipes.commands.demo_run import demo

        print(demo(given.out))

    return run


def classify(command: argparse.ArgumentParser) -> Run:
    """fine-tune a net on a folder of photos, and convert it"""
    from kzoo.recipes.classify import Config, classify
    from kzoo.recipes.training.options import add_flags, from_flags

    add_flags(command, Config)

    def run(given: argparse.Namespace) -> None:
        print(classify(**from_flags(Config, given)))

    return run


def detect(command: argparse.ArgumentParser) -> Run:
    """train a detector on photos with boxes, and convert it"""
    from kzoo.recipes.detect import Config, detect
    from kzoo.recipes.training.options import add_flags, from_flags

    add_flags(command, Config)

    def run(given: argparse.Namespace) -> None:
        print(detect(**from_flags(Config, given)))

    return run


def segment(command: argparse.ArgumentParser) -> Run:
    """train a segmenter on photos with masks, and convert it"""
    from kzoo.recipes.segment import Config, segment
    from kzoo.recipes.training.options import add_flags, from_flags

    add_flags(command, Config)

    def run(given: argparse.Namespace) -> None:
        print(segment(**from_flags(Config, given)))

    return run


def pack(command: argparse.ArgumentParser) -> Run:
    """images into few large, checked files for the other commands, or such files read back"""
    from kzoo.recipes.data.packing import SHARD_MB, TASKS

    command.add_argument(
        "folders", nargs="+", metavar="DATA OUT",
        help="what the task's command takes, and the packed folder to write; or packed folders and "
        "one to join them in; or one to read back",
    )  # fmt: skip
    command.add_argument(
        "--task", default="classify", help=f"{', '.join(TASKS)} (default: classify)"
    )
    command.add_argument("--side", type=int, help="px that the shorter sides keep (default: all)")
    command.add_argument(
        "--shard-mb", type=float, default=SHARD_MB, help=f"of a file (default: {SHARD_MB})"
    )
    command.add_argument(
        "--val-fraction", type=float, default=0.2,
        help="share of images to validate on where no split is given (default: 0.2)",
    )  # fmt: skip
    command.add_argument("--seed", type=int, default=0, help="of that split (default: 0)")

    def run(given: argparse.Namespace) -> None:
        from kzoo.recipes.data.packed import check, is_packed
        from kzoo.recipes.data.packing import join, pack

        *data, out = map(Path, given.folders)
        if not data:
            found = check(out)
        elif len(data) > 1 or is_packed(data[0]):
            found = join(data, out)
        else:
            found = pack(
                data[0],
                out,
                task=given.task,
                side=given.side,
                shard_mb=given.shard_mb,
                val_fraction=given.val_fraction,
                seed=given.seed,
            )
        print(found)
        if found.damage:
            raise ValueError(f"{len(found.damage)} damaged files")

    return run


def plan(command: argparse.ArgumentParser) -> Run:
    """what training will take: memory, bytes a second, hours, and what is the bottleneck"""
    from kzoo.recipes.commands.plan_run import Ask
    from kzoo.recipes.training.options import add_flags, from_flags

    add_flags(command, Ask)

    def run(given: argparse.Namespace) -> None:
        from kzoo.recipes.commands.plan_run import plan

        print(plan(Ask(**from_flags(Ask, given))))

    return run


def predict(command: argparse.ArgumentParser) -> Run:
    """say what images show, by a run, a .keras or a .tflite file"""
    command.add_argument("model", help="run folder, .keras or .tflite file")
    command.add_argument("images", nargs="+", help="image files")
    command.add_argument("--top", type=int, default=3, help="classes to name (default: 3)")

    def run(given: argparse.Namespace) -> None:
        from kzoo.recipes.commands.predict_images import UNREAD, predict

        unread = 0
        for path, said in predict(given.model, given.images, top=given.top):
            print(f"{path}: {said}")
            unread += said.startswith(UNREAD)
        if unread == len(given.images):
            raise ValueError("None of the images could be read.")

    return run


def compare(command: argparse.ArgumentParser) -> Run:
    """a run's float model and its int8 file on the validation images"""
    command.add_argument("run", help="run folder")

    def run(given: argparse.Namespace) -> None:
        from kzoo.recipes.evaluation.finished_runs import compare_run

        print(compare_run(Path(given.run)))

    return run


def sensitivity(command: argparse.ArgumentParser) -> Run:
    """which layers of a run's model lose most in int8"""
    command.add_argument("run", help="run folder")
    command.add_argument("--top", type=int, default=20, help="layers to name (default: 20)")

    def run(given: argparse.Namespace) -> None:
        from kzoo.recipes.evaluation.finished_runs import run_sensitivity

        for line in str(run_sensitivity(Path(given.run))).splitlines()[: given.top]:
            print(line)

    return run


def convert(command: argparse.ArgumentParser) -> Run:
    """a run or a .keras file to a .tflite file that is held against it"""
    from kzoo.tflite import SCHEMES

    command.add_argument("model", help="run folder or .keras file")
    command.add_argument("out", help=".tflite file to write")
    schemes = "; ".join(f"{name}: {scheme}" for name, scheme in SCHEMES.items())
    command.add_argument("--scheme", default="int8", help=f"{schemes} (default: int8)")
    command.add_argument("--io", help="input dtype: uint8, float32 or int8 (default: the scheme's)")
    command.add_argument(
        "--calibration",
        help="folder of images like those the model will see (default: the run's own)",
    )
    command.add_argument("--check", help="folder of images to compare on (default: those)")
    command.add_argument(
        "--agreement", type=float, default=0.8,
        help="share of images on which file and model must agree (default: 0.8)",
    )  # fmt: skip
    command.add_argument(
        "--labels", help="file with one class name per line (default: labels.txt beside the model)"
    )
    command.add_argument(
        "--postprocess", action="store_true",
        help="end a detector's file in boxes, classes, scores and count of the objects found "
        "(TFLite_Detection_PostProcess), for apps that read those",
    )  # fmt: skip
    command.add_argument("--size", type=int, help="input side in px, if the model leaves it open")
    command.add_argument("--batch-size", type=int, default=1, help="of the file (default: 1)")
    for field in ("title", "author", "license"):
        command.add_argument(f"--{field}", default="", help="written into the file")

    def run(given: argparse.Namespace) -> None:
        from kzoo.recipes.commands.convert_model import convert_file
        from kzoo.tflite import Metadata

        said = {field: getattr(given, field) for field in ("title", "author", "license")}
        found = convert_file(
            given.model,
            given.out,
            scheme=given.scheme,
            io=given.io,
            calibration=given.calibration,
            check=given.check,
            agreement=given.agreement,
            labels=given.labels,
            size=given.size,
            batch_size=given.batch_size,
            about=Metadata(**said) if any(said.values()) else None,
            postprocess=given.postprocess,
        )
        print(found)

    return run


def audit(command: argparse.ArgumentParser) -> Run:
    """what is in a .tflite file, where it will run, and what will run slowly"""
    command.add_argument("file", help=".tflite file, anyone's")
    command.add_argument(
        "--target", action="append", metavar="NAME",
        help="what a target refuses and what to do: cpu, gpu, npu, web, micro, edgetpu, all; "
        "may be given again",
    )  # fmt: skip

    def run(given: argparse.Namespace) -> None:
        from kzoo.tflite import audit, targets

        print(*targets(given.file, given.target) if given.target else [audit(given.file)], sep="\n")

    return run


def benchmark(command: argparse.ArgumentParser) -> Run:
    """CPU time of .tflite files, side by side"""
    from kzoo.tflite.inspect.benchmark import RUNTIMES

    command.add_argument("files", nargs="+", help=".tflite files; ratios are to the first")
    command.add_argument("--threads", type=int, default=1, help="(default: 1)")
    command.add_argument(
        "--runtime", action="append", choices=tuple(RUNTIMES), dest="runtimes",
        help="may be given again for several side by side (default: litert)",
    )  # fmt: skip
    command.add_argument("--plot", help="image file to draw into")

    def run(given: argparse.Namespace) -> None:
        from kzoo.recipes.commands.benchmark_files import benchmark_files

        runtimes = given.runtimes or ("litert",)
        print(
            benchmark_files(given.files, threads=given.threads, runtimes=runtimes, plot=given.plot)
        )

    return run


def android(command: argparse.ArgumentParser) -> Run:
    """a folder with what an Android app needs of a run: model, Kotlin, Gradle lines, model card"""
    command.add_argument("run", help="run folder")
    command.add_argument("--out", help="folder to write (default: RUN/android)")

    def run(given: argparse.Namespace) -> None:
        from kzoo.recipes.commands.android_folder import android

        folder = android(given.run, given.out)
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            print(path)

    return run


def serve(command: argparse.ArgumentParser) -> Run:
    """a page on this machine that runs a run's .tflite on images and the camera"""
    command.add_argument("model", help="run folder or .tflite file")
    command.add_argument("images", nargs="*", help="image files to show at once")
    command.add_argument("--port", type=int, default=8000, help="0: a free one (default: 8000)")
    command.add_argument("--cache", help="folder for LiteRT.js (default: ~/.cache/kzoo)")

    def run(given: argparse.Namespace) -> None:
        from kzoo.recipes.commands.serve_page import serve

        server = serve(given.model, given.images, port=given.port, cache=given.cache)
        print(f"http://127.0.0.1:{server.server_port}/    Ctrl-C ends it", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()

    return run


def list_models(command: argparse.ArgumentParser) -> Run:
    """the nets, with parameters and multiply-accumulates"""
    command.add_argument("--alpha", type=float, default=1.0, help="width multiplier (default: 1)")
    command.add_argument("--size", type=int, default=224, help="input side in px (default: 224)")

    def run(given: argparse.Namespace) -> None:
        import kzoo

        print(
            f"{'model':34}{'parameters':>12}{'M MACs':>10}"
            f"   at alpha {given.alpha:g} and {given.size} px"
        )
        for name in kzoo.list_models():
            net = kzoo.get_model(name)(given.alpha, input_shape=(given.size, given.size, 3))
            profile = kzoo.profile(net)
            print(f"{name:34}{profile.trainable:12,}{profile.macs / 1e6:10.1f}")

    return run


COMMANDS: dict[str, Callable[[argparse.ArgumentParser], Run]] = {
    "demo": demo,
    "classify": classify,
    "detect": detect,
    "segment": segment,
    "pack": pack,
    "plan": plan,
    "predict": predict,
    "compare": compare,
    "sensitivity": sensitivity,
    "convert": convert,
    "audit": audit,
    "benchmark": benchmark,
    "android": android,
    "serve": serve,
    "list": list_models,
}

if __name__ == "__main__":
    sys.exit(main())
