// What must hold for every client that presents its credential in a subprotocol or in the query.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { key, mint, realtime } from './gateway.mjs';

const REPEATS = 10;

/** Where a credential can stand, and the subprotocol that the client must then see selected. */
const places = {
  "OpenAI's subprotocols": (credential) => ({
    protocols: ['realtime', `openai-insecure-api-key.${credential}`],
    selected: 'realtime',
  }),
  // Offers nothing else, and a browser fails if nothing is selected.
  "xAI's subprotocol": (credential) => ({
    protocols: [`xai-client-secret.${credential}`],
    selected: `xai-client-secret.${credential}`,
  }),
  'the query': (credential) => ({ query: { api_key: credential }, selected: '' }),
};
const [anyPlace] = Object.keys(places);

const locked = { instructions: 'Speak like a pirate.', voice: 'marin' };
const lockedByPath = { instructions: locked.instructions, audio: { output: { voice: 'marin' } } };

/** What a token sets, what its holder then tries, and what gets through of that. */
const attempts = [
  {
    sets: locked,
    tries: { voice: 'cedar', temperature: 0.5 },
    through: { temperature: 0.5 },
  },
  {
    sets: locked,
    tries: { instructions: 'cedar', temperature: 0.5 },
    through: { temperature: 0.5 },
  },
  {
    sets: locked,
    tries: { audio: { output: { voice: 'cedar', speed: 1.5 } } },
    through: { audio: { output: { speed: 1.5 } } },
  },
  {
    sets: lockedByPath,
    tries: { voice: 'cedar', temperature: 0.5 },
    through: { temperature: 0.5 },
  },
  {
    sets: lockedByPath,
    tries: { audio: { output: { voice: 'cedar', speed: 1.5 } } },
    through: { audio: { output: { voice: 'marin', speed: 1.5 } } },
  },
];

/** `client` is `converse`, held by the client of that name. */
export function mustHoldFor(name, client) {
  async function visit(place, credential, { model, ...script } = {}) {
    const { query, protocols, selected } = places[place](credential);
    const url = new URL(realtime);
    url.search = new URLSearchParams({ ...query, ...(model && { model }) });
    const report = await client({ url: url.href, protocols, ...script });
    const told = JSON.stringify([report.events, report.reason]);
    assert.ok(!told.includes(credential), `the credential was sent back: ${told}`);
    return { selected, ...report };
  }

  for (const place of Object.keys(places)) {
    describe(`${name}, ${place}`, () => {
      test(`a token and a secret key are accepted, ${REPEATS} times`, async () => {
        const { value } = await mint();
        for (let i = 0; i < REPEATS; i += 1) assertAccepted(await visit(place, i % 2 ? key : value));
      });

      test(`a bad key is refused, ${REPEATS} times`, async () => {
        for (let i = 0; i < REPEATS; i += 1) assertRefused(await visit(place, `sk_test_wrong${i}`));
      });

      test('a token is refused once it has expired', async () => {
        const { value } = await mint({ expires_after: { seconds: 2 } });
        const expired = sleep(2_010);
        assertAccepted(await visit(place, value));
        await expired;
        assertRefused(await visit(place, value));
      });

      test('a token opens its own model only', async () => {
        const { value } = await mint({ model: 'one' });
        assertAccepted(await visit(place, value));
        assertAccepted(await visit(place, value, { model: 'one' }));
        assertRefused(await visit(place, value, { model: 'other' }), {
          told: 'model_not_allowed',
          code: 4003,
          reason: /^Forbidden: .*model/,
        });
      });
    });
  }

  describe(`${name}, a lock`, () => {
    for (const { sets, tries, through } of attempts) {
      test(`${JSON.stringify(sets)} is kept from ${JSON.stringify(tries)}`, async () => {
        const { value, session } = await mint({ session: sets });
        assertContains(session, sets);
        const { events } = await visit(anyPlace, value, trying(tries));
        const [created, updated, begun] = events;
        assertContains(created.session, sets);
        assertContains(updated.session, { ...sets, ...through });
        assertContains(begun.response, locked);
        assertContains(events.at(-1).response, locked);
        assert.doesNotMatch(JSON.stringify(events), /cedar/);
      });
    }

    test('is what keeps them: without one they get through', async () => {
      const { value } = await mint();
      const [{ tries }] = attempts;
      const { events } = await visit(anyPlace, value, trying(tries));
      assertContains(events[1].session, tries);
      assertContains(events.at(-1).response, { voice: 'cedar', instructions: 'cedar' });
    });
  });
}

/** Tries to change the session, and then a single response. */
function trying(settings) {
  return {
    answers: {
      'session.created': { type: 'session.update', session: settings },
      'session.updated': {
        type: 'response.create',
        // The speed is there because a voice can also be swept away with the object it stands in.
        response: { voice: 'cedar', instructions: 'cedar', audio: { output: { speed: 1.5 } } },
      },
    },
    until: 'response.done',
  };
}

/** A client that may talk is shown a session, and can end it properly. */
export function assertAccepted({ opened, protocol, events, code, wasClean, error, selected = '' }) {
  assert.deepEqual(
    { opened, protocol, told: events.map(({ type }) => type), code, wasClean, error },
    {
      opened: true,
      protocol: selected,
      told: ['session.created'],
      code: 1000,
      wasClean: true,
      error: undefined,
    },
  );
}

/** A client that may not is told why in both ways: an error event, then the Close. */
export function assertRefused(
  { opened, events, code, reason, wasClean },
  expected = { told: 'invalid_api_key', code: 4001, reason: /^Unauthorized/ },
) {
  assert.deepEqual(
    { opened, told: events.map(({ type, error }) => [type, error?.code]), code, wasClean },
    { opened: true, told: [['error', expected.told]], code: expected.code, wasClean: true },
  );
  assert.match(reason, expected.reason);
}

/** That `actual` has everything that `expected` has, at any depth. */
function assertContains(actual, expected) {
  const isObject = (value) => value instanceof Object;
  const common = (a, b) =>
    Object.fromEntries(
      Object.entries(b).map(([name, value]) => [
        name,
        isObject(value) && isObject(a?.[name]) ? common(a[name], value) : a?.[name],
      ]),
    );
  assert.deepEqual(common(actual, expected), expected);
}
