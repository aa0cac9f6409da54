"""Kafka by kcat. The place is a topic. Headers are what kcat can say on a command line: text."""

import pathlib
import subprocess
import tempfile

import common

OWN = {"trunkline-id": "id", "content-type": "content_type"}


def kcat(url, place, *arguments, given=b""):
    words = ["kcat", "-q", "-b", url.removeprefix("kafka://"), "-t", place, *arguments]
    return subprocess.run(words, input=given, stdout=subprocess.PIPE, check=True).stdout


def write(url, place, messages):
    with tempfile.TemporaryDirectory() as directory:
        for at, one in enumerate(messages):
            body = pathlib.Path(directory) / str(at)
            body.write_bytes(one["payload"])
            headers = [(name, value.decode()) for name, value in one["headers"]]
            headers += [(wire, one[name]) for wire, name in OWN.items() if one[name] is not None]
            words = ["-P", "-X", "acks=all"]
            for name, value in headers:
                words += ["-H", f"{name}={value}"]
            if one["key"] is not None:
                words += ["-k", one["key"].decode()]
            if one["payload"]:
                kcat(url, place, *words, str(body))
            else:
                # It skips empty files; this line is an empty key and an empty payload.
                kcat(url, place, *words, "-Z", "-K", ":", given=b":\n")


def seen(block):
    """Lengths and headers on a line, then key and payload."""
    line, _, rest = block.partition(b"\n")
    key_size, size, headers = line.split(b" ", 2)
    key_size, size = max(int(key_size), 0), max(int(size), 0)
    key, payload = rest[:key_size], rest[key_size : key_size + size]
    own, others = {}, []
    for pair in headers.decode().split(","):
        name, _, value = pair.partition("=")
        if name in OWN:
            own[OWN[name]] = value
        elif name and not name.startswith("trunkline-"):
            others.append((name, value))
    found = common.message(payload, others, key=key if key_size else None, **own)
    return found, rest[key_size + size + 1 :]


def read(url, place, count):
    # It begins with the oldest record.
    common.ready()
    stream = kcat(url, place, "-C", "-o", "beginning", "-c", str(count), "-f", "%K %S %h\n%k%s\n")
    messages = []
    while stream:
        found, stream = seen(stream)
        messages.append(found)
    return messages


common.main(write, read)
