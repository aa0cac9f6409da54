"""Kafka by confluent-kafka. The place is a topic."""

from confluent_kafka import Consumer, Producer

import common


def address(url):
    return url.removeprefix("kafka://")


def write(url, place, messages):
    producer = Producer({"bootstrap.servers": address(url), "acks": "all"})
    failures = []
    confirmed = lambda error, _: error and failures.append(error)
    for one in messages:
        headers = list(one["headers"])
        for name in ("id", "content_type"):
            if one[name] is not None:
                wire = {"id": "trunkline-id", "content_type": "content-type"}[name]
                headers.append((wire, one[name].encode()))
        producer.produce(
            place, one["payload"], key=one["key"], headers=headers, on_delivery=confirmed
        )
    left = producer.flush(30)
    if failures or left:
        raise SystemExit(f"{left} not confirmed, {failures}")


def seen(record):
    headers, own = [], {}
    for name, value in record.headers() or []:
        if name.startswith("trunkline-") or name == "content-type":
            own[name] = value
        else:
            headers.append((name, value or b""))
    return common.message(
        record.value() or b"",
        headers,
        own.get("trunkline-id"),
        own.get("content-type"),
        record.key(),
    )


def read(url, place, count):
    consumer = Consumer(
        {
            "bootstrap.servers": address(url),
            "group.id": f"{place}-foreign",
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe([place])
    # It begins with the oldest record.
    common.ready()
    messages = []
    while len(messages) < count:
        record = consumer.poll(1.0)
        if record is not None and record.error() is None:
            messages.append(seen(record))
    consumer.close()
    return messages


common.main(write, read)
