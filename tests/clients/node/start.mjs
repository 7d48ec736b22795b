// Starts gateways for the test file that imports this, and ends them with it.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { after } from 'node:test';
import { fileURLToPath } from 'node:url';

const DEADLINE = 10_000;
// What a gateway promises, sessions and all.
const STOP_DEADLINE = 5_000;
const binary = process.env.GATEWAY
  ?? fileURLToPath(new URL('../../../target/debug/examples/gateway', import.meta.url));

/** A secret key, which may mint. */
export const key = `sk_test_${randomBytes(12).toString('hex')}`;

// An interrupted test file ends as others do, so that its gateways end too.
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(1));

/** Starts a gateway with these flags; answers at which origin it listens, and how to stop it. */
export const start = (...flags) => startWithoutKey('--key', key, ...flags);

/** The same, but the gateway makes a key of its own, and shows it with what to try. */
export async function startWithoutKey(...flags) {
  const listen = flags.includes('--listen') ? [] : ['--listen', '127.0.0.1:0'];
  // Keys of its own, unless the test says otherwise.
  const store = flags.includes('--store') ? [] : ['--store', 'memory'];
  const child = spawn(binary, [...listen, ...store, ...flags], {
    // Its log would drown the report; RUST_LOG=debug brings it back.
    env: { RUST_LOG: 'error', ...process.env },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  // However this process ends, the gateway does not outlive it.
  process.once('exit', () => child.kill('SIGKILL'));

  // Rejects if it could not be started at all.
  const ended = once(child, 'exit');
  const reader = createInterface(child.stdout);
  const lines = [];
  reader.on('line', (line) => lines.push(line));
  const next = () => once(reader, 'line', { signal: AbortSignal.timeout(DEADLINE) });
  const [line] = await Promise.race([
    next(),
    ended.then(([code]) => assert.fail(`the gateway ended with ${code} before it listened`)),
  ]);
  const [, origin] = line.match(/^listening on (https?:\/\/\S+)$/) ?? assert.fail(line);

  /** Tells it to stop, and waits until it has; answers its status. */
  const stop = async () => {
    child.kill('SIGTERM');
    const impatience = setTimeout(() => child.kill('SIGKILL'), STOP_DEADLINE);
    const [status, signal] = await ended;
    clearTimeout(impatience);
    assert.notEqual(signal, 'SIGKILL', 'the gateway did not end in time');
    return status;
  };
  after(stop);

  /** What it shows, up to a line that begins with this. */
  const shown = async (last) => {
    while (!lines.some((shown) => shown.startsWith(last))) await next();
    return lines.join('\n');
  };
  return { origin, stop, shown };
}
