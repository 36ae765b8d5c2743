"""Kill a run at random moments, resume it, and compare all that it leaves with a run left alone.

``python tests/helpers/kill_anywhere.py --kills 100`` (``make kills``) prints a table of the moments
and of what differed; exit code 1 if anything did.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import runs
import torch
from tqdm import tqdm

# Checkpoints within phases, and batches of pictures that are predicted and evaluated one by one.
KEYS = {
    "SSOD__SCHEDULE__MAX_ITER": [9, 5, 5],
    "SOLVER__CHECKPOINT_PERIOD": 2,
    "SSOD__INFERENCE_BATCH_SIZE": 2,
    # As many boxes as possible, of models that are hardly trained.
    "MODEL__ROI_HEADS__SCORE_THRESH_TEST": 0.01,
}
SAME_BYTES = ("predictions.json", "pseudo_labels.json", "manifest.json", "summary.json")


def start(data, output, *, resume=False, processes=1, keys=None):
    """Start a run in a process group of its own; returns its process id."""
    gpus = ("--num-gpus", "2", "--dist-url", "auto") if processes > 1 else ("--num-gpus", "0")
    flags = (*gpus, "--resume") if resume else gpus
    argv = runs.arguments(data, output, *flags, **{**KEYS, **(keys or {})})
    if processes > 1:
        command = [sys.executable, str(runs.ROOT / "train_net.py"), *argv]
        return subprocess.Popen(
            command,
            cwd=runs.ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ).pid
    # A fork has imported everything already.
    child = os.fork()
    if child == 0:
        os.setsid()
        code = 1
        try:
            silent = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silent, 1)
            os.dup2(silent, 2)
            runs.run_here(argv)
            code = 0
        finally:
            os._exit(code)
    return child


def finish(process):
    """Wait for a run; its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def run_and_kill(data, output, after, **options):
    """Kill a run after some seconds, with all its processes; False if it had ended before."""
    process = start(data, output, resume=output.exists(), **options)
    time.sleep(after)
    ended = os.waitpid(process, os.WNOHANG)[0] != 0
    if not ended:
        os.killpg(process, signal.SIGKILL)
        os.waitpid(process, 0)
    return not ended


def state_of(output):
    """Where a killed run was: its phase, and whether it trained or labeled."""
    models = list(output.glob("phase_*/model_final.pth"))
    if not output.exists():
        return "before the start"
    if len(models) == 3:
        return "evaluating"
    phase = len(models)
    if phase > 0 and not (output / f"phase_{phase}" / "pseudo_labels.json").exists():
        return f"labeling for phase {phase}"
    saved = (output / f"phase_{phase}" / "last_checkpoint").exists()
    return f"phase {phase}, {'after' if saved else 'before'} its first checkpoint"


def differences(output, expected):
    """Which of the files that a run leaves are not those of the other run."""
    found = []
    for path in sorted(p for p in expected.rglob("*") if p.name in SAME_BYTES):
        name = path.relative_to(expected)
        if not (output / name).exists() or (output / name).read_bytes() != path.read_bytes():
            found.append(str(name))
    for path in sorted(expected.rglob("model_final.pth")):
        name = path.relative_to(expected)
        if not (output / name).exists() or not same_weights(output / name, path):
            found.append(str(name))
    leftovers = [p for p in output.rglob("*") if p.name == "partial_predictions"]
    return found + [str(path.relative_to(output)) for path in leftovers]


def same_weights(one, other):
    """Whether two checkpoints have the same model, bit for bit."""
    one, other = (torch.load(path, weights_only=True)["model"] for path in (one, other))
    return one.keys() == other.keys() and all(
        value.numpy().tobytes() == other[name].numpy().tobytes() for name, value in one.items()
    )


def trials(data, folder, kills, seed, **options):
    """For each of so many kills: the moment, and what differed once the run was resumed."""
    torch.set_num_threads(1)
    expected = folder / "expected"
    started = time.time()
    if finish(start(data, expected, **options)) != 0:
        raise RuntimeError("the run that is left alone has failed")
    length = time.time() - started
    moments = random.Random(seed)
    for number in range(kills):
        output, attempt = folder / f"killed_{number}", 0
        # A run may be over sooner than the one that was left alone.
        while not run_and_kill(data, output, moments.uniform(0, length), **options):
            attempt += 1
            output = folder / f"killed_{number}_{attempt}"
        moment = state_of(output)
        code = finish(start(data, output, resume=True, **options))
        yield moment, [f"exit code {code}"] if code else differences(output, expected)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--processes", type=int, default=1, choices=(1, 2))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    tried, failed = Counter(), Counter()
    with tempfile.TemporaryDirectory() as folder:
        data = runs.make_data(Path(folder) / "digit_scenes")
        each = trials(data, Path(folder), args.kills, args.seed, processes=args.processes)
        for moment, found in tqdm(each, total=args.kills):
            tried[moment] += 1
            if found:
                failed[moment] += 1
                tqdm.write(f"{moment}: {', '.join(found)}")
    for moment, count in sorted(tried.items()):
        print(f"{moment}: {count - failed[moment]} of {count} the same")
    print(f"{tried.total() - failed.total()} passed, {failed.total()} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
