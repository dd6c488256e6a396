"""Events on a terminal: finished steps as lines, the current one with a bar below."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from blockferry_controller.events import (
    Ended,
    Event,
    Noted,
    Progressed,
    StepFinished,
    StepStarted,
)
from blockferry_controller.notation import format_bytes, format_duration, printable
from blockferry_controller.ui.pace import Pace, Reading
from blockferry_controller.ui.phrases import phrase, speeds

_BAR_WIDTH = 24


class Bar:
    """Shows one migration on a console; use as a context manager.

    Text from events is never taken as markup: a volume may be called `[red]`.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._pace = Pace()
        self._live = Progress(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description}", markup=False),
            BarColumn(_BAR_WIDTH),
            TextColumn("{task.fields[told]}", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> "Bar":
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def __call__(self, event: Event) -> None:
        """See migration.events.Listener."""
        match event:
            case StepStarted():
                self._begin(f"[{event.index}/{event.total}] {printable(event.step)}")
            case StepFinished():
                self._end()
                self._print(_finished(event))
            case Progressed():
                self._move(self._pace.read(event))
            case Ended():
                self._end()
                good = event.state == "SUCCEEDED"
                self._print(Text(phrase(event), "bold green" if good else "bold red"))
            case Noted(level="warning"):
                self._print(Text(phrase(event), "yellow"))
            case _:
                self._print(Text(phrase(event), "dim"))

    def _begin(self, description: str) -> None:
        self._end()
        self._task = self._live.add_task(description, total=None, told="")

    def _end(self) -> None:
        if self._task is not None:
            self._live.remove_task(self._task)
            self._task = None

    def _move(self, reading: Reading) -> None:
        if self._task is None:
            self._begin(reading.phase)
        assert self._task is not None
        told = (
            f"{reading.percent:.1f} %  {format_bytes(reading.done_bytes)} of "
            f"{format_bytes(reading.size_bytes)}  " + "  ".join(speeds(reading))
        )
        self._live.update(
            self._task,
            # An empty volume is complete, a total of 0 would divide by it.
            total=max(1, reading.size_bytes),
            completed=reading.done_bytes if reading.size_bytes else 1,
            told=told,
        )

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)


def _finished(event: StepFinished) -> Text:
    line = Text.assemble(("✓ ", "green"), printable(event.step))
    line.append(f"  {format_duration(event.seconds)}", "cyan")
    if event.detail:
        line.append(f"  {printable(event.detail)}", "dim")
    return line
