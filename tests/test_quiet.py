"""Library remarks are kept from the terminal, and shown where a library fails."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


def test_remarks_are_kept_and_shown_where_a_library_fails():
    code = (
        "import os, sys\nfrom kzoo.recipes.commands.quiet import own_terminal\n"
        "with own_terminal() as remarks:\n"
        "    os.write(2, b'from C++')\n    print('from kzoo', file=sys.stderr)\n"
        "    print('kept:', remarks())\n"
        "os.write(2, b'afterwards')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "kept: from C++\n"
    assert done.stderr == "from kzoo\nafterwards"


def test_a_process_that_c_ends_still_says_where(tmp_path):
    code = (
        "import os, signal\nfrom kzoo.recipes.commands.quiet import own_terminal\n"
        "with own_terminal():\n    os.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode != 0
    assert "Segmentation fault" in done.stderr
