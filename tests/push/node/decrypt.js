// Reads a Web Push body (aes128gcm) from standard input and writes the text: decrypt.js PRIVATE_KEY AUTH, base64url.
const crypto = require('crypto');
const ece = require('http_ece');

const curve = crypto.createECDH('prime256v1');
curve.setPrivateKey(Buffer.from(process.argv[2], 'base64url'));
const body = require('fs').readFileSync(0);
process.stdout.write(ece.decrypt(body, { version: 'aes128gcm', privateKey: curve, authSecret: process.argv[3] }));
