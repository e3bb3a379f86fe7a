"""What services and trainer must agree on to the bit: the model folder, rendering, score reading, weights, logprobs."""
