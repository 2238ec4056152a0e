"""Writes vectors.csv: keys, and where Kafka's default partitioner puts them.

Run with the PyPI package kafka-python 3.0.12 installed: python vectors.py > vectors.csv
Columns: key in hex, then its partition among each of PARTITIONS.
"""
import random
from kafka.partitioner.default import DefaultPartitioner

PARTITIONS = [1, 2, 3, 7, 12, 64, 1000, 10000]

def keys():
    draw = random.Random(2026)
    for length in range(0, 70):
        for _ in range(15):
            yield bytes(draw.randrange(256) for _ in range(length))
    for number in range(300):
        yield b"user-%d" % number
    for text in ["Köln", "日本語", "\N{GRINNING FACE}", "a" * 1000, "\0", "\xff" * 9]:
        yield text.encode()


class Cluster:
    """What the partitioner asks of a cluster's metadata: a topic of so many partitions."""

    def __init__(self, count):
        self.count = count

    def topics(self):
        return {"topic"}

    def partitions_for_topic(self, topic):
        return set(range(self.count))

    available_partitions_for_topic = partitions_for_topic


partitioner = DefaultPartitioner()
print("key," + ",".join(str(count) for count in PARTITIONS))
for key in sorted(set(keys())):
    places = [partitioner.partition("topic", key, key, b"", b"", Cluster(count)) for count in PARTITIONS]
    print(key.hex() + "," + ",".join(str(place) for place in places))
