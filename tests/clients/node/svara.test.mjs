// Svara's clients, as its documentation has them: Node's own `fetch`, which reads in headers what is
// left. Then everything else that a plan limits: mints, sessions of Chromium and of `ws`.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { request } from 'node:http';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import WebSocket from 'ws';

import { launch, openCustomersPage } from './browser.mjs';
import { converse } from './converse.mjs';
import { assertRefused } from './every-client.mjs';
import { key as testKey, start } from './start.mjs';

const DEADLINE = 10_000;
const MINUTE = 60;
const message = { to: '+919812345678', text: 'Your order has left.', channel: 'sms' };

const fresh = () => `sk_live_${randomBytes(12).toString('hex')}`;
const now = () => Date.now() / 1000;

/** A gateway with this plan and a live key of this test alone; the test key has the plan, too. */
async function serve(...flags) {
  const key = fresh();
  const { origin } = await start('--key', key, ...flags);
  return { origin, key };
}

/** Sends a message as Svara's documentation does. */
const send = ({ origin, key }, body = JSON.stringify(message)) => fetch(`${origin}/v1/send`, {
  method: 'POST',
  headers: { Authorization: `Bearer ${key}`, 'Content-Type': 'application/json' },
  body,
  signal: AbortSignal.timeout(DEADLINE),
});

/** Anything else that can be asked of it. */
const ask = ({ origin, key }, method, path, body) => fetch(origin + path, {
  method,
  headers: { Authorization: `Bearer ${key}` },
  body,
  signal: AbortSignal.timeout(DEADLINE),
});

/** What the headers tell: all of them, or the test fails. */
function told({ headers }) {
  const number = (name) => {
    assert.match(headers.get(name) ?? '', /^\d+$/, name);
    return Number(headers.get(name));
  };
  const reset = number('X-RateLimit-Reset');
  assert.equal(reset % MINUTE, 0);
  assert.ok(reset > now() - 1 && reset <= now() + MINUTE, `${reset} at ${now()}`);
  return {
    limit: number('X-RateLimit-Limit'),
    remaining: number('X-RateLimit-Remaining'),
    usageLimit: number('X-Usage-Limit'),
    usageRemaining: number('X-Usage-Remaining'),
  };
}

/** Windows are whole minutes: what is to be seen in one needs some seconds of it. */
async function minuteWithRoom() {
  const left = MINUTE - (now() % MINUTE);
  if (left < 10) await sleep(left * 1000 + 10);
}

const plan = { limit: 20, usageLimit: 2 };
const flags = ['--requests-per-minute', '20', '--usage-limit', '2'];

describe('messages', () => {
  test('each that is sent costs a request and a unit', async () => {
    const client = await serve(...flags);
    await minuteWithRoom();
    for (const left of [1, 0]) {
      const response = await send(client);
      assert.equal(response.status, 200);
      const { id, ...answer } = await response.json();
      assert.match(id, /^msg_/);
      const { to, channel } = message;
      assert.deepEqual(answer, { status: 'sent', simulated: false, to, channel });
      assert.deepEqual(told(response), { ...plan, remaining: 18 + left, usageRemaining: left });
    }
    const refused = await send(client);
    assert.equal(refused.status, 429);
    assert.equal((await refused.json()).error.code, 'insufficient_quota');
    assert.ok(Number(refused.headers.get('Retry-After')) > 0);
    assert.deepEqual(told(refused), { ...plan, remaining: 17, usageRemaining: 0 });

    // The test key has a minute of its own, and spends no unit.
    const rehearsal = { ...client, key: testKey };
    for (const remaining of [19, 18, 17]) {
      const response = await send(rehearsal);
      const { status, simulated } = await response.json();
      assert.deepEqual([response.status, status, simulated], [200, 'simulated', true]);
      assert.deepEqual(told(response), { ...plan, remaining, usageRemaining: 2 });
    }
  });

  test('what is wrong is named, costs no unit, and leaves nobody without headers', async () => {
    const client = await serve('--profile', 'svara', ...flags);
    const json = (value) => JSON.stringify(value);
    const { to, text } = message;
    await minuteWithRoom();
    let remaining = 20;
    for (const [body, status, code, param] of [
      ['', 400, 'invalid_json', null],
      ['to=me', 400, 'invalid_json', null],
      ['[]', 400, 'invalid_json', null],
      ['null', 400, 'invalid_json', null],
      [json({}), 400, 'missing_field', 'to'],
      [json({ to }), 400, 'missing_field', 'text'],
      [json({ to: 7, text }), 400, 'invalid_value', 'to'],
      [json({ to: ' ', text }), 400, 'invalid_value', 'to'],
      [json({ to, message: null }), 400, 'invalid_value', 'message'],
      [json({ to, text, channel: [] }), 400, 'invalid_value', 'channel'],
      [json({ to, text, message: text }), 400, 'invalid_value', 'message'],
      [json({ to, text: 'x'.repeat(64 * 1024) }), 413, 'body_too_large', null],
      [json({ to: 'nobody@nowhere.invalid', text }), 422, 'undeliverable', 'to'],
    ]) {
      const response = await send(client, body);
      const { error } = await response.json();
      const { type } = error;
      const seen = [response.status, type, error.code, error.param];
      assert.deepEqual(seen, [status, 'invalid_request_error', code, param], body.slice(0, 80));
      remaining -= 1;
      assert.deepEqual(told(response), { ...plan, remaining, usageRemaining: 2 });
    }
    for (const [method, path, status, allow] of [
      ['GET', '/v1/send', 405, 'POST'],
      ['DELETE', '/v1/send', 405, 'POST'],
      ['POST', '/v1/usage', 405, 'GET,HEAD'],
      ['GET', '/v1/nothing', 404, null],
    ]) {
      const response = await ask(client, method, path);
      assert.deepEqual([response.status, response.headers.get('Allow')], [status, allow]);
      remaining -= 1;
      assert.deepEqual(told(response), { ...plan, remaining, usageRemaining: 2 });
    }
    // Who has no key has no plan.
    const response = await fetch(`${client.origin}/v1/send`, { method: 'POST', body: json(message) });
    assert.equal(response.status, 401);
    assert.equal(response.headers.get('X-RateLimit-Limit'), null);
  });

  test('a token sends none and is told nothing of the account', async () => {
    const client = await serve(...flags);
    const token = await (await ask(client, 'POST', '/v1/realtime/client_secrets')).json();
    for (const [method, path] of [['POST', '/v1/send'], ['GET', '/v1/usage']]) {
      const body = method === 'POST' ? JSON.stringify(message) : undefined;
      const response = await ask({ ...client, key: token.value }, method, path, body);
      assert.equal(response.status, 403);
      assert.equal((await response.json()).error.code, 'insufficient_scope');
    }
  });
});

describe('past the limit of a minute', () => {
  // Ours, OpenAI's and Svara's error object is the same; Decart's is a text.
  const rateLimited = (error) => assert.deepEqual(
    [error?.type, error?.code],
    ['rate_limit_error', 'rate_limit_exceeded'],
  );

  for (const profile of ['any', 'openai', 'svara']) {
    test(`--profile ${profile}: nothing is minted`, async () => {
      const client = await serve('--profile', profile, '--requests-per-minute', '3');
      await minuteWithRoom();
      const mints = Array.from({ length: 30 }, () =>
        ask(client, 'POST', '/v1/realtime/client_secrets'));
      const responses = await Promise.all(mints);
      const refused = responses.filter(({ status }) => status !== 200);
      assert.equal(refused.length, 27);
      for (const response of refused) {
        assert.equal(response.status, 429);
        rateLimited((await response.json()).error);
        const wait = Number(response.headers.get('Retry-After'));
        assert.ok(wait >= 1 && wait <= MINUTE, `${wait}`);
      }
      // What else yields tokens is no way round it.
      for (const path of ['/v1/realtime/sessions', '/v1/realtime/transcription_sessions']) {
        assert.equal((await ask(client, 'POST', path)).status, 429);
      }
      const decart = await ask(client, 'POST', '/v1/client/tokens');
      assert.equal(decart.status, 429);
      assert.match((await decart.json()).detail, /^Too many requests/);
    });
  }

  test('of 10,000 mints as many pass as the plan allows', async () => {
    const [mints, workers, limit] = [10_000, 8, 100];
    const client = await serve('--profile', 'svara', '--requests-per-minute', `${limit}`);
    const seen = new Map();
    await Promise.all(Array.from({ length: workers }, async () => {
      for (let i = 0; i < mints / workers; i += 1) {
        const response = await ask(client, 'POST', '/v1/realtime/client_secrets', '{}');
        const { value } = await response.json();
        assert.equal(Boolean(value), response.status === 200);
        // Each window is counted for itself.
        const at = `${response.status} until ${response.headers.get('X-RateLimit-Reset')}`;
        seen.set(at, (seen.get(at) ?? 0) + 1);
      }
    }));
    const windows = new Set([...seen.keys()].map((at) => at.split(' until ')[1]));
    const expected = [...windows].map((reset) => [`200 until ${reset}`, limit]);
    const passed = [...seen].filter(([at]) => at.startsWith('200'));
    assert.deepEqual(passed.sort(), expected.sort());
    assert.equal([...seen.values()].reduce((sum, count) => sum + count), mints);
  });

  test("the gateway's own page mints nothing", async () => {
    const { origin } = await serve('--requests-per-minute', '1');
    await minuteWithRoom();
    // `fetch` decides on the origin itself.
    const mint = async () => {
      const asked = request(`${origin}/demo/client_secrets`, { method: 'POST', headers: { origin } });
      const [response] = await once(asked.end(), 'response');
      return { status: response.statusCode, json: JSON.parse(await text(response)) };
    };
    assert.equal((await mint()).status, 200);
    const { status, json } = await mint();
    assert.equal(status, 429);
    rateLimited(json.error);
  });

  const text = async (stream) => (await stream.toArray()).join('');
});

describe('sessions at once', async () => {
  const client = await serve('--max-sessions', '3');
  const realtime = `${client.origin.replace('http', 'ws')}/v1/realtime`;
  const tooMany = {
    told: 'session_limit_exceeded',
    code: 4029,
    reason: /^Too many sessions/,
  };

  test('Chromium is told by a Close that there are too many, until one ends', async () => {
    const { value } = await (await ask(client, 'POST', '/v1/realtime/client_secrets')).json();
    const page = await openCustomersPage(await launch());
    const protocols = ['realtime', `openai-insecure-api-key.${value}`];
    await page.evaluate(async ([url, protocols]) => {
      const open = () => new Promise((resolve, reject) => {
        const socket = new WebSocket(url, protocols);
        socket.onmessage = ({ data }) => resolve([socket, JSON.parse(data).type]);
        socket.onclose = ({ code }) => reject(new Error(`closed with ${code}`));
      });
      globalThis.sessions = await Promise.all([open(), open(), open()]);
    }, [realtime, protocols]);
    assert.deepEqual(
      await page.evaluate(() => globalThis.sessions.map(([, type]) => type)),
      Array(3).fill('session.created'),
    );

    assertRefused(await page.evaluate(converse, { url: realtime, protocols }), tooMany);
    // The token's sessions are the key's, wherever they begin.
    const byHeader = { headers: { authorization: `Bearer ${client.key}` } };
    for (const path of ['/v1/realtime', '/v1/stream']) {
      const url = realtime.replace('/v1/realtime', path);
      const { opened, error } = await converse({ url, ...byHeader }, WebSocket);
      assert.deepEqual([opened, error], [false, 'Unexpected server response: 429']);
    }

    await page.evaluate(() => new Promise((resolve) => {
      const [[socket]] = globalThis.sessions;
      socket.onclose = resolve;
      socket.close();
    }));
    const giveUp = now() + DEADLINE / 1000;
    let events;
    do {
      ({ events } = await page.evaluate(converse, { url: realtime, protocols }));
    } while (events[0].type === 'error' && now() < giveUp);
    assert.equal(events[0].type, 'session.created');
  });
});
