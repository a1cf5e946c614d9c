"""One program for each way to do the job, as a user would write it with that library's documentation.

Each runs alone (`python -m bench.peers.NAME`) and is told by the environment where things are: MODEL is an ONNX file
(`images` [N, 320, 320, 3] uint8 RGB in, alpha [N, 320, 320] uint8 out), boto3 and Redis are pointed at their servers.
It prints `ready`, then does a job for every line of its standard input, `SOURCE-BUCKET TARGET-BUCKET PREFIX`, and
prints `done` after each. NAME.txt says what has to be installed beside it.

What is alike in all: OpenCV and ONNX Runtime on one thread in each worker, as many workers as cores (more threads than
cores only wait for each other), photos squashed to the model's square, the alpha upsampled bilinearly, PNG as the
library writes it. What went wrong is printed with its key as far as the library tells; no program handles the errors
of single images by itself.
"""
