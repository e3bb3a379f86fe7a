"""The Open Inference Protocol: its messages, and a client of servers that speak it."""
