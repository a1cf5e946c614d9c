"""Mattemill: `sweep` and `wait`; beside them runs `mattemill worker all --devices cpu`.

`outputs` is printed when the last output is written: `wait` goes on until manifest and report are too.
"""

import sys

from producer import Producer


def progress(counts):
    if counts.finished == counts.listed:
        print("outputs", flush=True)


def main():
    producer = Producer()
    print("ready", flush=True)
    for line in sys.stdin:
        source, target, prefix = line.split()
        summary = producer.sweep(f"s3://{source}/", f"s3://{target}/{prefix}").wait(progress)
        for row in summary.failures:
            print("failed:", row["key"], row["code"], row["reason"], flush=True)
        print("done", flush=True)


if __name__ == "__main__":
    main()
