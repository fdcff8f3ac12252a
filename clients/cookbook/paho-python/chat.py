#!/usr/bin/python3
"""A short chat with Paho Python 1.6 or 2.1 (Debian's python3-paho-mqtt). README.md in the parent folder tells the steps."""
import json
import os
import socket
import sys
import threading
import time

import paho.mqtt.client as mqtt

host, port, user, peer = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
run = "py%d-%d" % (time.time(), os.getpid())
seen, news = [], threading.Condition()


def on_connect(client, userdata, flags, rc):
    if rc == 0:
        client.subscribe("im/v1/in/#", 1)


def on_message(client, userdata, msg):
    try:
        payload = json.loads(msg.payload)
    except ValueError:
        sys.exit("not JSON on " + msg.topic)
    with news:
        seen.append((msg.topic, payload))
        news.notify_all()


def expect(step, topic, match, seconds=15):
    """Waits for a packet that matches, prints it, returns its payload."""
    deadline = time.monotonic() + seconds
    with news:
        while True:
            for t, p in seen:
                if t == topic and match(p):
                    print("%s: %s %s" % (step, t, json.dumps(p)), flush=True)
                    return p
            left = deadline - time.monotonic()
            if left <= 0 or not news.wait(left):
                sys.exit("not seen within %d s: %s" % (seconds, step))


def connect():
    client = mqtt.Client(client_id=user + ":cookbook-python", clean_session=False)
    client.username_pw_set(user, os.environ["IM_PASSWORD"])
    client.on_connect, client.on_message = on_connect, on_message
    client.connect(host, port)
    client.loop_start()
    return client


def send(client, to, message_id, text):
    print("send: im/v1/to/u/%s/%s %s" % (to, message_id, text), flush=True)
    client.publish("im/v1/to/u/%s/%s" % (to, message_id), text, qos=1).wait_for_publish(15)


def has_ack(message_id, dup=False):
    return lambda acks: any(a["id"] == message_id and (a.get("dup", False) or not dup) for a in acks)


def says(text):
    return lambda m: text in str(m.get("body"))


inbox = "im/v1/in/msg/u/" + peer
client = connect()
expect("welcome", "im/v1/in/evt/welcome", lambda p: True)
send(client, peer, run + "-1", "hello " + run)
expect("acked", "im/v1/in/ack", has_ack(run + "-1"))
m = expect("received", inbox, says("hello " + run))
cursor = [{"conv": m["conv"], "delivered": m["seq"], "read": m["seq"]}]
client.publish("im/v1/ack", json.dumps(cursor), qos=1).wait_for_publish(15)
send(client, "nobody.at.all", run + "-2", "is anybody there")
expect("refused", "im/v1/in/err", lambda e: e.get("id") == run + "-2")
send(client, peer, run + "-1", "hello " + run)
expect("repeat answered alike", "im/v1/in/ack", has_ack(run + "-1", dup=True))

send(client, peer, run + "-3", "while away " + run)
client.disconnect()
client.loop_stop()
print("away", flush=True)
time.sleep(1)  # the answer arrives meanwhile
with news:
    seen.clear()
client = connect()
m = expect("caught up", inbox, says("while away " + run))
cursor = [{"conv": m["conv"], "delivered": m["seq"], "read": m["seq"]}]
client.publish("im/v1/ack", json.dumps(cursor), qos=1).wait_for_publish(15)

with news:
    seen.clear()
client.socket().shutdown(socket.SHUT_RDWR)  # the network fails: the library comes back by itself, on_connect subscribes again
expect("reconnected", "im/v1/in/evt/welcome", lambda p: True)
send(client, peer, run + "-4", "still here " + run)
expect("received", inbox, says("still here " + run))
client.disconnect()
client.loop_stop()
print("done")
