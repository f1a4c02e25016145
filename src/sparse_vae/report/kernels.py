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
             "sparse_vae.report.figures", "sparse_vae.report.notebook", "sparse_vae.report.runs")


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


class _Zygote:
    """The process that forks, which ends with this one's pipe."""

    def __init__(self):
        # A session of its own, as kernels have: Ctrl-C is for the command alone.
        self.process = subprocess.Popen([sys.executable, "-P", "-m", __name__], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, start_new_session=True)
        self._one_at_a_time = threading.Lock()

    def ask(self, what: str, *arguments) -> int | None:
        """Its answer; an OSError or ValueError if there is none."""
        with self._one_at_a_time:
            print(json.dumps([what, *arguments]), file=self.process.stdin, flush=True)
            return json.loads(self.process.stdout.readline())


class _ForkedKernel:
    """A kernel that a zygote has forked, with what a provisioner asks of a ``subprocess.Popen``."""

    stdin = stdout = stderr = None

    def __init__(self, zygote: _Zygote, pid: int):
        self.pid, self._zygote, self._exit_status = pid, zygote, None

    def poll(self) -> int | None:
        """None while the kernel lives, then its exit status; 1 if its zygote is gone, which it does not survive."""
        if self._exit_status is None:
            try:
                self._exit_status = self._zygote.ask("poll", self.pid)
            except (OSError, ValueError):
                self._exit_status = 1
        return self._exit_status

    wait = poll  # a provisioner waits for what has ended

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


_zygote: _Zygote | None = None


def _fork(arguments: list[str], folder: str, environment: dict[str, str]) -> _ForkedKernel | None:
    """A kernel from this process's zygote, which is started if need be; None if it does not answer."""
    global _zygote
    if _zygote is None or _zygote.process.poll() is not None:
        _zygote = _Zygote()
    try:
        return _ForkedKernel(_zygote, _zygote.ask("fork", arguments, folder, environment))
    except (OSError, ValueError):
        return None


def main() -> None:
    """The zygote: answer each line of stdin, by forking or by saying whether a kernel has ended."""
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # kernels set it before they import
    for library in LIBRARIES:
        importlib.import_module(library)
    gc.freeze()  # a kernel's garbage collections need not look at, and thereby copy, what it was forked with
    with suppress(BrokenPipeError):  # nobody waits for the answer any more
        for line in sys.stdin:
            what, *arguments = json.loads(line)
            if what == "fork":
                answer = os.fork()
                if answer == 0:
                    _become_kernel(*arguments)
                    break
            else:
                pid, status = os.waitpid(*arguments, os.WNOHANG)
                answer = os.waitstatus_to_exitcode(status) if pid else None
            print(json.dumps(answer), flush=True)
    os._exit(0)  # without the tidying of libraries, which complain of what is frozen


def _become_kernel(arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    from ipykernel.kernelapp import IPKernelApp

    os.setsid()
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
