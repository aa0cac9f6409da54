"""RabbitMQ by pika. The place is a routing key of the exchange `events`."""

import pika

import common

EXCHANGE = "events"


def channel(url):
    opened = pika.BlockingConnection(pika.URLParameters(url)).channel()
    opened.exchange_declare(EXCHANGE, exchange_type="topic", durable=True)
    return opened


def write(url, place, messages):
    opened = channel(url)
    opened.confirm_delivery()
    for one in messages:
        table = {}
        properties = pika.BasicProperties(
            message_id=one["id"], content_type=one["content_type"], delivery_mode=2
        )
        for name, value in one["headers"]:
            value = common.text(value)
            if name == "priority":
                properties.priority = int(value)
            elif name in table:
                before = table[name] if isinstance(table[name], list) else [table[name]]
                table[name] = before + [value]
            else:
                table[name] = value
        if one["key"] is not None:
            table["trunkline-key"] = common.text(one["key"])
        properties.headers = table
        opened.basic_publish(EXCHANGE, place, one["payload"], properties, mandatory=True)
    opened.connection.close()


def seen(properties, body):
    headers = []
    table = dict(properties.headers or {})
    key = table.pop("trunkline-key", None)
    for name, value in table.items():
        several = value if isinstance(value, list) else [value]
        headers += [(name, one) for one in several if not name.startswith("trunkline-")]
    if properties.priority is not None:
        headers.append(("priority", str(properties.priority)))
    return common.message(body, headers, properties.message_id, properties.content_type, key)


def read(url, place, count):
    opened = channel(url)
    queue = opened.queue_declare("", exclusive=True).method.queue
    opened.queue_bind(queue, EXCHANGE, place)
    common.ready()
    messages = []
    for method, properties, body in opened.consume(queue):
        messages.append(seen(properties, body))
        opened.basic_ack(method.delivery_tag)
        if len(messages) == count:
            break
    opened.connection.close()
    return messages


common.main(write, read)
