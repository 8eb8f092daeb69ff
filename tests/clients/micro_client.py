"""Runs one int8 file through tflite-micro: `python micro_client.py FILE INPUTS.npy OUT.npy`.

INPUTS are as the file stores them. Started by clients.py in an environment that has tflite-micro
and nothing of kzoo.
"""

import sys

import numpy as np
from tflite_micro import runtime

if __name__ == "__main__":
    file, inputs, out = sys.argv[1:]
    interpreter = runtime.Interpreter.from_file(file, arena_size=64 << 20)
    found = []
    for one in np.load(inputs):
        interpreter.set_input(one[None], 0)
        interpreter.invoke()
        found.append(np.array(interpreter.get_output(0)))
    np.save(out, np.concatenate(found))
