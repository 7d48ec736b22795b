// A client that sends settings by itself: OpenAI's agents SDK, unmodified, in Node and in Chromium.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { holdSession } from './agents.mjs';
import { launch, openCustomersPage } from './browser.mjs';
import { key, mint, realtime } from './gateway.mjs';

const locked = { instructions: 'Speak like a pirate.', voice: 'marin', tools: ['hoist_the_flag'] };
const toLock = {
  instructions: locked.instructions,
  tools: locked.tools.map((name) => ({ type: 'function', name, parameters: { type: 'object' } })),
};
const voice = { audio: { output: { voice: locked.voice } } };

const tokens = {
  'instructions, voice and tools': { session: { ...toLock, ...voice } },
  // Not the spelling of the SDK.
  'the voice as Swaram spells it': { session: { ...toLock, voice: locked.voice } },
  'the model too': { model: 'locked-model', session: { ...toLock, ...voice } },
};

/** What no token locks: at first, and after the last update. */
const [before, afterwards] = [
  {
    modalities: ['text'],
    transcription: { model: 'whisper-1' },
    turnDetection: { type: 'server_vad', threshold: 0.25 },
  },
  {
    modalities: ['audio'],
    transcription: { model: 'gpt-transcribe' },
    turnDetection: { type: 'semantic_vad' },
  },
];
/** What the SDK sends, and contradicts the tokens with, before each response. */
const own = [
  { instructions: 'Be a parrot.', voice: 'cedar', tools: ['repeat', 'fly_away'], ...before },
  { instructions: 'Be a whale.', voice: 'ash', tools: ['dive'], ...before },
  // Tools are not sent without an agent.
  { instructions: 'Be a crab.', voice: 'coral', tools: ['dive'], ...afterwards },
];
const [first, second, last] = own;
const script = {
  model: 'model-of-the-client',
  config: configOf(before),
  agents: [{ name: 'first', ...first }, { name: 'second', ...second }],
  last: { instructions: last.instructions, voice: last.voice, ...configOf(afterwards) },
};

function configOf({ modalities, transcription, turnDetection }) {
  return { outputModalities: modalities, audio: { input: { transcription, turnDetection } } };
}

const page = await openCustomersPage(await launch(), 'agents.mjs');

for (const [name, client] of [
  ['Node', holdSession],
  ['Chromium', (options) => page.evaluate((given) => globalThis.sdk.holdSession(given), options)],
]) {
  describe(`OpenAI's agents SDK in ${name}`, () => {
    for (const [what, body] of Object.entries(tokens)) {
      test(`lives on with a token that locks ${what}`, async () => {
        const { value } = await mint(body);
        const { rounds, status } = await client({ url: realtime, credential: value, ...script });
        assert.equal(status, 'connected');
        // A locked model leaves no other to the client, for transcription neither.
        const kept = body.model ? { ...locked, model: body.model, transcription: undefined } : locked;
        assertRounds(rounds, own.map((sent) => ({ model: script.model, ...sent, ...kept })));

        const told = JSON.stringify(rounds);
        for (const { instructions, voice, tools } of own) {
          for (const text of [instructions, `"${voice}"`, ...tools]) {
            assert.ok(!told.includes(text), `${text} got through`);
          }
        }
        assert.ok(!told.includes(value), 'the token was sent back');
      });
    }

    test('gets its own settings with a secret key', async () => {
      const { rounds } = await client({ url: realtime, credential: key, ...script });
      assertRounds(rounds, own.map((sent) => ({ ...sent, model: script.model })));
    });
  });
}

/** That the session as it was last told, the response and what was said are as expected. */
function assertRounds(rounds, expected) {
  assert.equal(rounds.length, expected.length);
  for (const [i, round] of rounds.entries()) {
    const { transcription, turnDetection, ...settings } = expected[i];
    const { session } = round.findLast(({ type }) => type === 'session.updated');
    assert.deepEqual(settingsOf(session), settings);
    const { input } = session.audio;
    assert.deepEqual([input.transcription, input.turn_detection], [transcription, turnDetection]);

    const { response } = round.at(-1);
    assert.equal(response.status, 'completed');
    assert.deepEqual(settingsOf(response), settings);

    const [{ text, transcript }] = response.output[0].content;
    const { model, voice, instructions, tools } = settings;
    assert.equal(
      text ?? transcript,
      `I am ${model} and speak as ${voice}. My instructions: ${instructions}. `
        + `My tools: ${tools.join(', ')}.`,
    );
  }
}

function settingsOf({ model, instructions, voice, audio, tools, output_modalities: modalities }) {
  const names = tools.map(({ name }) => name);
  return { model, instructions, voice: audio.output.voice ?? voice, tools: names, modalities };
}
