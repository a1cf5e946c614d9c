"""Ray Data: the keys as a dataset, `map_batches` of 8 over a pool of actors, one for each core.

The actors fetch and store too, in threads, so that no pixels go through the object store. Blocks are as small as
batches and may fail (`max_errored_blocks`); what does not come out at the end is printed. Ray starts its actors anew
for every dataset.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import boto3
import cv2
import numpy as np
import onnxruntime
import ray

BATCH = 8
SIDE = 320
CORES = len(os.sched_getaffinity(0))


class RemoveBackground:
    def __init__(self, source, target, prefix):
        self.source, self.target, self.prefix = source, target, prefix
        cv2.setNumThreads(1)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options)
        self.s3 = boto3.client("s3")
        self.threads = ThreadPoolExecutor(4)

    def load(self, key):
        body = self.s3.get_object(Bucket=self.source, Key=key)["Body"].read()
        bgr = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
        small = cv2.resize(bgr, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        return bgr, cv2.cvtColor(small, cv2.COLOR_BGR2RGB)

    def save(self, key, bgr, alpha):
        alpha = cv2.resize(alpha, (bgr.shape[1], bgr.shape[0]), interpolation=cv2.INTER_LINEAR)
        png = cv2.imencode(".png", np.dstack([bgr, alpha]))[1].tobytes()
        name = self.prefix + key.rsplit(".", 1)[0] + ".png"
        self.s3.put_object(Bucket=self.target, Key=name, Body=png, ContentType="image/png")

    def __call__(self, batch):
        keys = list(batch["item"])
        loaded = list(self.threads.map(self.load, keys))
        alphas = self.session.run(None, {"images": np.stack([small for _, small in loaded])})[0]
        list(self.threads.map(self.save, keys, [bgr for bgr, _ in loaded], alphas))
        return batch


def main():
    ray.init(num_cpus=CORES, include_dashboard=False)
    context = ray.data.DataContext.get_current()
    context.max_errored_blocks = -1
    context.enable_progress_bars = False
    print("ready", flush=True)
    for line in sys.stdin:
        place = line.split()
        pages = boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket=place[0])
        keys = [entry["Key"] for page in pages for entry in page["Contents"]]
        dataset = ray.data.from_items(keys, override_num_blocks=-(-len(keys) // BATCH)).map_batches(
            RemoveBackground,
            fn_constructor_args=place,
            batch_size=BATCH,
            compute=ray.data.ActorPoolStrategy(size=CORES),
        )
        missing = set(keys) - {row["item"] for row in dataset.iter_rows()}
        if missing:
            print("failed:", *sorted(missing), flush=True)
        print("done", flush=True)


if __name__ == "__main__":
    main()
