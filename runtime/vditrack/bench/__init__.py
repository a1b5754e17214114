"""Speed of the live stream: time by stage, latency behind a camera, drops, memory, a baseline."""
