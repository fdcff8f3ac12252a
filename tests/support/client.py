"""A stock Paho client that remembers what it got, for tests that wait with a deadline."""
import json
import queue
import time

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties


class Timeout(AssertionError):
    pass


class Client:
    def __init__(self, instance, user, device=None, password=None, clean=True, v5=False, websocket=False, keepalive=60, will=None,
                 raw_id=None):
        self.user = user
        self.id = raw_id or (f"{user}:{device}" if device and ":" not in device else device or "")
        self.v5 = v5
        self.got = queue.Queue()
        self.pubacks, self.subacks = queue.Queue(), queue.Queue()
        self.rc, self.disconnects = None, queue.Queue()
        kind = {"protocol": mqtt.MQTTv5} if v5 else {"protocol": mqtt.MQTTv311, "clean_session": clean}
        self.mqtt = mqtt.Client(client_id=self.id, transport="websockets" if websocket else "tcp", **kind)
        if user is not None:
            self.mqtt.username_pw_set(user, password if password is not None else instance.users.get(user))
        if will:
            self.mqtt.will_set(*will)
        self.connacks = queue.Queue()
        self.mqtt.on_connect = lambda c, u, flags, rc, props=None: self.connacks.put((rc if isinstance(rc, int) else rc.value, flags))
        self.mqtt.on_disconnect = lambda c, u, rc, props=None: self.disconnects.put(rc)
        self.mqtt.on_message = lambda c, u, m: self.got.put(m)
        self.mqtt.on_publish = lambda c, u, mid, *rest: self.pubacks.put(mid)
        self.mqtt.on_subscribe = lambda c, u, mid, granted, *rest: self.subacks.put([getattr(g, "value", g) for g in granted])
        self.port = instance.ws_port if websocket else instance.port
        self.keepalive, self.clean = keepalive, clean

    def connect(self, timeout=10):
        if self.v5:
            props = Properties(PacketTypes.CONNECT)
            if not self.clean:
                props.SessionExpiryInterval = 3600
            self.mqtt.connect("127.0.0.1", self.port, self.keepalive, clean_start=self.clean, properties=props)
        else:
            self.mqtt.connect("127.0.0.1", self.port, self.keepalive)
        self.mqtt.loop_start()
        try:
            self.rc, self.flags = self.connacks.get(timeout=timeout)
        except queue.Empty:
            self.mqtt.loop_stop()
            raise Timeout("no CONNACK") from None
        return self

    def __enter__(self):
        return self.connect()

    def __exit__(self, *exc):
        self.close()

    def close(self):
        self.mqtt.disconnect()
        self.mqtt.loop_stop()

    def drop(self):
        """Cuts the connection without a DISCONNECT: the will fires."""
        sock = self.mqtt.socket()
        self.mqtt._thread_terminate = True  # no reconnect
        if sock:
            sock.shutdown(2)
        self.mqtt.loop_stop()

    def subscribe(self, filter, qos=1, timeout=10):
        self.mqtt.subscribe(filter, qos)
        return self.subacks.get(timeout=timeout)[0]

    def publish(self, topic, payload=b"", qos=1, retain=False, timeout=10, properties=None):
        """Waits for the PUBACK (QoS 1, 2)."""
        info = self.mqtt.publish(topic, payload, qos, retain, properties=properties)
        if qos:
            info.wait_for_publish(timeout)
            if not info.is_published():
                raise Timeout(f"no PUBACK for {topic}")

    def next(self, prefix="im/v1/", timeout=10):
        """The next message whose topic begins so, in order; others are put aside for good."""
        deadline = time.monotonic() + timeout
        seen = []
        while True:
            try:
                m = self.got.get(timeout=max(0.001, deadline - time.monotonic()))
            except queue.Empty:
                raise Timeout(f"{self.id}: nothing on {prefix}; saw {len(seen)} others, last {seen[-20:]}") from None
            if m.topic.startswith(prefix):
                return m
            seen.append(m.topic)

    def json(self, prefix="im/v1/in/", timeout=10):
        return json.loads(self.next(prefix, timeout).payload)

    def none(self, prefix, seconds=0.5):
        """Nothing on such a topic for this long."""
        try:
            m = self.next(prefix, seconds)
        except Timeout:
            return
        raise AssertionError(f"{self.id} got {m.topic} {m.payload[:200]}")

    def all(self, prefix, quiet=0.5):
        """Everything that still comes until it is quiet for so long."""
        out = []
        while True:
            try:
                m = self.got.get(timeout=quiet)
            except queue.Empty:
                return out
            if m.topic.startswith(prefix):
                out.append(m)

    def request(self, method, args=None, rid=None, timeout=10):
        rid = rid or f"r{time.monotonic_ns()}"
        self.mqtt.publish(f"im/v1/req/{method}/{rid}", json.dumps(args) if args is not None else b"", 1)
        return json.loads(self.next(f"im/v1/in/res/{rid}", timeout).payload)
