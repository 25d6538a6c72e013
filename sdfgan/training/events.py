"""A log that TensorBoard reads.

torch's SummaryWriter writes from a thread, which meets a full disk with a traceback, and says it to nobody else.
"""

from __future__ import annotations

import itertools
import os
import socket
import time
from pathlib import Path
from typing import Any

from torch import Tensor

_VERSION = "brain.Event:2"
_number = itertools.count()  # of the files of this process


class EventLog:
    """Appends to a new file in a folder. `resumed_step`: what earlier files say of later steps no longer holds.

    Raises OSError.
    """

    def __init__(self, folder: Path, resumed_step: int | None = None) -> None:
        # TensorBoard is slow to import; commands that only look at a run never need it.
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event = Event
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_number)}"
        self._file = (folder / name).open("wb")
        self._records = RecordWriter(self._file)
        self._add(file_version=_VERSION)
        if resumed_step is not None:
            self._add(step=resumed_step + 1, session_log=SessionLog(status=SessionLog.START))

    def add_scalars(self, step: int, numbers: dict[str, float]) -> None:
        """Numbers by name."""
        from torch.utils.tensorboard.summary import scalar

        for name, value in numbers.items():
            self._add(step=step, summary=scalar(name, value))
        self._file.flush()

    def add_text(self, step: int, name: str, message: str) -> None:
        """A text."""
        from torch.utils.tensorboard.summary import text

        self._add(step=step, summary=text(name, message))

    def add_image(self, step: int, name: str, image: Tensor) -> None:
        """An image [C, H, W] in [0, 1]."""
        from torch.utils.tensorboard.summary import image as summary

        self._add(step=step, summary=summary(name, image, dataformats="CHW"))

    def close(self) -> None:
        """Write what is buffered."""
        self._file.close()

    def _add(self, **values: Any) -> None:
        self._records.write(self._event(wall_time=time.time(), **values).SerializeToString())
