"""Two models side by side: where they differ, which layer makes the difference, why, and what to do."""
