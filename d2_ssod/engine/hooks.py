"""The hook that leads training from phase to phase."""

from __future__ import annotations

from collections.abc import Callable

from detectron2.engine import HookBase

from .phases import phase_at


class PhaseHook(HookBase):
    """Enters a phase before its first step (or the first one after an interruption), and ends it.

    What entering and ending mean is up to the two functions given, as with Detectron2's
    ``EvalHook``. The phase itself is a pure function of the iteration.
    """

    def __init__(
        self,
        starts: list[int],
        enter: Callable[[int, int], None],
        finish: Callable[[int], None],
    ) -> None:
        """Run on every rank.

        Args:
            starts: see :func:`phase_starts`.
            enter: called with the phase and the number of its iterations already trained.
            finish: called with the phase after its last iteration.
        """
        self._starts = starts
        self._enter = enter
        self._finish = finish
        self._entered: int | None = None

    def before_step(self) -> None:
        """Enter the phase of the coming iteration, unless training is in it already."""
        phase = phase_at(self._starts, self.trainer.iter)
        if phase != self._entered:
            self._enter(phase, self.trainer.iter - self._starts[phase])
            self._entered = phase
        self.trainer.storage.put_scalar("phase", phase, smoothing_hint=False)

    def after_step(self) -> None:
        """End the phase after its last iteration."""
        done = self.trainer.iter + 1
        if done in self._starts[1:]:
            self._finish(phase_at(self._starts, self.trainer.iter))
