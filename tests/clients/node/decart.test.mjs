// Decart's SDK, unmodified: minting in Node, and in Chromium a session up to where the video would
// begin.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer as createTcpServer } from 'node:net';
import { createServer } from 'node:http';
import { after, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';

import { launch } from './browser.mjs';
import { mintToken } from './decart.mjs';
import { key, start } from './start.mjs';

const WRONG = 'dct_wrong';
const [MODEL, OTHER_MODEL] = ['lucy-2.1', 'lucy-restyle-2'];
const INVALID = 'Unauthorized: invalid or expired API key';

const beside = (name) => fileURLToPath(new URL(name, import.meta.url));
const bundle = await build({
  entryPoints: [beside('decart.mjs')],
  alias: { 'livekit-client': beside('livekit.mjs') },
  bundle: true,
  format: 'iife',
  globalName: 'decart',
  platform: 'browser',
  write: false,
});
const [{ text: source }] = bundle.outputFiles;
const site = createServer(({ url }, response) => {
  const [type, body] = url === '/decart.js'
    ? ['text/javascript', source]
    : ['text/html', '<!doctype html><title>A customer</title><script src="/decart.js"></script>'];
  response.setHeader('content-type', `${type}; charset=utf-8`).end(body);
});
await once(site.listen(0, '127.0.0.1'), 'listening');
after(() => site.close());
const ours = `http://127.0.0.1:${site.address().port}`;

const { origin } = await start();
// A way to the gateway that counts how often it is taken.
let taken = 0;
const way = createTcpServer((socket) => {
  taken += 1;
  const { hostname, port } = new URL(origin);
  const there = connect(port, hostname);
  for (const [from, to] of [[socket, there], [there, socket]]) {
    from.pipe(to).on('error', () => from.destroy());
  }
});
await once(way.listen(0, '127.0.0.1'), 'listening');
after(() => way.close());

const browser = await launch();
const page = await browser.newPage();
await page.goto(ours);

const mint = (asked, credential = key) => mintToken({ origin, credential, asked });

/** What the SDK sees in a page, and how often it has connected for that. */
async function hold(credential) {
  taken = 0;
  const options = { origin: `http://127.0.0.1:${way.address().port}`, credential, model: MODEL };
  const seen = await page.evaluate((given) => decart.holdStream(given), options);
  return { ...seen, attempts: taken };
}

function assertAccepted({ sessionId, ...seen }) {
  assert.match(sessionId, /^stream_/);
  assert.deepEqual(seen, {
    states: ['connecting', 'connected', 'disconnected'],
    queue: [{ position: 1, queueSize: 1 }],
    errors: [],
    attempts: 1,
  });
}

function assertRefused(seen, failure) {
  const states = ['connecting', 'disconnected'];
  assert.deepEqual(seen, { states, queue: [], errors: [], failure, attempts: 1 });
}

test('a token has the fields that the SDK reads', async () => {
  const constraints = { realtime: { maxSessionDuration: 300 } };
  const before = Date.now();
  const minted = await mint({
    expiresIn: 120,
    allowedModels: [MODEL],
    allowedOrigins: [ours],
    constraints,
    metadata: { role: 'viewer' },
  });
  assert.match(minted.apiKey, /^ek_/);
  assert.equal(typeof minted.token, 'string');
  assert.deepEqual(minted.permissions, { models: [MODEL], origins: [ours] });
  assert.deepEqual(minted.constraints, constraints);
  const expiresAt = Date.parse(minted.expiresAt);
  assert.ok(expiresAt > before + 119_000 && expiresAt < Date.now() + 121_000, minted.expiresAt);
});

for (const [who, credential, status] of [
  ['a token', async () => (await mint()).apiKey, 403],
  ['a bad key', () => WRONG, 401],
]) {
  test(`${who} does not mint`, async () => {
    const text = await credential();
    const answer = await mint({}, text);
    assert.equal(answer.status, status);
    assert.ok(!answer.failure.includes(text), answer.failure);
  });
}

describe("Decart's SDK in Chromium", () => {
  for (const [who, credential] of [
    ['a secret key', () => key],
    ['a token', async () => (await mint()).apiKey],
    ['its second form', async () => (await mint()).token],
    ['a token with lists', async () => {
      const lists = { allowedModels: [OTHER_MODEL, MODEL], allowedOrigins: [ours] };
      return (await mint(lists)).apiKey;
    }],
  ]) {
    test(`talks up to the video and beside it with ${who}`, async () => {
      assertAccepted(await hold(await credential()));
    });
  }

  for (const [what, credential, failure] of [
    ['a bad key', () => WRONG, INVALID],
    [
      'another model',
      async () => (await mint({ allowedModels: [OTHER_MODEL] })).apiKey,
      'Permission denied: model not allowed',
    ],
    [
      'another origin',
      async () => (await mint({ allowedOrigins: ['https://app.example'] })).apiKey,
      'Permission denied: origin not allowed',
    ],
  ]) {
    test(`stops at once when refused for ${what}`, async () => {
      assertRefused(await hold(await credential()), failure);
    });
  }

  test('stops at once when its token has expired', async () => {
    const { apiKey, expiresAt } = await mint({ expiresIn: 1 });
    await sleep(Math.max(0, Date.parse(expiresAt) + 10 - Date.now()));
    assertRefused(await hold(apiKey), INVALID);
  });
});
