import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from raypipe.report.parent_watch import ParentWatch

PARENT = """
import multiprocessing, sys, time
from raypipe.report.parent_watch import ParentWatch

def child(watch, ready):
    ready.send(multiprocessing.current_process().pid)
    time.sleep(300)

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    context.Process(target=child, args=({"watch": ParentWatch()}, writer)).start()
    print(reader.recv(), flush=True)
    time.sleep(300)
"""


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    root = Path(__file__).resolve().parents[2]
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    assert child.is_running()
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    gone, _ = psutil.wait_procs([child], timeout=60)
    if not gone:
        child.kill()
    assert gone == [child]


def test_a_copy_within_the_process_watches_nobody() -> None:
    assert isinstance(pickle.loads(pickle.dumps(ParentWatch())), ParentWatch)
    time.sleep(1.0)  # this process would be gone by now


def test_it_is_json_like_the_config_that_it_travels_in() -> None:
    assert json.dumps({"watch": ParentWatch()}) == '{"watch": "parent_watch"}'
