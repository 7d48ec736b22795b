// T16: whoever sends half a request head, or none, is left.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { test } from 'node:test';

import { realtime } from './gateway.mjs';

const { hostname, port } = new URL(realtime);

// Time itself is tested: the gateway gives a head 10 seconds.
for (const [what, sent] of [
  ['nothing', ''],
  ['half a request line', 'GET /v1/rea'],
  ['half a head', 'GET /v1/realtime HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer'],
]) {
  test(`a peer that sends ${what} is left`, { timeout: 30_000, concurrency: true }, async () => {
    const socket = connect(Number(port), hostname);
    await once(socket, 'connect');
    const begun = Date.now();
    socket.write(sent);
    socket.resume();
    await once(socket, 'close');
    assert.ok(Date.now() - begun >= 5_000, 'it had time to send the rest');
  });
}
