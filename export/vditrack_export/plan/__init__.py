"""What a backbone costs on a device, from shapes alone: no weights, no torch."""
