// A backend that mints: Node's own `fetch`.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { key, mint, post } from './gateway.mjs';

const bearer = (credential) => ({ authorization: `Bearer ${credential}` });

for (const [what, body, lifetime, session] of [
  ['no body', undefined, 60, {}],
  ['an empty object', {}, 60, {}],
  ['the shortest lifetime', { expires_after: { seconds: 1 } }, 1, {}],
  ['the longest lifetime', { expires_after: { seconds: 7200 } }, 7200, {}],
  [
    "OpenAI's body",
    {
      expires_after: { anchor: 'created_at', seconds: 600 },
      session: { type: 'realtime', audio: { output: { voice: 'marin' } } },
    },
    600,
    { audio: { output: { voice: 'marin' } } },
  ],
  ["xAI's body", { expires_after: { seconds: 300 } }, 300, {}],
  [
    "Swaram's body",
    { model: 'swara-1', session: { instructions: 'Be kind.', voice: 'asha' } },
    60,
    { model: 'swara-1', instructions: 'Be kind.', voice: 'asha' },
  ],
]) {
  test(`${what} mints a token`, async () => {
    const before = Date.now() / 1000;
    const { status, headers, json } = await post(body);
    const after = Date.now() / 1000;
    assert.equal(status, 200);
    assert.equal(headers.get('cache-control'), 'no-store');
    assert.deepEqual(Object.keys(json).sort(), ['expires_at', 'session', 'value']);
    assert.match(json.value, /^ek_[0-9A-Za-z_]+$/);
    assert.ok(Number.isInteger(json.expires_at), `${json.expires_at}`);
    const [earliest, latest] = [before + lifetime, Math.ceil(after + lifetime)];
    assert.ok(json.expires_at >= earliest && json.expires_at <= latest, `${json.expires_at}`);
    const effective = { type: 'realtime', object: 'realtime.session', ...session };
    assert.deepEqual(json.session, effective);
  });
}

for (const [what, credential, status, code] of [
  ['a bad key', () => 'sk_test_wrong', 401, 'invalid_api_key'],
  ['a token', async () => (await mint()).value, 403, 'insufficient_scope'],
  ['a key cut short', () => key.slice(0, -1), 401, 'invalid_api_key'],
]) {
  test(`${what} does not mint`, async () => {
    const text = await credential();
    const { json, ...answer } = await post({}, bearer(text));
    assert.deepEqual([answer.status, json.error.code], [status, code]);
    assert.match(answer.headers.get('www-authenticate'), /^Bearer realm=/);
    assert.ok(!JSON.stringify(json).includes(text), 'the answer repeats the credential');
  });
}

test('without a credential nothing is minted', async () => {
  const { status, json } = await post({}, {});
  assert.deepEqual([status, json.error.code], [401, 'missing_api_key']);
});

for (const [body, param] of [
  [{ expires_after: { seconds: 0 } }, 'expires_after.seconds'],
  [{ expires_after: { seconds: 7201 } }, 'expires_after.seconds'],
  [{ expires_after: { seconds: -60 } }, 'expires_after.seconds'],
  [{ expires_after: { seconds: 1.5 } }, 'expires_after.seconds'],
  [{ expires_after: { seconds: '60' } }, 'expires_after.seconds'],
  [{ expires_after: { seconds: null } }, 'expires_after.seconds'],
  [{ expires_after: { anchor: 'created_at' } }, 'expires_after.seconds'],
  [{ expires_after: { anchor: 'now', seconds: 60 } }, 'expires_after.anchor'],
  [{ expires_after: { seconds: 60, minutes: 1 } }, 'expires_after.minutes'],
  [{ expires_after: 60 }, 'expires_after'],
  [{ session: 'marin' }, 'session'],
  [{ session: [] }, 'session'],
  [{ session: { voice: 7 } }, 'session.voice'],
  [{ session: { instructions: null } }, 'session.instructions'],
  [{ session: { audio: { output: { voice: [] } } } }, 'session.audio.output.voice'],
  [{ session: { type: 'video' } }, 'session.type'],
  [{ model: '' }, 'model'],
  [{ model: 'one', session: { model: 'other' } }, 'model'],
  ['{"model": "one", "model": "other"}', 'model'],
]) {
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  test(`${text} is refused, and names ${param}`, async () => {
    const { status, json } = await post(text);
    assert.deepEqual([status, json.error.param], [400, param]);
    assert.ok(json.error.message.includes(param), json.error.message);
  });
}

for (const text of ['{', 'null', '[]', '"60"', '{"model": "\\ud800"}', '['.repeat(10_000)]) {
  test(`${text.slice(0, 20)} is no JSON object and is refused`, async () => {
    const { status, json } = await post(text);
    assert.deepEqual([status, json.error.code, json.error.param], [400, 'invalid_json', null]);
  });
}
