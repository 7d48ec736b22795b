// xAI's clients: the AI SDK's realtime model in Node, and in a page the browser's own WebSocket, as
// xAI's documentation has it. Both offer the token as their only subprotocol.

import assert from 'node:assert/strict';

import { createXai } from '@ai-sdk/xai';
import WebSocket from 'ws';

import { launch, openCustomersPage } from './browser.mjs';
import { mustGetRight } from './cases.mjs';
import { converse } from './converse.mjs';
import { key } from './start.mjs';

const DEADLINE = 10_000;
const UNAUTHORIZED = [4001, 'Unauthorized: invalid or expired API key'];
const refusals = {
  invalid_api_key: [...UNAUTHORIZED, 'The API key is unknown, expired, revoked or used up.'],
  model_not_allowed: [
    4003,
    'Forbidden: the API key does not allow this model',
    'The API key does not allow this model. Name, once, one that it allows.',
  ],
};

const page = await openCustomersPage(await launch('--ignore-certificate-errors'));

const inNode = (origin) => {
  const xai = (apiKey) => createXai({ apiKey, baseURL: `${origin}/v1` }).experimental_realtime;
  return {
    mint: (credential, { seconds, model = 'grok' }) =>
      xai(credential).getToken({ model, expiresAfterSeconds: seconds }),

    // xAI's body names no model: it is the key that is bound. The gateway binds one in Decart's shape.
    async bound(model) {
      const response = await fetch(`${origin}/v1/client/tokens`, {
        method: 'POST',
        headers: { 'x-api-key': key },
        body: JSON.stringify({ allowedModels: [model] }),
        signal: AbortSignal.timeout(DEADLINE),
      });
      return (await response.json()).apiKey;
    },

    async connect(credential, modelId) {
      const model = xai(key)(modelId);
      const url = `${origin.replace('http', 'ws')}/v1/realtime?model=${modelId}`;
      const report = await converse(model.getWebSocketConfig({ token: credential, url }), WebSocket);
      const events = report.events.map((event) => {
        const { raw, ...understood } = model.parseServerEvent(event);
        return understood;
      });
      return { ...report, events };
    },

    secret({ token, url, expiresAt }, { seconds, model }) {
      assert.match(token, /^ek_\w+$/);
      assert.equal(url, `${origin.replace('http', 'ws')}/v1/realtime?model=${model}`);
      assertExpiry(expiresAt, seconds);
    },

    refusedToMint({ message }, status, code) {
      const said = message.match(/^xAI realtime client secret request failed: (\d+) (\{.*\})$/);
      assert.ok(said, message);
      assert.equal(Number(said[1]), status);
      assertError(JSON.parse(said[2]).error, code);
    },

    accepted({ opened, protocol, events, code, error }, token) {
      const [{ type, sessionId }] = events;
      assert.deepEqual(
        { opened, protocol, events: [type], code, error },
        {
          opened: true,
          protocol: `xai-client-secret.${token}`,
          events: ['session-created'],
          code: 1000,
          error: undefined,
        },
      );
      assert.match(sessionId, /^sess_/);
    },

    refused({ opened, events, code, reason }, expected) {
      const [closeCode, closeReason, message] = refusals[expected];
      assert.deepEqual(
        { opened, events, code, reason },
        {
          opened: true,
          events: [{ type: 'error', message, code: expected }],
          code: closeCode,
          reason: closeReason,
        },
      );
    },
  };
};

/** Its backend is the same. */
const inPage = (origin) => {
  const client = inNode(origin);
  return {
    ...client,

    async connect(credential, model) {
      const url = `${origin.replace('http', 'ws')}/v1/realtime?model=${model}`;
      const protocols = [`xai-client-secret.${credential}`];
      return page.evaluate(converse, { url, protocols });
    },

    accepted: ({ events: [{ type, session }], ...report }, token) =>
      client.accepted(
        {
          ...report,
          events: [{ type: type.replace('.', '-'), sessionId: session.id }],
        },
        token,
      ),

    refused: ({ events: [{ type, error }], ...report }, code) => {
      assertError(error, code);
      client.refused(
        { ...report, events: [{ type, message: error.message, code: error.code }] },
        code,
      );
    },
  };
};

for (const profile of ['xai', 'any']) {
  await mustGetRight('xAI by the AI SDK in Node', { profile, seconds: 2, at: inNode });
  await mustGetRight('xAI by plain WebSocket in Chromium', { profile, seconds: 2, at: inPage });
}

function assertExpiry(expiresAt, seconds) {
  assert.ok(Number.isInteger(expiresAt), `${expiresAt}`);
  const left = expiresAt - Date.now() / 1000;
  assert.ok(left > seconds - 10 && left <= seconds + 1, `${left}`);
}

function assertError(error, code) {
  const { message, ...rest } = error;
  assert.deepEqual(rest, { type: 'invalid_request_error', code, param: null });
  assert.equal(typeof message, 'string');
}
