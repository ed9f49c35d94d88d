"""Run the checks of this machine and of the services that newsbert uses from it."""

import threading
from collections.abc import Iterator, Sequence

from newsbert.api.doctor.checks import FAILED, NOTE, OFF, OK, Check, Finding, NoteError, UnusedError
from newsbert.errors import NewsbertError, first_line

TIMEOUT_S = 60.0


def checks() -> list[Check]:
    """Return all checks."""
    from newsbert.api.doctor import machine, services, serving

    return [
        Check("Python", machine.python, needed=True),
        Check("packages", machine.packages, needed=True),
        Check("processor", machine.processor),
        Check("memory", machine.memory, needed=True),
        Check("disk", machine.disk, needed=True),
        Check("Java", serving.java_runtime, needed=True),
        Check("TorchServe", serving.starts, needed=True),
        Check("port", serving.port),
        Check("servers", serving.detached),
        Check("tracking", services.tracked, needed=True),
        Check("engine", services.container_engine),
        Check("registry", services.registry),
        Check("bucket", services.bucket),
        Check("Hub", services.hub),
    ]


def run_checks(checks: Sequence[Check], timeout_s: float = TIMEOUT_S) -> Iterator[Finding]:
    """Run all checks at the same time, and yield their findings in the order of the checks.

    Args:
        checks: The checks.
        timeout_s: Time limit of a check; a check that takes longer is abandoned, and ends with the process.
    """
    findings: dict[str, Finding] = {}

    def run(check: Check) -> None:
        findings[check.name] = _run_check(check)

    threads = [threading.Thread(target=run, args=[check], daemon=True) for check in checks]
    for thread in threads:
        thread.start()
    for check, thread in zip(checks, threads, strict=True):
        thread.join(timeout_s)
        late = Finding(
            check.name, _get_failure_state(check), f"no answer within {timeout_s:g} s", "look at it by itself"
        )
        yield findings.get(check.name, late)


def _run_check(check: Check) -> Finding:
    try:
        return Finding(check.name, OK, check.look())
    except UnusedError as error:
        return Finding(check.name, OFF, error.message, error.hint)
    except NoteError as error:
        return Finding(check.name, NOTE, error.message, error.hint)
    except NewsbertError as error:
        return Finding(check.name, _get_failure_state(check), error.message, error.hint)
    except Exception as error:  # a bug in one check must not hide the findings of the others
        return Finding(
            check.name, _get_failure_state(check), f"{type(error).__name__}: {first_line(error)}", "report it"
        )


def _get_failure_state(check: Check) -> str:
    return FAILED if check.needed else NOTE
