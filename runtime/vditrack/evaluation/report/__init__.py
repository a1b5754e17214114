"""Reports, plots and pictures of evaluation results."""
