"""Decoders that a bright picture kills or hangs, threads that are late; Python imports this in every process of a test.

POISON says which: crash, hang, late. The first two stand in for a file that breaks the real decoder, which none is
known to do; late stands for a machine on which no thread of a GPU worker has got to its message.
"""

import os
import signal
import threading
from typing import Any

if os.environ.get("POISON") in ("crash", "hang"):
    import model.codecs.decode as codec

    decode = codec.decode

    def fall_ill(*args: Any, **kwargs: Any) -> codec.Picture:
        picture = decode(*args, **kwargs)
        if picture.rgb.mean() > 150:
            if os.environ["POISON"] == "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            threading.Event().wait()
        return picture

    codec.decode = fall_ill

if os.environ.get("POISON") == "late":
    from workers.matte import MatteStage

    MatteStage.process = lambda self, job: threading.Event().wait()
