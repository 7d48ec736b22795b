// The client that most of Node uses: `ws` from npm.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import WebSocket from 'ws';

import { converse } from './converse.mjs';
import { assertAccepted, mustHoldFor } from './every-client.mjs';
import { key, mint, realtime } from './gateway.mjs';

const client = (options) => converse(options, WebSocket);
const bearer = (credential) => ({ authorization: `Bearer ${credential}` });

mustHoldFor('ws', client);

describe('ws, the header', () => {
  test('a secret key and a token are accepted', async () => {
    const { value } = await mint();
    for (const headers of [bearer(key), bearer(value)]) {
      assertAccepted(await client({ url: realtime, headers }));
      const protocols = ['realtime'];
      const report = await client({ url: realtime, headers, protocols });
      assertAccepted({ ...report, selected: 'realtime' });
    }
  });

  // This client can read a status, so it gets one; the 1006 is its own.
  for (const [what, url, headers] of [
    ['a bad key', realtime, bearer('sk_test_wrong')],
    ['no key', realtime, {}],
    ['a bad key with a good one in the query', `${realtime}?api_key=${key}`, bearer('sk_test_wrong')],
  ]) {
    test(`${what} is answered by a status`, async () => {
      const { opened, error, code } = await client({ url, headers });
      assert.deepEqual(
        { opened, error, code },
        { opened: false, error: 'Unexpected server response: 401', code: 1006 },
      );
    });
  }
});
