"""LeRobot data sets: their cameras, their episodes, and the frames of an episode."""
