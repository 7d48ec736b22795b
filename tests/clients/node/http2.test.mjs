// Chromium over HTTP/2, where a WebSocket is a CONNECT (RFC 8441) and shares its connection. What is
// asserted is what the page saw; what Chromium itself logs proves the version.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { launch } from './browser.mjs';
import { converse } from './converse.mjs';
import { assertAccepted, assertRefused } from './every-client.mjs';
import { key, start } from './start.mjs';

const REPEATS = 20;
// The answer to a completed handshake: over HTTP/1.1 it would be 101.
const OK = 200;

const { origin, stop } = await start('--tls');
const realtime = `${origin.replace('http', 'ws')}/v1/realtime`;

// Nobody else has signed the gateway's certificate.
const browser = await launch('--ignore-certificate-errors');
const page = await (await browser.newContext({ ignoreHTTPSErrors: true })).newPage();
const network = await page.context().newCDPSession(page);
await network.send('Network.enable');
let completed = [];
network.on('Network.webSocketHandshakeResponseReceived', ({ response }) => {
  completed.push(response.status);
});

// Any page will do, as long as it is from there: Chromium opens WebSockets over HTTP/2 where it has
// such a connection already.
await page.goto(origin);
const version = await page.evaluate(
  () => performance.getEntriesByType('navigation')[0].nextHopProtocol,
);

/** Holds a conversation, which must have been over HTTP/2. */
async function visit(protocols, query = '', script = {}) {
  completed = [];
  const report = await page.evaluate(converse, { url: realtime + query, protocols, ...script });
  assert.deepEqual(completed, [OK]);
  return report;
}

/** Mints as a page of the gateway's own could, had it a secret key. */
function mint() {
  return page.evaluate(async (bearer) => {
    const response = await fetch('/v1/realtime/client_secrets', {
      method: 'POST',
      headers: { authorization: `Bearer ${bearer}` },
    });
    return (await response.json()).value;
  }, key);
}

const places = {
  "OpenAI's subprotocols": (credential) => ({
    protocols: ['realtime', `openai-insecure-api-key.${credential}`],
    selected: 'realtime',
  }),
  "xAI's subprotocol": (credential) => ({
    protocols: [`xai-client-secret.${credential}`],
    selected: `xai-client-secret.${credential}`,
  }),
  'the query': (credential) => ({ protocols: [], query: `?api_key=${credential}`, selected: '' }),
};

test('Chromium and the gateway agree on HTTP/2', () => assert.equal(version, 'h2'));

for (const [place, presented] of Object.entries(places)) {
  test(`Chromium over HTTP/2, ${place}: accepted, ${REPEATS} times`, async () => {
    const { protocols, query, selected } = presented(await mint());
    for (let i = 0; i < REPEATS; i += 1) {
      assertAccepted({ ...(await visit(protocols, query)), selected });
    }
  });

  test(`Chromium over HTTP/2, ${place}: refused, ${REPEATS} times`, async () => {
    for (let i = 0; i < REPEATS; i += 1) {
      const { protocols, query } = presented(`sk_test_wrong${i}`);
      assertRefused(await visit(protocols, query));
    }
  });
}

test(`Chromium over HTTP/2: what it says is answered, ${REPEATS} times`, async () => {
  const { protocols } = places["OpenAI's subprotocols"](await mint());
  for (let i = 0; i < REPEATS; i += 1) {
    const instructions = `This is try ${i}.`;
    const { events, code } = await visit(protocols, '', {
      answers: {
        'session.created': { type: 'session.update', session: { instructions } },
        'session.updated': { type: 'response.create' },
      },
      until: 'response.done',
    });
    assert.equal(events.at(-1).response.instructions, instructions);
    assert.equal(code, 1000);
  }
});

test('Chromium over HTTP/2, when the gateway stops: 1001, and it ends in time', async () => {
  const { protocols } = places["OpenAI's subprotocols"](await mint());
  const visiting = visit(protocols, '', { until: 'never' });
  await new Promise((begun) => network.once('Network.webSocketFrameReceived', begun));
  const stopped = stop();
  const { code, reason, wasClean } = await visiting;
  assert.deepEqual(
    { code, reason, wasClean },
    { code: 1001, reason: 'the server is stopping', wasClean: true },
  );
  assert.equal(await stopped, 0);
});
