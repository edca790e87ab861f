"""What docs/benchmarks.md reports, by subject: `python -m benchmarks.SUBJECT.NAME`, from the repository's root."""
