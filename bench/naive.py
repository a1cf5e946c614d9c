"""What a user would write in an afternoon: one Celery task that does it all, OpenCV for every pixel.

Prefork with a child for each core, one ONNX Runtime thread in each (two threads in each were slower), the model loaded
once in each child, Celery's other settings left alone. The same model file as Mattemill's.
"""

import os

import boto3
import cv2
import numpy as np
import onnxruntime
import redis
from botocore.config import Config
from celery import Celery
from celery.signals import worker_process_init

app = Celery("naive", broker=os.environ.get("MATTEMILL_REDIS_URL"))
app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True)
_child: dict[str, object] = {}


@worker_process_init.connect
def begin(**_: object) -> None:
    cv2.setNumThreads(1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    _child["session"] = onnxruntime.InferenceSession(os.environ["NAIVE_MODEL"], options)
    _child["redis"] = redis.Redis.from_url(os.environ["MATTEMILL_REDIS_URL"])
    _child["s3"] = boto3.client(
        "s3", endpoint_url=os.environ["MATTEMILL_S3_ENDPOINT_URL"], config=Config(signature_version="s3v4")
    )


@app.task
def remove_background(source: str, target: str, key: str) -> None:
    s3, session = _child["s3"], _child["session"]
    body = s3.get_object(Bucket=source, Key=key)["Body"].read()  # type: ignore[attr-defined]
    bgr = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
    height, width = bgr.shape[:2]
    side = session.get_inputs()[0].shape[1]  # type: ignore[attr-defined]
    small = cv2.cvtColor(cv2.resize(bgr, (side, side), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)
    alpha = session.run(None, {"images": small[None]})[0][0]  # type: ignore[attr-defined]
    alpha = cv2.resize(alpha, (width, height), interpolation=cv2.INTER_LINEAR)
    png = cv2.imencode(".png", np.dstack([bgr, alpha]))[1].tobytes()
    s3.put_object(Bucket=target, Key=key.rsplit(".", 1)[0] + ".png", Body=png, ContentType="image/png")  # type: ignore[attr-defined]
    _child["redis"].incr("naive:done")  # type: ignore[attr-defined]
