"""The local API: Open Inference Protocol v2 over HTTP/1.1 on TCP and Unix sockets.

server      accepts, sweeps time limits, drains
connection  one client: bytes to requests, responses to bytes
http        what a request and a response are
api         which path does what
messages    inference requests and answers: JSON, binary tensors
tensors     one tensor to and from JSON and bytes
regions     system shared memory
documents   metadata, configuration, statistics
metrics     Prometheus text
"""
