"""Where an interrupted run goes on, and whether it can with the config that it has now."""

from __future__ import annotations

import itertools
from pathlib import Path

from d2_ssod.errors import ConfigError

from .phases import phase_files


def finished_phases(output_dir: str | Path, num_phases: int) -> int:
    """How many phases, from 0 on, have left their model in an output folder.

    Args:
        output_dir: of a run that has no checkpoint of the whole training.
        num_phases: N.

    Raises:
        ConfigError: there are predictions of a later model, with which a new one would be mixed.
    """
    files = [phase_files(output_dir, phase) for phase in range(num_phases + 1)]
    finished = next((p for p, of_phase in enumerate(files) if not of_phase.model.exists()), None)
    if finished is None:
        return len(files)
    for of_phase in files[finished:]:
        if of_phase.predictions.exists():
            raise ConfigError(
                f"{of_phase.predictions} exists, but neither the checkpoint that "
                f"{Path(output_dir) / 'last_checkpoint'} names nor {of_phase.model}, from which "
                "the run could go on: restore one of them, delete the predictions to train that "
                "phase again, or start anew without --resume, which sets the folder aside"
            )
    return finished


def check_starts(saved: list[int], starts: list[int], iteration: int) -> None:
    """Check that a run goes on in the phase that it was interrupted in.

    Args:
        saved: :func:`phase_starts` of the interrupted run.
        starts: :func:`phase_starts` of the run that continues it.
        iteration: the one to go on with.

    Raises:
        ConfigError: phases up to that one would begin elsewhere, or it would have ended already.
            Otherwise its own length and those of later phases may change.
    """
    begun = sum(start <= iteration for start in saved)
    if starts[:begun] != saved[:begun] or any(start <= iteration for start in starts[begun:]):
        raise ConfigError(
            f"SSOD.SCHEDULE.MAX_ITER (or SOLVER.MAX_ITER) gives the phases {_lengths(starts)} "
            f"iterations, but the run to be resumed at iteration {iteration} has "
            f"{_lengths(saved)}: set it back (phases that have not ended can change, to more than "
            "they have had), or start anew without --resume"
        )


def _lengths(starts: list[int]) -> list[int]:
    return [end - start for start, end in itertools.pairwise(starts)]
