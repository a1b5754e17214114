"""Tracks points in many recordings: lists them, annotates each, survives the bad ones, reports."""
