"""Run notebooks in fresh kernels and write them with what they show, without times and versions.

.venv/bin/python notebooks/execute.py                    every notebook here, in place
.venv/bin/python notebooks/execute.py --to FOLDER FILE   this one, written elsewhere
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

HERE = Path(__file__).parent


def execute(file: Path, target: Path) -> None:
    """Run every cell of `file` from top to bottom and write the notebook, with its outputs, to `target`.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised; nothing is written.
    """
    notebook = nbformat.read(file, as_version=4)
    with tempfile.TemporaryDirectory(prefix="ew-") as folder:
        # The reader's own IPython and Jupyter settings stay out of it, and sockets take the place of ports.
        os.environ |= {"IPYTHONDIR": folder, "JUPYTER_RUNTIME_DIR": folder, "JUPYTER_CONFIG_DIR": folder}
        kernel = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=f"{folder}/kernel")
        # How a busy kernel cuts what it prints into messages is chance: what is printed in a row is one output.
        client = NotebookClient(notebook, km=kernel, timeout=120, record_timing=False, coalesce_streams=True)
        client.execute(cwd=folder, cleanup_kc=True)
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.write(notebook, target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="default: every notebook in this folder")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="write there instead of in place")
    arguments = parser.parse_args()
    for file in arguments.files or sorted(HERE.glob("*.ipynb")):
        execute(file, (arguments.to or file.parent) / file.name)


if __name__ == "__main__":
    main()
