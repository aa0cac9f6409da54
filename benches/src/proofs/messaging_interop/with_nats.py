"""NATS by nats-py. The place is `core:<subject>` or `jetstream:<subject>`."""

import asyncio
from urllib.parse import quote_from_bytes, unquote, unquote_to_bytes

import nats

import common


async def write_all(url, place, messages):
    mode, subject = place.split(":", 1)
    client = await nats.connect(url)
    for one in messages:
        headers = {name: value.decode() for name, value in one["headers"]}
        if one["id"] is not None:
            headers["Nats-Msg-Id"] = one["id"]
        if one["content_type"] is not None:
            headers["Content-Type"] = one["content_type"]
        if one["key"] is not None:
            headers["Trunkline-Key"] = quote_from_bytes(one["key"], safe="")
        if mode == "core":
            await client.publish(subject, one["payload"], headers=headers)
        else:
            await client.jetstream().publish(subject, one["payload"], headers=headers)
    await client.drain()


def seen(received):
    given = dict(received.headers or {})
    own = {name.lower(): value for name, value in given.items()}
    headers = [
        (name, value)
        for name, value in given.items()
        if not name.lower().startswith(("trunkline-", "nats-")) and name.lower() != "content-type"
    ]
    id, key = own.get("trunkline-id"), own.get("trunkline-key")
    return common.message(
        received.data,
        headers,
        None if id is None else unquote(id),
        own.get("content-type"),
        None if key is None else unquote_to_bytes(key),
    )


async def read_all(url, place, count):
    mode, subject = place.split(":", 1)
    client = await nats.connect(url)
    if mode == "core":
        subscription = await client.subscribe(subject)
        await client.flush()
    else:
        subscription = await client.jetstream().subscribe(subject, ordered_consumer=True)
    common.ready()
    messages = [seen(await subscription.next_msg(timeout=30)) for _ in range(count)]
    await client.close()
    return messages


def write(url, place, messages):
    asyncio.run(write_all(url, place, messages))


def read(url, place, count):
    return asyncio.run(read_all(url, place, count))


common.main(write, read)
