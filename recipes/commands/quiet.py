"""Suppression of the libraries' output on the terminal.

TensorFlow and LiteRT write to file descriptor 2 from C++, partly before any environment variable or
logger can stop them. So that descriptor is redirected to a file while a command runs, and
`sys.stderr`, which kzoo's own messages use, to the original stderr.
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
    """Capture what libraries write to stderr in this block; yield a function that returns it.

    Child processes inherit the redirection. If C++ aborts the process, Python still prints the
    signal and a traceback.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # to capture less
    logging.disable(logging.WARNING)  # TensorFlow and JAX warn of retracing and lowering
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # of libraries; kzoo uses errors and reports
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
