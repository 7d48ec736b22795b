// What the gateway shows in the terminal works as it stands there, by every profile.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { promisify } from 'node:util';

import WebSocket from 'ws';

import { converse } from './converse.mjs';
import { startWithoutKey } from './start.mjs';

for (const profile of ['any', 'openai', 'xai', 'decart', 'swaram']) {
  test(`--profile ${profile}: the commands that are shown mint a token and connect`, async () => {
    // xAI's tokens lock nothing.
    const locked = profile === 'xai' ? undefined : { output: { voice: 'marin' } };
    const { shown } = await startWithoutKey('--profile', profile);
    const text = await shown('Open ');
    const [curl] = text.match(/^ {4}curl [^]*?'\n\n/m);
    const { stdout } = await promisify(execFile)('sh', ['-c', curl.replace('curl', 'curl -sS')]);
    const { value, session } = JSON.parse(stdout);
    assert.deepEqual(session.audio, locked);

    const [, code] = text.match(/^ {4}const socket = new WebSocket\(([^]*?)\);\n/m);
    const [url, protocols] = new Function('TOKEN', `return [${code}]`)(value);
    const { events, error } = await converse({ url, protocols }, WebSocket);
    assert.deepEqual([events[0]?.type, error], ['session.created', undefined]);
    assert.deepEqual(events[0].session.audio, locked);
  });
}

test('--profile svara: no browser connects, and none is told to', async () => {
  const { shown } = await startWithoutKey('--profile', 'svara');
  const text = await shown('Open ');
  assert.match(text, /in a header, which no browser can/);
  assert.doesNotMatch(text, /WebSocket\(/);
});

test('a plan is shown, if there is one', async () => {
  const flags = ['--requests-per-minute', '500', '--max-sessions', '3'];
  for (const [plan, expected] of [[flags, ['500 requests a minute, 3 sessions at once']], [[], []]]) {
    const { shown } = await startWithoutKey(...plan);
    const said = [...(await shown('Open ')).matchAll(/^Its plan: (.*)\.$/gm)];
    assert.deepEqual(said.map(([, limits]) => limits), expected);
  }
});
