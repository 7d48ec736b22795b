// OpenAI's own SDK, unmodified, told only where to go: its class for servers in Node, which sends a
// header, and its class for pages in Chromium, which offers subprotocols.

import assert from 'node:assert/strict';

import OpenAI, { APIError } from 'openai';
import { OpenAIRealtimeWS } from 'openai/realtime/ws';

import { launch, openCustomersPage } from './browser.mjs';
import { MODEL, mustGetRight } from './cases.mjs';
import { report } from './openai.mjs';
import { key } from './start.mjs';

const messages = {
  invalid_api_key: 'The API key is unknown, expired, revoked or used up.',
  model_not_allowed: 'The API key does not allow this model. Name, once, one that it allows.',
};
/** What the SDK for servers is answered, and how the socket of the one for pages is closed. */
const statuses = { invalid_api_key: 401, model_not_allowed: 403 };
const closes = {
  openai: {
    invalid_api_key: [3000, 'invalid_request_error.invalid_api_key'],
    model_not_allowed: [3000, 'invalid_request_error.invalid_model'],
  },
  any: {
    invalid_api_key: [4001, 'Unauthorized: invalid or expired API key'],
    model_not_allowed: [4003, 'Forbidden: the API key does not allow this model'],
  },
};

const page = await openCustomersPage(await launch('--ignore-certificate-errors'), 'openai.mjs');

/** The SDK in Node. */
const inNode = (origin) => {
  const sdk = (apiKey) => new OpenAI({ apiKey, baseURL: `${origin}/v1`, maxRetries: 0 });
  async function mint(credential, { seconds, model }) {
    const { value, ...rest } = await sdk(credential).realtime.clientSecrets.create({
      ...(seconds && { expires_after: { anchor: 'created_at', seconds } }),
      session: { type: 'realtime', ...(model && { model }) },
    });
    return { token: value, ...rest };
  }
  return {
    mint,
    bound: async (model) => (await mint(key, { seconds: 60, model })).token,
    connect: (apiKey, model) => report(new OpenAIRealtimeWS({ model }, sdk(apiKey))),

    secret({ token, expires_at: expiresAt, session, ...rest }, { seconds, model }) {
      assert.match(token, /^ek_\w+$/);
      assert.ok(Number.isInteger(expiresAt), `${expiresAt}`);
      const left = expiresAt - Date.now() / 1000;
      assert.ok(left > seconds - 10 && left <= seconds + 1, `${left}`);
      assert.deepEqual(session, { type: 'realtime', object: 'realtime.session', model });
      assert.deepEqual(rest, {});
    },

    refusedToMint(error, status, code) {
      assert.ok(error instanceof APIError, String(error));
      const { type, param, message, error: body } = error;
      assert.deepEqual(
        { status: error.status, type, code: error.code, param },
        { status, type: 'invalid_request_error', code, param: null },
      );
      assert.equal(message, `${status} ${body.message}`);
    },

    accepted({ session, ...rest }) {
      assert.deepEqual(rest, {
        events: ['session.created'], errors: [], protocol: '', code: 1000, reason: 'OK',
      });
      assert.equal(session.model, MODEL);
      assert.match(session.id, /^sess_/);
    },

    // It can read a status, so it gets one; the 1006 is its own.
    refused(told, code) {
      const message = `Unexpected server response: ${statuses[code]}`;
      const error = { name: 'OpenAIRealtimeError', message, error: undefined, event_id: undefined };
      assert.deepEqual(told, {
        events: [], errors: [error], protocol: '', code: 1006, reason: '',
      });
    },
  };
};

/** The SDK in a page; its backend is the same. */
const inPage = (profile) => (origin) => {
  const backend = inNode(origin);
  return {
    ...backend,

    connect(apiKey, model) {
      const options = { apiKey, baseURL: `${origin}/v1`, model };
      return page.evaluate((given) => globalThis.sdk.connect(given), options);
    },

    accepted({ protocol, ...told }) {
      assert.equal(protocol, 'realtime');
      backend.accepted({ ...told, protocol: '' });
    },

    refused(told, code) {
      const [closeCode, reason] = closes[profile][code];
      const message = messages[code];
      const type = 'invalid_request_error';
      assert.deepEqual(told, {
        events: ['error'],
        errors: [{
          name: 'OpenAIRealtimeError',
          message: `${message} code=${code} param=null type=${type} event_id=undefined`,
          error: { type, code, message, param: null },
          event_id: 'event_refused',
        }],
        protocol: 'realtime',
        code: closeCode,
        reason,
      });
    },
  };
};

// OpenAI's tokens live 10 seconds at least.
for (const [profile, seconds] of [['openai', 10], ['any', 2]]) {
  await mustGetRight("OpenAI's SDK in Node", { profile, seconds, at: inNode });
  await mustGetRight("OpenAI's SDK in Chromium", { profile, seconds, at: inPage(profile) });
}
