"""multiprocessing.Pool: batches of 8, sorted by size; threads in each process decode, encode, and wait for S3.

A process for each core with a network of its own, so that no pixels go through pipes. The area of a photo is not known
before it is decoded, so its bytes stand for it. Four threads in each process overlap S3 with pixels. A batch that
raises is printed, and the others go on.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing import Pool

import boto3
import cv2
import numpy as np
import onnxruntime

BATCH = 8
SIDE = 320


def begin():
    global s3, session, threads
    cv2.setNumThreads(1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(os.environ["MODEL"], options)
    s3 = boto3.client("s3")
    threads = ThreadPoolExecutor(4)


def load(source, key):
    body = s3.get_object(Bucket=source, Key=key)["Body"].read()
    bgr = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
    small = cv2.resize(bgr, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return bgr, cv2.cvtColor(small, cv2.COLOR_BGR2RGB)


def save(target, key, bgr, alpha):
    alpha = cv2.resize(alpha, (bgr.shape[1], bgr.shape[0]), interpolation=cv2.INTER_LINEAR)
    png = cv2.imencode(".png", np.dstack([bgr, alpha]))[1].tobytes()
    s3.put_object(Bucket=target, Key=key, Body=png, ContentType="image/png")


def remove_backgrounds(source, target, prefix, keys):
    loaded = list(threads.map(lambda key: load(source, key), keys))
    alphas = session.run(None, {"images": np.stack([small for _, small in loaded])})[0]
    targets = [prefix + key.rsplit(".", 1)[0] + ".png" for key in keys]
    images = [bgr for bgr, _ in loaded]
    list(threads.map(lambda *image: save(target, *image), targets, images, alphas))


def main():
    with Pool(len(os.sched_getaffinity(0)), begin) as pool:
        print("ready", flush=True)
        for line in sys.stdin:
            source, target, prefix = line.split()
            pages = boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket=source)
            objects = sorted((entry["Size"], entry["Key"]) for page in pages for entry in page["Contents"])
            keys = [key for _, key in objects]
            batches = [keys[at : at + BATCH] for at in range(0, len(keys), BATCH)]
            jobs = []
            for batch in batches:
                told = partial(print, "failed:", *batch, flush=True)
                job = (source, target, prefix, batch)
                jobs.append(pool.apply_async(remove_backgrounds, job, error_callback=told))
            for job in jobs:
                job.wait()
            print("done", flush=True)


if __name__ == "__main__":
    main()
