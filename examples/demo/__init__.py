"""Train the same models on real data with torch and with fused_ml, and compare."""

import os

# torch's profiler, which measures memory here, otherwise writes start and stop lines over the progress bars.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")
