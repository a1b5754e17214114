"""Small distilled encoders that stand in for a checkpoint's own: TAEHV and TAESD."""
