"""Decoders that a bright picture kills or hangs; Python imports this at the start of every process of a test.

POISON says how: crash, hang. It stands in for a file that breaks the real decoder, which none is known to do.
"""

import os
import signal
import threading
from typing import Any

if "POISON" in os.environ:
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
