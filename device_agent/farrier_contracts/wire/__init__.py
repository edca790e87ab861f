"""What travels between devices and fleet: topics, payloads, documents and telemetry."""
