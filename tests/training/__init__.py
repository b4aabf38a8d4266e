import torch._dynamo  # noqa: F401  loads triton, where torch brings it: after TensorFlow it ends in a segmentation fault
