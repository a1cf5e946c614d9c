"""rembg's library: `remove` with one session, in a thread for each core.

Our model takes and gives uint8, so its session is a subclass that says how. rembg has no batches; Pillow decodes,
resizes and encodes without holding the lock.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed

import boto3
import numpy as np
import onnxruntime
from PIL import Image
from rembg import remove
from rembg.sessions.base import BaseSession

SIDE = 320


class Session(BaseSession):
    @classmethod
    def download_models(cls, *args, **kwargs):
        return os.environ["MODEL"]

    def predict(self, img, *args, **kwargs):
        small = np.asarray(img.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))
        alpha = self.inner_session.run(None, {"images": small[None]})[0][0]
        return [Image.fromarray(alpha).resize(img.size, Image.Resampling.BILINEAR)]


def main():
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = Session("ours", options)
    s3 = boto3.client("s3")

    def remove_background(source, target, prefix, key):
        body = s3.get_object(Bucket=source, Key=key)["Body"].read()
        png = remove(body, session=session)
        name = prefix + key.rsplit(".", 1)[0] + ".png"
        s3.put_object(Bucket=target, Key=name, Body=png, ContentType="image/png")

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        print("ready", flush=True)
        for line in sys.stdin:
            place = line.split()
            pages = s3.get_paginator("list_objects_v2").paginate(Bucket=place[0])
            keys = [entry["Key"] for page in pages for entry in page["Contents"]]
            jobs = {threads.submit(remove_background, *place, key): key for key in keys}
            for job in as_completed(jobs):
                if error := job.exception():
                    print("failed:", jobs[job], error, flush=True)
            print("done", flush=True)


if __name__ == "__main__":
    main()
