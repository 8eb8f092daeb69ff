"""`python -m kzoo.tflite FOLDER`: a conversion for a process that runs on another backend."""

import sys
from pathlib import Path

from kzoo.tflite.convert.converter import work

work(Path(sys.argv[1]))
