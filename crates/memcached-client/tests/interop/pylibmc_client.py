"""pylibmc: reads what the test has stored, and stores values for it. Run with the server's address."""

import sys

import pylibmc

client = pylibmc.Client([sys.argv[1]], binary=sys.argv[2] == "binary", behaviors={"ketama": True})
expected = {"text": "Grüße", "bytes": b"\x00\xff", "number": 42, "empty": b""}
for key, value in expected.items():
    found = client.get("ours/" + key)
    assert found == value and type(found) is type(value), (key, found)
assert client.incr("ours/counter", 2) == 42

client.set("theirs/text", "Grüße")
client.set("theirs/bytes", b"\x00\xff")
client.set("theirs/number", 42)
client.set("theirs/large", "x" * 100_000, min_compress_len=1000)
client.set("theirs/schlüssel".encode(), b"key")
client.add("theirs/counter", 40)
