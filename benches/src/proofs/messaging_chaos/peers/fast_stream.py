"""FastStream as its documentation says: a handler, acknowledged after it, and publishes that wait for their confirm."""

import asyncio
import os
import sys

role, system, url, name, handled, number = sys.argv[1:]


def rabbitmq():
    from faststream.rabbit import QueueType, RabbitBroker, RabbitQueue

    queue = RabbitQueue(name, durable=True, queue_type=QueueType.QUORUM)
    broker = RabbitBroker(url)
    publish = lambda message: broker.publish(message, queue, persist=True)
    return broker, lambda: [broker.subscriber(queue)], publish


def kafka():
    from faststream import AckPolicy
    from faststream.confluent import KafkaBroker

    broker = KafkaBroker(url.removeprefix("kafka://"), acks="all")
    publish = lambda message: broker.publish(message, name, key=str(message["key"]).encode())
    subscribe = lambda: [
        broker.subscriber(name, group_id="members", auto_offset_reset="earliest", ack_policy=AckPolicy.ACK)
    ]
    return broker, subscribe, publish


def redis():
    from faststream.redis import RedisBroker, StreamSub

    broker = RedisBroker(url)
    publish = lambda message: broker.publish(message, stream=name)
    # One for new messages, one for those that a dead consumer has left: as the page on claiming shows.
    subscribe = lambda: [
        broker.subscriber(stream=StreamSub(name, group="members", consumer=number)),
        broker.subscriber(stream=StreamSub(name, group="members", consumer=number, min_idle_time=10_000)),
    ]
    return broker, subscribe, publish


def nats():
    from faststream.nats import JStream, NatsBroker, PullSub

    broker = NatsBroker(url)
    stream = JStream(name, subjects=[name])
    publish = lambda message: broker.publish(message, name, stream=name)
    subscribe = lambda: [broker.subscriber(name, stream=stream, durable="members", pull_sub=PullSub(batch_size=32))]
    return broker, subscribe, publish


async def lines():
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield line.decode()


def say(line):
    os.write(1, f"{line}\n".encode())


async def publisher(broker, publish):
    async def one(key, seq):
        try:
            await publish({"key": key, "seq": seq})
        except Exception as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            say(f"failed {key} {seq}")
        else:
            say(f"ok {key} {seq}")

    async with broker:
        await broker.start()
        say("ready")
        under_way = set()
        async for line in lines():
            key, seq = map(int, line.split())
            task = asyncio.create_task(one(key, seq))
            under_way.add(task)
            task.add_done_callback(under_way.discard)


async def consumer(broker, subscribe):
    file = os.open(handled, os.O_WRONLY | os.O_APPEND)

    async def handle(message: dict):
        os.write(file, f"{number} {message['key']} {message['seq']}\n".encode())

    for subscriber in subscribe():
        handle = subscriber(handle)
    async with broker:
        await broker.start()
        say("ready")
        async for _ in lines():
            pass


broker, subscribe, publish = {"rabbitmq": rabbitmq, "kafka": kafka, "redis": redis, "nats": nats}[system]()
if role == "publisher":
    asyncio.run(publisher(broker, publish))
else:
    asyncio.run(consumer(broker, subscribe))
