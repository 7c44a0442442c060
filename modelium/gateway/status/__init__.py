"""The state of everything, to read: snapshots enter; JSON, the page and Prometheus' text leave."""
