"""What widths really cost on a target: time falls in steps, not with every channel."""
