"""What classes of faults share."""
