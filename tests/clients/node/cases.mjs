// What every client must see, whichever provider it was made for: let in, or told why not.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { key, start } from './start.mjs';

// What the SDKs insist on: TLS. Nobody else has signed the gateway's certificate.
process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0';

const WRONG = 'ek_wrong';
export const MODEL = 'the-model';

/**
 * `at(origin)` is the client, unmodified:
 *   mint(credential, { seconds, model })  answers `token`, and what else the SDK makes of it
 *   bound(model)                          a token for that model alone
 *   connect(credential, model)            what the client reports of a session
 *   secret(minted, { seconds, model }), refusedToMint(error, status, code), accepted(report, token),
 *   refused(report, code)                 assert that this is what its user is to see
 *
 * `seconds` is how long the token lives that is to expire.
 */
export async function mustGetRight(name, { profile, seconds, at }) {
  const flags = ['--tls', '--profile', profile];
  const [here, elsewhere] = await Promise.all([start(...flags), start(...flags)]);
  const client = at(here.origin);
  const expiring = await client.mint(key, { seconds });
  // It expires while the other cases are tried.
  const expired = sleep(seconds * 1000 + 10);
  client.accepted(await client.connect(expiring.token, MODEL), expiring.token);

  async function connect(credential, model = MODEL) {
    const report = await client.connect(credential, model);
    const { protocol, ...told } = report;
    assert.ok(!JSON.stringify(told).includes(credential), 'the credential was sent back');
    return report;
  }

  async function refusedToMint(credential, status, code) {
    await assert.rejects(client.mint(credential, {}), (error) => {
      assert.ok(!String(error).includes(credential), 'the credential was sent back');
      client.refusedToMint(error, status, code);
      return true;
    });
  }

  describe(`${name}, --profile ${profile}`, () => {
    test('a token is minted, and accepted again and again', async () => {
      const asked = { seconds: 60, model: MODEL };
      const minted = await client.mint(key, asked);
      client.secret(minted, asked);
      for (let i = 0; i < 3; i += 1) client.accepted(await connect(minted.token), minted.token);
    });

    test('a bad key is refused', async () => {
      client.refused(await connect(WRONG), 'invalid_api_key');
      await refusedToMint(WRONG, 401, 'invalid_api_key');
    });

    test('a token of another server is refused', async () => {
      const foreign = at(elsewhere.origin);
      const { token } = await foreign.mint(key, { seconds: 60 });
      foreign.accepted(await foreign.connect(token, MODEL), token);
      client.refused(await connect(token), 'invalid_api_key');
      await refusedToMint(token, 401, 'invalid_api_key');
    });

    test('a token does not mint', async () => {
      const { token } = await client.mint(key, { seconds: 60 });
      await refusedToMint(token, 403, 'insufficient_scope');
    });

    test('a token opens its own model only', async () => {
      const token = await client.bound(MODEL);
      client.accepted(await connect(token), token);
      client.refused(await connect(token, 'another-model'), 'model_not_allowed');
    });

    test('a token is refused once it has expired', async () => {
      await expired;
      client.refused(await connect(expiring.token), 'invalid_api_key');
      await refusedToMint(expiring.token, 401, 'invalid_api_key');
    });
  });
}
