// One gateway for the test file that imports this, and its tokens.

import assert from 'node:assert/strict';

import { key, start } from './start.mjs';

export { key };

const DEADLINE = 10_000;
const { origin } = await start();

/** Where sessions are opened. */
export const realtime = `${origin.replace('http', 'ws')}/v1/realtime`;

/** Asks for a token as a backend does: with Node's own `fetch`. */
export async function post(body, headers = { authorization: `Bearer ${key}` }) {
  const response = await fetch(`${origin}/v1/realtime/client_secrets`, {
    method: 'POST',
    headers,
    body: typeof body === 'object' ? JSON.stringify(body) : body,
    signal: AbortSignal.timeout(DEADLINE),
  });
  return { status: response.status, headers: response.headers, json: await response.json() };
}

/** Mints a token and answers what it is. */
export async function mint(body = {}) {
  const { status, json } = await post(body);
  assert.equal(status, 200, JSON.stringify(json));
  return json;
}
