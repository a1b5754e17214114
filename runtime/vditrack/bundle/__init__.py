"""The bundle: the folder that export writes and every other unit only reads."""
