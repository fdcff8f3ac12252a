// Chats in page.html as a person would, in a headless Chromium. ../README.md tells the steps; this page repeats only what has no ack.
'use strict';
const path = require('path');
const { chromium } = require('playwright-core');

const [host, , user, peer, wsPort] = process.argv.slice(2);
const WAIT_MS = 15000;
const run = `web${Date.now()}-${process.pid}`;

async function login(browser) {
  const page = await browser.newPage();
  await page.goto('file://' + path.join(__dirname, 'page.html'));
  await page.fill('[name=server]', `ws://${host}:${wsPort}/mqtt`);
  await page.fill('[name=user]', user);
  await page.fill('[name=password]', process.env.IM_PASSWORD);
  await page.click('#login button');
  return page;
}

async function expect(page, step, css, text) {
  const line = page.locator(`#log li.${css}`, { hasText: text }).last();
  await line.waitFor({ timeout: WAIT_MS }).catch(async () => {
    throw new Error(`not seen within ${WAIT_MS} ms: ${step}; the page shows:\n${(await page.locator('#log li').allTextContents()).join('\n')}`);
  });
  console.log(`${step}: ${await line.textContent()}`);
}

async function send(page, to, text) {
  console.log(`send: ${to} ${text}`);
  await page.fill('[name=to]', to);
  await page.fill('[name=text]', text);
  await page.press('[name=text]', 'Enter');
}

async function main() {
  if (!wsPort || !process.env.IM_PASSWORD) throw new Error('usage: IM_PASSWORD=... node drive.js HOST PORT USER PEER WS_PORT');
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync'],
  });
  try {
    const home = await browser.newContext(), office = await browser.newContext(); // two browsers: two devices
    let page = await login(home);
    await expect(page, 'welcome', 'note', 'connected as');
    await send(page, `u/${peer}`, `hello ${run}`);
    await expect(page, 'acked', 'mine', new RegExp(`#[0-9]+ me: hello ${run} ✓`));
    await expect(page, 'received', 'theirs', `${peer}: hello ${run}`);
    await send(page, 'u/nobody.at.all', 'is anybody there');
    await expect(page, 'refused', 'bad', 'there is no user nobody.at.all');
    await page.close(); // as a closed tab, without a word to the broker
    console.log('away');
    page = await login(office);
    await send(page, `u/${peer}`, `while away ${run}`);
    await expect(page, 'acked', 'mine', new RegExp(`while away ${run} ✓`));
    await expect(page, 'received', 'theirs', `${peer}: while away ${run}`);
    page = await login(home);
    await expect(page, 'caught up', 'theirs', `${peer}: while away ${run}`);
    await expect(page, 'own, from the other device', 'mine', `while away ${run}`);
    console.log('done');
  } finally {
    await browser.close();
  }
}

main().then(() => process.exit(0), (e) => {
  console.error(e.message);
  process.exit(1);
});
