"""What is known of a camera's geometry: its calibration, and the depth of its images."""
