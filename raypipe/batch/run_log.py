"""The log of the runs of one output folder: a JSON object a line, without patient data.

    OUTPUT/log.jsonl    {"time": ..., "run": ..., "event": "series_ended", "series_key": ..., ...}

In: events, by name and fields. Out: lines in the file, and to whoever else listens.
Does not know: what the events mean.

A file on disk grows line by line. An object on S3 cannot grow; it is written again every
FLUSH_S, and at the end.
"""

import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from raypipe.batch.output import Output

LOG_FILE = "log.jsonl"
FLUSH_S = 15.0


class RunLog:
    """The log of one run.

    Args:
        output: the folder.
        run_id: names the run in every line.
        echo: also gets every line; None for nobody.
    """

    def __init__(
        self, output: Output, run_id: str, echo: Callable[[str], None] | None = None
    ) -> None:
        self._output, self._run_id, self._echo = output, run_id, echo
        self._lock = threading.Lock()
        self._pending: list[str] = []
        self._before = output.read_text(LOG_FILE) or "" if output.on_s3 else ""
        self._flushed_at = time.monotonic()

    def event(self, name: str, **fields: Any) -> None:
        """Write one event down."""
        head = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "run": self._run_id}
        line = json.dumps(head | {"event": name} | fields, default=str)
        if self._echo is not None:
            self._echo(line)
        with self._lock:
            self._pending.append(line + "\n")
            if not self._output.on_s3 or time.monotonic() - self._flushed_at > FLUSH_S:
                self._flush()

    def close(self) -> None:
        """Write what is not written yet."""
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        text = "".join(self._pending)
        self._pending.clear()
        self._flushed_at = time.monotonic()
        if not text:
            return
        if self._output.on_s3:
            self._before += text
            self._output.write_text(LOG_FILE, self._before)
            return
        path = Path(self._output.path) / LOG_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
