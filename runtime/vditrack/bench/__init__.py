"""Speed of the live stream: stages, latency behind a camera, drops, memory, beside a baseline."""
