"""What every client here does the same way: a message is a dictionary, bytes are lists of numbers.

    python <client>.py write <url> <place>          messages on standard input, published and confirmed
    python <client>.py read <url> <place> <count>   prints "ready" when it listens, then the messages
"""

import json
import signal
import sys

# Nothing here takes longer than a few seconds; a client that hangs must end.
signal.alarm(60)


def out(data):
    """Bytes for the other side: text is what it is in UTF-8."""
    if isinstance(data, str):
        data = data.encode()
    return list(data)


def value(given):
    """A header's value: bytes, or whatever else JSON has."""
    return bytes(given) if isinstance(given, list) else given


def text(data):
    """Text where the bytes are text, for clients that tell the two apart."""
    if not isinstance(data, bytes):
        return data
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def message(payload, headers, id=None, content_type=None, key=None):
    as_text = lambda data: data.decode() if isinstance(data, bytes) else data
    return {
        "id": as_text(id),
        "content_type": as_text(content_type),
        "key": None if key is None else out(key),
        "payload": out(payload),
        "headers": [[name, out(one)] for name, one in headers],
    }


def ready():
    print("ready", flush=True)


def main(write, read):
    mode, url, place = sys.argv[1:4]
    if mode == "write":
        messages = json.load(sys.stdin)
        for one in messages:
            one["payload"] = bytes(one["payload"])
            one["key"] = None if one["key"] is None else bytes(one["key"])
            one["headers"] = [(name, value(given)) for name, given in one["headers"]]
        write(url, place, messages)
    else:
        print(json.dumps(read(url, place, int(sys.argv[4]))), flush=True)
