// Starts one gateway for the test file that imports this, and mints its tokens.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { after } from 'node:test';
import { fileURLToPath } from 'node:url';

const DEADLINE = 10_000;
const binary = process.env.GATEWAY
  ?? fileURLToPath(new URL('../../../target/debug/examples/gateway', import.meta.url));

/** A secret key, which may mint. */
export const key = `sk_test_${randomBytes(12).toString('hex')}`;

const child = spawn(binary, ['--listen', '127.0.0.1:0', '--key', key], {
  // Its log would drown the report; RUST_LOG=debug brings it back.
  env: { RUST_LOG: 'error', ...process.env },
  stdio: ['ignore', 'pipe', 'inherit'],
});
// However this process ends, the gateway does not outlive it.
process.once('exit', () => child.kill('SIGKILL'));
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(1));

// Rejects if it could not be started at all.
const ended = once(child, 'exit');
const [line] = await Promise.race([
  once(createInterface(child.stdout), 'line', { signal: AbortSignal.timeout(DEADLINE) }),
  ended.then(([code]) => assert.fail(`the gateway ended with ${code} before it listened`)),
]);
const [, host] = line.match(/^listening on http:\/\/(\S+)$/) ?? assert.fail(line);

after(async () => {
  child.kill('SIGTERM');
  const impatience = setTimeout(() => child.kill('SIGKILL'), DEADLINE);
  const [, signal] = await ended;
  clearTimeout(impatience);
  assert.notEqual(signal, 'SIGKILL', 'the gateway did not end when it was told to');
});

/** Where sessions are opened. */
export const realtime = `ws://${host}/v1/realtime`;

/** Asks for a token as a backend does: with Node's own `fetch`. */
export async function post(body, headers = { authorization: `Bearer ${key}` }) {
  const response = await fetch(`http://${host}/v1/realtime/client_secrets`, {
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
