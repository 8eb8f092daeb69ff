"""A program's terminal for the program alone, without what the libraries remark.

TensorFlow and LiteRT write to file descriptor 2 from C++, some of it before any environment
variable or logger can stop it. So that descriptor leads into a file while a command runs, and
`sys.stderr`, where kzoo's own messages and progress go, to where it led before.
"""

import contextlib
import faulthandler
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def own_terminal() -> Iterator[Callable[[], str]]:
    """Keep what libraries write to stderr in this block; yields a function that returns it.

    Child processes inherit the descriptor, and are quiet too. Where C++ ends the process, Python
    still prints the signal and where it was.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # so that little has to be kept
    logging.disable(logging.WARNING)  # retracing, lowering: of TensorFlow's and JAX' loggers
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # of libraries; kzoo tells by errors and reports
    sys.stderr.flush()
    before, python = os.dup(2), sys.stderr
    with (
        tempfile.TemporaryFile() as kept,
        open(before, "w", encoding="utf-8", errors="replace", buffering=1) as terminal,
    ):
        os.dup2(kept.fileno(), 2)
        sys.stderr = terminal
        faulthandler.enable(terminal)

        def remarks() -> str:
            kept.seek(0)
            return kept.read().decode(errors="replace")

        try:
            yield remarks
        finally:
            faulthandler.disable()
            terminal.flush()
            os.dup2(terminal.fileno(), 2)
            sys.stderr = python
