// An independent client of Apple's API, @parse/node-apn: what it says of the stand-in is not our own opinion of it. One JSON object
// as argument: {port, ca, key, keyId, teamId, topic, tokens, n, at_once}. Prints what came back, and how long it took.
'use strict';
const apn = require('@parse/node-apn');

const o = JSON.parse(process.argv[2]);
const provider = new apn.Provider({
  token: { key: o.key, keyId: o.keyId, teamId: o.teamId }, production: false, address: 'localhost', port: o.port, ca: [require('fs').readFileSync(o.ca)],
  requestTimeout: 30000,
});
provider.client._mockOverrideUrl = `https://localhost:${o.port}`;

function notification() {
  const n = new apn.Notification();
  n.topic = o.topic;
  n.pushType = 'alert';
  n.priority = 10;
  n.expiry = Math.floor(Date.now() / 1000) + 3600;
  n.collapseId = '0123456789abcdef0123456789abcdef';
  n.threadId = 'fedcba9876543210fedcba9876543210';
  n.alert = { title: 'Alice', body: 'hello' };
  n.sound = 'default';
  n.mutableContent = true;
  return n;
}

async function load(n, atOnce) {
  let left = n, sent = 0, failed = 0;
  async function one() {
    while (left-- > 0) {
      const r = await provider.send(notification(), o.tokens[0]);
      sent += r.sent.length;
      failed += r.failed.length;
    }
  }
  await provider.send(notification(), o.tokens[0]); // opens the stream limit
  const began = process.hrtime.bigint();
  await Promise.all(Array.from({ length: atOnce }, one));
  return { sent, failed, ms: Number(process.hrtime.bigint() - began) / 1e6, kib: Math.round(process.memoryUsage().rss / 1024) };
}

async function each() {
  const out = [];
  for (const token of o.tokens) {
    const r = await provider.send(notification(), token);
    out.push(...r.sent.map(s => ({ token: s.device, ok: true })));
    out.push(...r.failed.map(f => ({ token: f.device, ok: false, status: f.status, reason: f.response && f.response.reason,
      timestamp: f.response && f.response.timestamp, error: f.error && String(f.error) })));
  }
  return out;
}

(o.n ? load(o.n, o.at_once) : each()).then(result => {
  console.log(JSON.stringify(result));
  provider.shutdown(() => process.exit(0));
  setTimeout(() => process.exit(0), 500).unref();
}).catch(e => {
  console.error(e);
  process.exit(1);
});
