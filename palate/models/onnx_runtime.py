"""ONNX Runtime, told to send nothing home before it is loaded; whoever needs it takes it from here.

From 1.32 on it begins a telemetry session when it is imported, keeps its id in the temporary folder and knows where to
send events to; a switch that is turned after the import comes too late for the former. Who sets the variable decides.
"""

from __future__ import annotations

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

__all__ = ["onnxruntime"]
