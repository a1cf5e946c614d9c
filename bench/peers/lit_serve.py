"""LitServe: a server that takes a photo and answers with a PNG, and a client whose threads fetch and store.

    python -m bench.peers.lit_serve serve

Built as its documentation does: the server decodes, runs batches of up to 8 and encodes, in a worker for each core;
`fast_queue` is its advice for large payloads, `restart_workers` its way to live through the death of a worker. As many
client threads as fill a batch in every worker.
"""

import io
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed

import boto3
import cv2
import litserve
import numpy as np
import onnxruntime
import requests
from botocore.config import Config
from fastapi import Response

BATCH = 8
SIDE = 320
CORES = len(os.sched_getaffinity(0))
URL = f"http://127.0.0.1:{os.environ['PORT']}"


class RemoveBackground(litserve.LitAPI):
    def setup(self, device):
        cv2.setNumThreads(1)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options)

    def decode_request(self, request):
        body = request["image"].file.read()
        bgr = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
        small = cv2.resize(bgr, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        return bgr, cv2.cvtColor(small, cv2.COLOR_BGR2RGB)

    def batch(self, inputs):
        return [bgr for bgr, _ in inputs], np.stack([small for _, small in inputs])

    def predict(self, batch):
        images, small = batch
        return list(zip(images, self.session.run(None, {"images": small})[0], strict=True))

    def unbatch(self, output):
        return output

    def encode_response(self, output):
        bgr, alpha = output
        alpha = cv2.resize(alpha, (bgr.shape[1], bgr.shape[0]), interpolation=cv2.INTER_LINEAR)
        png = cv2.imencode(".png", np.dstack([bgr, alpha]))[1].tobytes()
        return Response(png, media_type="image/png")


def serve():
    api = RemoveBackground(max_batch_size=BATCH, batch_timeout=0.05)
    server = litserve.LitServer(
        api, accelerator="cpu", workers_per_device=CORES, fast_queue=True, restart_workers=True, timeout=120
    )
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), generate_client_file=False)


def wait_for_server():
    while True:
        try:
            if requests.get(f"{URL}/health", timeout=5).ok:
                return
        except requests.ConnectionError:
            pass
        time.sleep(0.1)


def main():
    s3 = boto3.client("s3", config=Config(max_pool_connections=BATCH * CORES))
    session = requests.Session()
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=BATCH * CORES))

    def remove_background(source, target, prefix, key):
        body = s3.get_object(Bucket=source, Key=key)["Body"].read()
        answer = session.post(f"{URL}/predict", files={"image": (key, io.BytesIO(body))}, timeout=120)
        answer.raise_for_status()
        name = prefix + key.rsplit(".", 1)[0] + ".png"
        s3.put_object(Bucket=target, Key=name, Body=answer.content, ContentType="image/png")

    wait_for_server()
    with ThreadPoolExecutor(BATCH * CORES) as threads:
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
    serve() if sys.argv[1:] == ["serve"] else main()
