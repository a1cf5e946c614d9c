"""Celery, one task that does it all, OpenCV for every pixel.

    celery -A bench.peers.naive_celery worker --concurrency CORES

Prefork with a child for each core, one ONNX Runtime thread in each (two threads in each were slower), the model loaded
once in each child, Celery's other settings left alone. A result backend tells the client what came of every task.
"""

import os
import sys

import boto3
import cv2
import numpy as np
import onnxruntime
from celery import Celery
from celery.signals import worker_process_init

SIDE = 320
app = Celery("naive", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])


@worker_process_init.connect
def begin(**_):
    global s3, session
    cv2.setNumThreads(1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(os.environ["MODEL"], options)
    s3 = boto3.client("s3")


@app.task(name="remove_background")
def remove_background(source, target, prefix, key):
    body = s3.get_object(Bucket=source, Key=key)["Body"].read()
    bgr = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
    height, width = bgr.shape[:2]
    small = cv2.cvtColor(cv2.resize(bgr, (SIDE, SIDE), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)
    alpha = session.run(None, {"images": small[None]})[0][0]
    alpha = cv2.resize(alpha, (width, height), interpolation=cv2.INTER_LINEAR)
    png = cv2.imencode(".png", np.dstack([bgr, alpha]))[1].tobytes()
    s3.put_object(Bucket=target, Key=prefix + key.rsplit(".", 1)[0] + ".png", Body=png, ContentType="image/png")


def main():
    print("ready", flush=True)
    for line in sys.stdin:
        source, target, prefix = line.split()
        pages = boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket=source)
        keys = [entry["Key"] for page in pages for entry in page["Contents"]]
        results = [remove_background.delay(source, target, prefix, key) for key in keys]
        for key, result in zip(keys, results, strict=True):
            error = result.get(propagate=False)
            if result.failed():
                print("failed:", key, error, flush=True)
        print("done", flush=True)


if __name__ == "__main__":
    main()
