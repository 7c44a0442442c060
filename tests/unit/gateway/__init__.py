"""The gateway over real HTTP on 127.0.0.1, with the real codecs, and a stand-in for controller and Triton behind it."""
