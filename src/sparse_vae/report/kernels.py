"""Jupyter kernels that start at once, forked from a process that has imported the libraries.

The imports of a notebook take several seconds, longer than many a training. On Linux each process that executes
notebooks has a fork server (:mod:`multiprocessing`), which imports :data:`LIBRARIES` once: a kernel is a process of its
own, with nothing in it but these imports. Elsewhere, and where it cannot be had, kernels start as Jupyter starts them.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning import LocalProvisioner

NAME = "sparse-vae-forked"
"""Of the provisioner, as Jupyter knows it: an entry point in ``pyproject.toml``."""

LAUNCHER = "ipykernel_launcher"  # the module that a kernel's command line runs

LIBRARIES = ("ipykernel.kernelapp", "pandas", "seaborn", "sklearn.datasets", "torch",
             "torch._dynamo",  # the first optimizer would import it
             "sparse_vae.report.figures", "sparse_vae.report.plots", "sparse_vae.report.notebook",
             "sparse_vae.report.run_sets")


class ForkedProvisioner(LocalProvisioner):
    """Starts this interpreter's Python kernels from the fork server, and others as Jupyter does."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Start the kernel of a command line, in ``cwd`` and with the environment ``env``."""
        interpreter, *_ = cmd
        # A daemonic process, as dask's workers are by default, may not have children.
        may_fork = sys.platform == "linux" and not multiprocessing.current_process().daemon
        if not may_fork or interpreter != sys.executable or LAUNCHER not in cmd:
            return await super().launch_kernel(cmd, **kwargs)
        arguments = cmd[cmd.index(LAUNCHER) + 1:]
        try:
            kernel = _Kernel(_fork(arguments, kwargs.get("cwd") or os.getcwd(), dict(kwargs["env"])))
        except (OSError, EOFError):  # the fork server died just now
            return await super().launch_kernel(cmd, **kwargs)
        self.process = kernel  # type: ignore[assignment]  # not a Popen, but what is asked of one
        self.pid = self.pgid = kernel.pid
        return self.connection_info


class _Kernel:
    """A forked kernel with what a provisioner asks of a ``subprocess.Popen``."""

    stdin = stdout = stderr = None

    def __init__(self, process: BaseProcess):
        assert process.pid is not None
        self._process, self.pid = process, process.pid
        self.terminate, self.kill = process.terminate, process.kill

    def poll(self) -> int | None:
        """None while the kernel lives, then its exit status."""
        return self._process.exitcode

    def wait(self) -> int | None:
        self._process.join()
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def _fork(arguments: list[str], folder: str, environment: dict[str, str]) -> BaseProcess:
    """A kernel from this process's fork server, which starts with the first one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(LIBRARIES))
    # Kernels set it before they import matplotlib.
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    process = context.Process(target=_become_kernel, args=(arguments, folder, environment))
    process.start()
    return process


def _become_kernel(arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    from ipykernel.kernelapp import IPKernelApp

    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()
    os.setsid()  # a session of its own: Ctrl-C is for the command alone
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    # A kernel also ends itself when its parent, the fork server, is gone.
    IPKernelApp.launch_instance([*arguments, f"--IPKernelApp.parent_handle={os.getppid()}"])


def _end_with(owner: BaseProcess) -> None:
    """End this kernel when the process that asked for it is gone; the fork server ends with its last kernel."""
    connection.wait([owner.sentinel])
    os._exit(1)
