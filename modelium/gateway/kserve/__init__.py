"""KServe's v2 protocol: what Triton's clients send enters, Triton's own answers leave."""
