"""Jupyter kernels that start at once, forked from a process that has imported the libraries.

The imports of a notebook take several seconds, longer than many a training. On Linux each process that executes
notebooks has a zygote, which imports :data:`LIBRARIES` once and then only forks: a kernel is a process of its own, with
nothing in it but these imports. Elsewhere kernels start as Jupyter starts them.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
from contextlib import suppress

from jupyter_client.provisioning import LocalProvisioner

NAME = "sparse-vae-forked"
"""Of the provisioner, as Jupyter knows it: an entry point in ``pyproject.toml``."""

LAUNCHER = "ipykernel_launcher"  # the module that a kernel's command line runs

LIBRARIES = ("ipykernel.kernelapp", "pandas", "sklearn.datasets", "torch",
             "torch._dynamo",  # the first optimizer would import it
             "sparse_vae.figures", "sparse_vae.notebook", "sparse_vae.runs")


class ForkedProvisioner(LocalProvisioner):
    """Starts this interpreter's Python kernels from the zygote, and others as Jupyter does."""

    async def launch_kernel(self, cmd: list[str], **kwargs) -> dict:
        """Start the kernel of a command line, in ``cwd`` and with the environment ``env``."""
        interpreter, *_ = cmd
        if sys.platform == "linux" and interpreter == sys.executable and LAUNCHER in cmd:
            arguments = cmd[cmd.index(LAUNCHER) + 1:]
            self.process = _fork(arguments, kwargs.get("cwd") or os.getcwd(), dict(kwargs["env"]))
        if self.process is None:
            return await super().launch_kernel(cmd, **kwargs)
        self.pid = self.pgid = self.process.pid
        return self.connection_info


class _ForkedKernel:
    """A grandchild of this process, with what a provisioner asks of a ``subprocess.Popen``."""

    stdin = stdout = stderr = None

    def __init__(self, pid: int):
        self.pid = pid
        self._handle = os.pidfd_open(pid)
        self._end = select.poll()
        self._end.register(self._handle, select.POLLIN)

    def poll(self) -> int | None:
        """None while the kernel lives, then 1: only a parent learns the exit status."""
        return 1 if self._end.poll(0) else None

    def wait(self) -> int:
        self._end.poll()
        os.close(self._handle)
        return 1

    def send_signal(self, number: int) -> None:
        signal.pidfd_send_signal(self._handle, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


_zygote: subprocess.Popen | None = None
_one_at_a_time = threading.Lock()


def _fork(arguments: list[str], folder: str, environment: dict[str, str]) -> _ForkedKernel | None:
    """A kernel from this process's zygote, which is started if need be; None if it does not answer."""
    global _zygote
    with _one_at_a_time:
        if _zygote is None or _zygote.poll() is not None:
            # A session of its own, as kernels have: Ctrl-C is for the command alone. It ends with this process's pipe.
            _zygote = subprocess.Popen([sys.executable, "-P", "-m", __name__], stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, text=True, start_new_session=True)
        try:
            print(json.dumps([arguments, folder, environment]), file=_zygote.stdin, flush=True)
            return _ForkedKernel(int(_zygote.stdout.readline()))
        except (OSError, ValueError):
            return None


def main() -> None:
    """The zygote: fork for each line of stdin, and answer with the kernel's pid."""
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # kernels set it before they import
    for library in LIBRARIES:
        importlib.import_module(library)
    gc.freeze()  # a kernel's garbage collections need not look at, and thereby copy, what it was forked with
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the kernels
    for line in sys.stdin:
        if os.fork() == 0:
            with suppress(BrokenPipeError):  # nobody waits for the answer any more
                _become_kernel(*json.loads(line))
            break
    os._exit(0)  # without the tidying of libraries, which complain of what is frozen


def _become_kernel(arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    from ipykernel.kernelapp import IPKernelApp

    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    print(os.getpid(), flush=True)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), sys.stdin.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    # A kernel ends itself when its parent, the zygote, is gone.
    IPKernelApp.launch_instance([*arguments, f"--IPKernelApp.parent_handle={os.getppid()}"])


if __name__ == "__main__":
    main()
