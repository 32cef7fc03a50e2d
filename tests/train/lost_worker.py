"""Kill a training worker of this test's own Ray, as a lost machine would."""

import time
from pathlib import Path

import psutil

_PATIENCE_S = 240


def kill_after_first_checkpoint(run: Path, killed: list[int]) -> None:
    """SIGKILL the worker once the run's folder holds a checkpoint; remember its id."""
    import ray

    session = Path(ray._private.worker._global_node.get_session_dir_path()).name
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        if list(run.glob("checkpoint*/state.pt")):
            for process in psutil.process_iter(["cmdline"]):
                line = " ".join(process.info["cmdline"] or [])
                if "RayTrainWorker" not in line:
                    continue
                above = " ".join(p for q in process.parents() for p in q.cmdline())
                if session in above:
                    process.kill()
                    killed.append(process.pid)
                    return
        time.sleep(0.1)
