"""Started as a program: runs commands in processes forked from this one, which has imported everything once.

Each line of its input is a command (words, environment, files for its input, output and errors), each line of its
output how it ended. A command is a process of its own, as if it had been started by a shell, in a tenth of the time.
"""

from __future__ import annotations

import gc
import json
import os
import sys

from eventwright.app import sending  # noqa: F401
from eventwright.app.cli import main
from eventwright.app.commands import doctor, processes, screens  # noqa: F401
from eventwright.app.web import models, routes_system  # noqa: F401


def become(words: list[str], environment: dict[str, str], files: list[str]) -> None:
    """Be the command from here on."""
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = environment["PYTHONPATH"].split(os.pathsep)
    sys.argv = ["eventwright", *words]
    for number, name in enumerate(files):
        file = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
        os.dup2(file, number)
        os.close(file)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115 - they stay open
    main()


def ended(words: list[str], environment: dict[str, str], files: list[str]) -> int:
    """The exit code of the command, once it has ended and everything it said is written."""
    try:
        become(words, environment, files)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


gc.freeze()  # what is shared with the children stays shared
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        os._exit(ended(**json.loads(line)))  # without taking everything that was imported apart again
    _, status = os.waitpid(child, 0)
    sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
    sys.stdout.flush()
