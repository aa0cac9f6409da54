"""FastStream as its documentation says: a handler, acknowledged after it, and publishes that wait for their confirm.

A job as JSON on standard input, what it took on standard output.
"""

import asyncio
import json
import logging
import statistics
import sys
import time

job = json.load(sys.stdin)
order = lambda id: {"id": id, "text": "x" * job["text"]}


def rabbitmq():
    from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitQueue

    channel = Channel(prefetch_count=job["under_way"], publisher_confirms=True)
    broker = RabbitBroker(job["url"], default_channel=channel, logger=None)
    queue = lambda name: RabbitQueue(name, durable=True, queue_type=QueueType.QUORUM, declare=False)
    subscribe = lambda name: broker.subscriber(queue(name))
    publish = lambda id, name: broker.publish(order(id), queue(name), persist=True, mandatory=True)
    return broker, subscribe, publish


def kafka():
    from faststream import AckPolicy
    from faststream.confluent import KafkaBroker

    broker = KafkaBroker(job["url"].removeprefix("kafka://"), acks="all", logger=None)
    subscribe = lambda name: broker.subscriber(
        name, group_id=f"fast.{name}", auto_offset_reset="earliest", ack_policy=AckPolicy.ACK
    )
    publish = lambda id, name: broker.publish(order(id), name)
    return broker, subscribe, publish


def redis():
    from faststream.redis import RedisBroker, StreamSub
    from redis import Redis

    # It takes a connection for each command that waits.
    broker = RedisBroker(job["url"], max_connections=2 * job["under_way"], logger=None)

    def subscribe(name):
        # A group that FastStream makes begins with what comes after it.
        client = Redis.from_url(job["url"])
        client.xgroup_create(name, "fast", id="0", mkstream=True)
        client.close()
        stream = StreamSub(
            name, group="fast", consumer="one", last_id=">", max_records=job["under_way"]
        )
        return broker.subscriber(stream=stream)

    publish = lambda id, name: broker.publish(order(id), stream=name)
    return broker, subscribe, publish


def nats():
    from faststream.nats import JStream, NatsBroker, PullSub

    broker = NatsBroker(job["url"], logger=None)
    streams = {
        job["address"]: JStream("TRUNKLINE-Q-" + job["queue"].replace(".", "="), declare=False),
        job["single_address"]: JStream("TRUNKLINE-Q-" + job["single"].replace(".", "="), declare=False),
    }
    subscribe = lambda name: broker.subscriber(
        name,
        stream=streams[name],
        durable="fast",
        pull_sub=PullSub(batch_size=job["under_way"]),
    )
    publish = lambda id, name: broker.publish(order(id), name, stream=streams[name].name, timeout=60)
    return broker, subscribe, publish


async def publish_all(publish):
    places = asyncio.Semaphore(job["under_way"])

    async def one(id):
        async with places:
            await publish(id, job["address"])

    began = time.perf_counter()
    await asyncio.gather(*(one(id) for id in range(job["messages"])))
    return job["messages"] / (time.perf_counter() - began)


async def main():
    connect = {"rabbitmq": rabbitmq, "kafka": kafka, "redis": redis, "nats": nats}[job["system"]]

    broker, _, publish = connect()
    async with broker:
        await broker.start()
        published = await publish_all(publish)

    broker, subscribe, _ = connect()
    handled, began, done = 0, 0.0, asyncio.Event()

    @subscribe(job["address"])
    async def handle(order: dict):
        nonlocal handled, began
        began = began or time.perf_counter()
        handled += 1
        if handled == job["messages"]:
            done.set()

    async with broker:
        await broker.start()
        await asyncio.wait_for(done.wait(), 300)
        consumed = job["messages"] / (time.perf_counter() - began)

    broker, subscribe, publish = connect()
    back = asyncio.Queue()

    @subscribe(job["single_address"])
    async def answer(order: dict):
        back.put_nowait(order["id"])

    spans = []
    async with broker:
        await broker.start()
        for id in range(job["singles"] + 1):
            await asyncio.sleep(0.001)
            began = time.perf_counter()
            await publish(id, job["single_address"])
            await asyncio.wait_for(back.get(), 60)
            spans.append((time.perf_counter() - began) * 1e6)

    # The first waited for the subscription.
    sample = {"publish": published, "consume": consumed, "round_trip": statistics.median(spans[1:])}
    print(json.dumps(sample), flush=True)


logging.disable(logging.CRITICAL)
asyncio.run(main())
