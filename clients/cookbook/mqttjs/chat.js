// A short chat with MQTT.js, four times: TCP and WebSocket, MQTT 3.1.1 and 5. ../README.md tells the steps.
'use strict';
const mqtt = require('mqtt');

const [host, port, user, peer, wsPort] = process.argv.slice(2);
const password = process.env.IM_PASSWORD;
const WAIT_MS = 15000;

async function chat(url, protocolVersion, name) {
  const run = `js${Date.now()}-${process.pid}`;
  const inbox = `im/v1/in/msg/u/${peer}`;
  let seen = [];
  let look = () => {};
  const say = (step, what) => console.log(`${name} ${step}: ${what}`);

  async function connect() {
    // Not connectAsync: what the session kept arrives right after the CONNACK, so the handler must be there before.
    const client = mqtt.connect(url, {
      clientId: `${user}:cookbook-js-${name}`, username: user, password, protocolVersion, clean: false,
      properties: protocolVersion === 5 ? { sessionExpiryInterval: 86400 } : undefined,
    });
    client.on('message', (topic, payload) => {
      seen.push({ topic, payload: JSON.parse(payload) });
      look();
    });
    await new Promise((resolve, reject) => client.once('connect', resolve).once('error', reject));
    await client.subscribeAsync('im/v1/in/#', { qos: 1 });
    return client;
  }

  function expect(step, topic, match = () => true) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`${name}: not seen within ${WAIT_MS} ms: ${step}`)), WAIT_MS);
      look = () => {
        const found = seen.find((m) => m.topic === topic && match(m.payload));
        if (!found) return;
        clearTimeout(timer);
        look = () => {};
        say(step, `${topic} ${JSON.stringify(found.payload)}`);
        resolve(found.payload);
      };
      look();
    });
  }

  const send = async (client, to, id, text) => {
    say('send', `im/v1/to/u/${to}/${id} ${text}`);
    // MQTT 5 tells a refusal in the PUBACK too; MQTT.js makes an error of it. The reason comes on in/err.
    await client.publishAsync(`im/v1/to/u/${to}/${id}`, text, { qos: 1 }).catch((e) => say('puback', e.message));
  };
  const acknowledge = (client, m) =>
    client.publishAsync('im/v1/ack', JSON.stringify([{ conv: m.conv, delivered: m.seq, read: m.seq }]), { qos: 1 });
  const acks = (id, dup) => (list) => list.some((a) => a.id === id && (!dup || a.dup));
  const says = (text) => (m) => String(m.body).includes(text);

  let client = await connect();
  await expect('welcome', 'im/v1/in/evt/welcome');
  await send(client, peer, `${run}-1`, `hello ${run}`);
  await expect('acked', 'im/v1/in/ack', acks(`${run}-1`, false));
  await acknowledge(client, await expect('received', inbox, says(`hello ${run}`)));
  await send(client, 'nobody.at.all', `${run}-2`, 'is anybody there');
  await expect('refused', 'im/v1/in/err', (e) => e.id === `${run}-2`);
  await send(client, peer, `${run}-1`, `hello ${run}`);
  await expect('repeat answered alike', 'im/v1/in/ack', acks(`${run}-1`, true));

  await send(client, peer, `${run}-3`, `while away ${run}`);
  await client.endAsync();
  say('away', '');
  await new Promise((resolve) => setTimeout(resolve, 1000)); // the answer arrives meanwhile
  seen = [];
  client = await connect();
  await acknowledge(client, await expect('caught up', inbox, says(`while away ${run}`)));

  seen = [];
  client.stream.destroy(); // the network fails: the library comes back by itself, and the session still knows its subscription
  await expect('reconnected', 'im/v1/in/evt/welcome');
  await send(client, peer, `${run}-4`, `still here ${run}`);
  await acknowledge(client, await expect('received', inbox, says(`still here ${run}`)));
  await client.endAsync();
  say('done', '');
}

async function main() {
  if (!wsPort || !password) throw new Error('usage: IM_PASSWORD=... node chat.js HOST PORT USER PEER WS_PORT');
  await chat(`mqtt://${host}:${port}`, 4, 'tcp-311');
  await chat(`mqtt://${host}:${port}`, 5, 'tcp-5');
  await chat(`ws://${host}:${wsPort}/mqtt`, 4, 'ws-311');
  await chat(`ws://${host}:${wsPort}/mqtt`, 5, 'ws-5');
}

main().then(() => process.exit(0), (e) => {
  console.error(e.message);
  process.exit(1);
});
