"""Runs files on the Python that starts it: `python arm_runner.py INPUTS.npy OUT FILE ...`.

INPUTS are images (N, H, W, 3), uint8. Each FILE's outputs go to OUT/NAME.npz, as they are stored,
with its partitions and the operators outside them. Started by arm_client.py on ARM and on x86; it
knows nothing of kzoo but tflite/runtime/trial.py, which stands beside it.
"""

import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from trial import delegated


def main(inputs: str, out: str, *files: str) -> None:
    images = np.load(inputs)
    for file in files:
        interpreter = Interpreter(file, num_threads=1)
        interpreter.allocate_tensors()
        (source,), ends = interpreter.get_input_details(), interpreter.get_output_details()
        outputs: dict = {f"{end['index']}": [] for end in ends}
        less = 128 if source["dtype"] == np.int8 else 0  # as bytes of images are stored in int8
        for image in images:
            stored = (image[None].astype(np.int16) - less).astype(source["dtype"])
            interpreter.set_tensor(source["index"], stored)
            interpreter.invoke()
            for end in ends:
                outputs[f"{end['index']}"].append(interpreter.get_tensor(end["index"])[0])
        partitions, outside = delegated(interpreter._get_ops_details())
        np.savez(
            Path(out) / f"{Path(file).stem}.npz",
            partitions=partitions,
            outside=outside,
            **{key: np.stack(values) for key, values in outputs.items()},
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
