"""CloudEvents by the package `cloudevents`, between events and messages as `common.py` has them.

    python cloud_events.py read <binding>           messages on standard input, events out
    python cloud_events.py write <binding> <mode>   events on standard input, messages out

Redis has no binding; there an event looks as the one for RabbitMQ says.
"""

import json
import sys

from cloudevents.core.bindings import amqp, http, kafka, rabbitmq
from cloudevents.core.v1.event import CloudEvent

import common


def plain(one):
    payload = bytes(one["payload"])
    headers = {name: bytes(value) for name, value in one["headers"]}
    return payload, headers, one["content_type"]


def read(binding, one):
    payload, headers, content_type = plain(one)
    as_text = {name: value.decode() for name, value in headers.items()}
    with_type = {"content-type": content_type} if content_type else {}
    if binding == "amqp":
        return amqp.from_amqp_event(amqp.AMQPMessage(with_type, as_text, payload))
    if binding == "rabbitmq":
        return rabbitmq.from_rabbitmq_event(
            rabbitmq.RabbitMQMessage(as_text, content_type, payload)
        )
    if binding == "kafka":
        headers |= {name: value.encode() for name, value in with_type.items()}
        return kafka.from_kafka_event(kafka.KafkaMessage(headers, None, payload))
    return http.from_http_event(http.HTTPMessage(as_text | with_type, payload))


def write(binding, mode, event):
    module = {"amqp": amqp, "rabbitmq": rabbitmq, "kafka": kafka, "http": http}[binding]
    made = getattr(module, f"to_{mode}_event")(event)
    if binding == "amqp":
        content_type = made.properties.get("content-type")
        headers, payload = made.application_properties, made.application_data
    elif binding == "rabbitmq":
        content_type, headers, payload = made.content_type, made.headers, made.body
    elif binding == "kafka":
        headers, payload = dict(made.headers), made.value
        content_type = headers.pop("content-type", None)
        content_type = content_type.decode() if content_type else None
    else:
        headers, payload = dict(made.headers), made.body
        content_type = headers.pop("content-type", None)
    as_json = lambda value: value if isinstance(value, (int, bool)) else common.out(value)
    return {
        "id": None,
        "content_type": content_type,
        "key": None,
        "payload": common.out(payload),
        "headers": [[name, as_json(value)] for name, value in headers.items()],
    }


def shown(event):
    attributes = {
        name: value.isoformat().replace("+00:00", "Z") if hasattr(value, "isoformat") else value
        for name, value in event.get_attributes().items()
    }
    return {"attributes": attributes, "data": event.get_data()}


def event(given):
    from dateutil.parser import isoparse

    attributes = dict(given["attributes"])
    attributes["time"] = isoparse(attributes["time"])
    return CloudEvent(attributes, given["data"])


given = json.load(sys.stdin)
if sys.argv[1] == "read":
    print(json.dumps([shown(read(sys.argv[2], one)) for one in given]))
else:
    print(json.dumps([write(sys.argv[2], sys.argv[3], event(one)) for one in given]))
