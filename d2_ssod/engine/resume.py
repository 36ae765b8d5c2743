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
        ConfigError: there are files that were made from the model of a later phase.
    """
    files = [phase_files(output_dir, phase) for phase in range(num_phases + 1)]
    finished = next((p for p, of_phase in enumerate(files) if not of_phase.model.exists()), None)
    if finished is None:
        return len(files)
    made_later = [of_phase.predictions for of_phase in files[finished:]]
    made_later += [of_phase.pseudo_labels for of_phase in files[finished + 1 :]]
    for path in made_later:
        if path.exists():
            raise ConfigError(
                f"{path} exists, but neither {Path(output_dir) / 'last_checkpoint'} nor "
                f"{files[finished].model}, from which the run could go on: restore one of them, or "
                "start anew without --resume, which sets the folder aside"
            )
    return finished


def check_starts(saved: list[int], starts: list[int], iteration: int) -> None:
    """Check that a run goes on in the phase that it was interrupted in.

    Args:
        saved: :func:`phase_starts` of the interrupted run.
        starts: :func:`phase_starts` of the run that continues it.
        iteration: the one to go on with.

    Raises:
        ConfigError: phases up to that one would begin elsewhere. Its own length and those of later
            phases may change.
    """
    begun = sum(start <= iteration for start in saved)
    if starts[:begun] != saved[:begun]:
        raise ConfigError(
            f"SSOD.SCHEDULE.MAX_ITER (or SOLVER.MAX_ITER) gives the phases {_lengths(starts)} "
            f"iterations, but the run to be resumed at iteration {iteration} has "
            f"{_lengths(saved)}: set it back (only the phase being trained and later ones can "
            "change), or start anew without --resume"
        )


def _lengths(starts: list[int]) -> list[int]:
    return [end - start for start, end in itertools.pairwise(starts)]
