"""Redis Streams by redis-py. The place is the key of a stream."""

import time

import redis

import common

OWN = {b"id": "id", b"content-type": "content_type", b"key": "key", b"payload": "payload"}


class Entries(dict):
    """A field may be there twice; redis-py asks a mapping for its items and looks no further."""

    def __init__(self, pairs):
        super().__init__(pairs)
        self.pairs = pairs

    def items(self):
        return self.pairs


def write(url, place, messages):
    client = redis.Redis.from_url(url)
    for one in messages:
        pairs = [(f"h:{name}", value) for name, value in one["headers"]]
        for wire, name in OWN.items():
            if one[name] is not None:
                pairs.append((wire, one[name]))
        client.xadd(place, Entries(pairs))


def seen(fields):
    headers, own = [], {}
    for name, value in fields:
        if name in OWN:
            own[OWN[name]] = value
        elif name.startswith(b"h:"):
            headers.append((name.removeprefix(b"h:").decode(), value))
    return common.message(headers=headers, **own)


def read(url, place, count):
    client = redis.Redis.from_url(url)
    # redis-py makes a dictionary of the fields, which has each name once; this is the answer as it came.
    client.set_response_callback("XRANGE", lambda answer, **_: answer)
    common.ready()
    after, entries = b"-", []
    while len(entries) < count:
        time.sleep(0.02)
        answer = client.execute_command("XRANGE", place, after, b"+")
        for entry, fields in answer:
            entries.append((entry, fields))
            after = b"(" + entry
    return [seen(list(zip(fields[::2], fields[1::2]))) for _, fields in entries]


common.main(write, read)
