"""Processes of the machine, by what they run."""

import psutil


def with_command(part: str, processes: list[psutil.Process] | None = None) -> list[psutil.Process]:
    """Return the processes that have `part` in their command line; one that ended meanwhile has none.

    Args:
        part: What to look for.
        processes: Where to look; all processes of the machine by default.
    """
    among = list(psutil.process_iter()) if processes is None else processes
    return [process for process in among if part in command(process)]


def command(process: psutil.Process) -> str:
    """Return a process's command line, or nothing if it ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def children(pid: int | None = None) -> list[psutil.Process]:
    """Return the processes that this one, or another, started, and theirs."""
    return list(psutil.Process(pid).children(recursive=True))


def frontend() -> psutil.Process:
    """Return the only TorchServe that this process started."""
    (java,) = with_command("org.pytorch.serve.ModelServer", children())
    return java
