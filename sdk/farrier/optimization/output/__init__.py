"""What a run leaves behind: the folder and its files, the bundle's parts, the lock."""
