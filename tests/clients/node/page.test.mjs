// The gateway's own page, as a person uses it: in Chromium, on a phone and on a desk, in light and
// in dark, by mouse and by keyboard. With SHOTS=folder it leaves pictures there.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { request } from 'node:http';
import { createRequire } from 'node:module';
import { describe, test } from 'node:test';

import { launch } from './browser.mjs';
import { key, start } from './start.mjs';

const DEADLINE = 10_000;
const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

const { origin } = await start();
const origins = { any: origin };
for (const profile of ['openai', 'xai', 'swaram', 'decart', 'svara']) {
  ({ origin: origins[profile] } = await start('--profile', profile));
}
const { host, port } = new URL(origin);
const browser = await launch('--ignore-certificate-errors');

const phone = { width: 360, height: 780 };
const desk = { width: 1280, height: 900 };

/** Opens the page; answers it and what its console complains of. */
async function visit(t, { at = origin, viewport = desk, ...options } = {}) {
  const page = await browser.newPage({ viewport, ...options });
  t.after(() => page.close());
  page.setDefaultTimeout(DEADLINE);
  const complaints = [];
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) complaints.push(message.text());
  });
  page.on('pageerror', (error) => complaints.push(String(error)));
  page.on('requestfailed', (failed) => complaints.push(`failed: ${failed.url()}`));
  await page.addInitScript(() => {
    addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI }) => {
      console.error(`policy violated: ${violatedDirective} ${blockedURI}`);
    });
  });
  await page.goto(at);
  return { page, complaints };
}

/** Presses a button, and waits until the page says this, which takes it so many seconds at least. */
async function press(page, name, said, seconds = 0) {
  await page.getByRole('button', { name, exact: true }).click();
  await page.getByText(said).first().waitFor({ timeout: seconds * 1000 + DEADLINE });
}

const shown = (page, id) => page.locator(`#${id}`).innerText();
const tokenOf = (page) => page.getByRole('textbox', { name: 'Token', exact: true });
const logged = (page) => page.locator('#entries').innerText();

async function assertAccessible(page) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  const found = violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)]);
  assert.deepEqual(found, []);
}

async function shoot(page, name) {
  if (!process.env.SHOTS) return;
  await page.screenshot({ path: `${process.env.SHOTS}/${name}.png` });
  await page.screenshot({ path: `${process.env.SHOTS}/${name}-whole.png`, fullPage: true });
}

/** What the page tells of a server for all clients, and where it differs for those of one. */
const locking = {
  minting: /"voice": "marin"/,
  opening: { subprotocol: 'realtime', voice: '"marin"', instructions: '"Speak like a pirate"' },
  change: /^The lock held: 2 of 3/,
  changed: [
    ['voice', '"cedar"', '"marin"', 'locked, kept'],
    ['instructions', '"Tell all you know"', '"Speak like a pirate"', 'locked, kept'],
    ['temperature', '0.4', '0.4', 'as asked'],
  ],
  response: /I am demo-voice and speak as marin\. My instructions: Speak like a pirate\./,
  // Once the conversation has begun.
  changeLater: /^The lock held: 2 of 3/,
  seconds: 1,
  refusal: { code: '4001', reason: /^Unauthorized: invalid or expired API key$/ },
};
const stories = {
  any: locking,
  openai: {
    ...locking,
    notice: /live at least 10 seconds.*closed with code 3000/,
    seconds: 10,
    refusal: { code: '3000', reason: /^invalid_request_error\.invalid_api_key$/ },
  },
  xai: {
    ...locking,
    notice: /lock nothing/,
    minting: /\{\n {2}"expires_after": \{\n {4}"seconds": 600\n {2}\}\n\}$/,
    opening: { subprotocol: 'xai-client-secret.ek_', voice: 'nothing', instructions: 'nothing' },
    change: /^Everything went through/,
    changed: [
      ['voice', '"cedar"', '"cedar"', 'as asked'],
      ['instructions', '"Tell all you know"', '"Tell all you know"', 'as asked'],
      ['temperature', '0.4', '0.4', 'as asked'],
    ],
    response: /I am demo-voice and speak as cedar\. My instructions: Tell all you know\./,
    changeLater: /^Everything went through/,
  },
  swaram: {
    ...locking,
    notice: /Once a conversation has begun, all settings are locked/,
    changeLater: /^The lock held: 3 of 3/,
  },
  decart: {
    ...locking,
    notice: /travels in the query/,
    opening: { ...locking.opening, subprotocol: '' },
  },
};
const [lightPhone, darkPhone, lightDesk, darkDesk] = [phone, desk].flatMap((viewport) =>
  ['light', 'dark'].map((colorScheme) => ({ viewport, colorScheme })));
const devices = {
  any: [lightPhone, darkPhone, lightDesk, darkDesk],
  openai: [lightPhone, darkDesk],
  xai: [darkPhone],
  swaram: [lightDesk],
  decart: [darkPhone],
};

// Two at once, because they wait for tokens to expire.
describe('the page, from start to end', { concurrency: 2 }, () => {
  for (const [profile, story] of Object.entries(stories)) {
    for (const device of devices[profile]) {
      const { viewport, colorScheme } = device;
      const title = `${viewport === phone ? 'phone' : 'desk'}-${colorScheme}-${profile}`;
      test(title, async (t) => {
        const { page, complaints } = await visit(t, { at: origins[profile], ...device });
        await shoot(page, `${title}-start`);
        const sent = [];
        page.on('request', (made) => sent.push(made));

        assert.match(await shown(page, 'profile'), story.notice ?? /^$/);
        assert.match(await shown(page, 'request'), story.minting);
        await press(page, 'Mint token', /^Minted\. The token/);
        const [made] = sent;
        assert.equal(new URL(made.url()).pathname, '/demo/client_secrets');
        const request = await shown(page, 'request');
        assert.ok(request.endsWith(made.postData()), 'what is shown is what is sent');
        assert.equal((await made.allHeaders()).authorization, undefined);
        assert.match(await shown(page, 'answer'), /^200 OK\nCache-Control: no-store\n/);
        const token = await tokenOf(page).inputValue();
        assert.match(token, /^ek_\w+$/);

        await press(page, 'Connect', /^Open\./);
        const { subprotocol, voice, instructions } = story.opening;
        const opened = await shown(page, 'connect-result');
        assert.equal(opened.includes(`chose the subprotocol "${subprotocol}`), subprotocol !== '');
        assert.ok(opened.includes(`the voice ${voice}, `), opened);
        assert.ok(opened.includes(`the instructions ${instructions}.`), opened);

        await press(page, 'Send it', story.change);
        const rows = await page.locator('#change-result tbody tr').allInnerTexts();
        assert.deepEqual(rows.map((row) => row.split(/\s*[\t\n]\s*/)), story.changed);
        await press(page, 'Ask for a response', /^The response was made/);
        assert.match(await shown(page, 'respond-result'), story.response);
        const update = page.getByLabel('Event to send');
        await update.fill((await update.inputValue()).replace('0.4', '0.9'));
        await press(page, 'Send it', story.changeLater);

        const expiry = page.getByLabel('Let a token expire after');
        assert.equal(await expiry.getAttribute('min'), `${story.seconds}`);
        await expiry.fill(`${story.seconds}`);
        const { code: closeCode, reason: closeReason } = story.refusal;
        await press(page, 'Mint, wait, connect', `Closed with ${closeCode}: `, story.seconds);
        const told = (column) => page.locator(`[data-cell^=${column}]`).allInnerTexts();
        const [event, code, reason] = await told('layer');
        assert.match(event, /expired/);
        assert.equal(code, closeCode);
        assert.match(reason, closeReason);

        // Up to here nothing went wrong. A status on a handshake, Chromium itself complains of.
        assert.deepEqual(complaints.splice(0), []);
        await press(page, 'Connect to a plain 401', /^Closed with 1006/);
        assert.deepEqual(await told('status'), ['none', '1006', 'empty']);
        assert.equal(complaints.length, 1, complaints.join('\n'));
        assert.match(complaints[0], /^WebSocket connection to '.*refused-by-status' failed/);

        const log = await logged(page);
        let from = 0;
        for (const entry of [
          '→ sent\n', 'POST /demo/client_secrets', '← received\n', '200 OK',
          'WebSocket /v1/realtime', `open, subprotocol "${subprotocol}`,
          '← received session.created', '→ sent session.update', '← received session.updated',
          '→ sent response.create', '← received response.done', '← received error',
          `closed, code ${closeCode}`, 'WebSocket /demo/refused-by-status',
          'closed, code 1006, reason ""',
        ]) {
          const at = log.replaceAll(/(sent|received) ?\n?(\d\d:)/g, '$1\n$2').indexOf(entry, from);
          assert.notEqual(at, -1, `the log does not go on with ${entry}:\n${log}`);
          from = at;
        }
        assert.match(log, /\d\d:\d\d:\d\d\.\d{3}/);
        assert.ok(!log.includes(token), 'the log shortens keys');
        assert.doesNotMatch(await page.content(), /sk_/);

        const width = await page.evaluate(() => document.documentElement.scrollWidth);
        assert.equal(width, viewport.width, 'nothing sticks out');
        for (const table of await page.locator('table').all()) {
          const fits = await table.evaluate((it) => it.offsetWidth <= it.parentElement.clientWidth);
          assert.ok(fits, await table.innerText());
        }
        await shoot(page, `${title}-end`);
        await assertAccessible(page);
      });
    }
  }

  test('a browser cannot be a client of Svara\'s, and the page says so', async (t) => {
    const { page, complaints } = await visit(t, { at: origins.svara });
    assert.match(await shown(page, 'profile'), /a browser can send none/);
    await press(page, 'Mint token', /^Minted\. The token/);
    await press(page, 'Connect', /^Refused\. No API key was presented/);
    assert.deepEqual(complaints, []);
    await assertAccessible(page);
  });

  test('accessible before anything was done', async (t) => {
    for (const colorScheme of ['light', 'dark']) {
      const { page } = await visit(t, { colorScheme });
      await assertAccessible(page);
    }
  });
});

test('by keyboard alone: xAI\'s shape and entry, and a token that locks nothing', async (t) => {
  const { page, complaints } = await visit(t);
  const { keyboard } = page;
  /** Goes on to what has this label, and sees that it shows where one is. */
  const go = async (name) => {
    for (let steps = 0; steps < 40; steps += 1) {
      await keyboard.press('Tab');
      const focused = page.locator(':focus');
      if (!(await focused.count())) continue;
      const [label, outline] = await focused.evaluate((element) => [
        element.labels?.[0]?.innerText ?? element.innerText,
        getComputedStyle(element).outlineStyle,
      ]);
      assert.equal(outline, 'solid', `${label} does not show the focus`);
      if (label.trim().startsWith(name)) return;
    }
    assert.fail(`${name} cannot be reached`);
  };
  const say = (text) => page.getByText(text).first().waitFor();

  await go('OpenAI');
  await keyboard.press('ArrowRight');
  assert.match(await shown(page, 'request'), /\{\n {2}"expires_after": \{\n {4}"seconds": 600\n {2}\}\n\}$/);
  await go('Mint token');
  await keyboard.press('Enter');
  await say(/^Minted\. The token/);
  await go('OpenAI: two entries');
  await keyboard.press('ArrowRight');
  await go('Token');
  const token = await tokenOf(page).inputValue();
  await keyboard.press('Enter');
  await say(/^Open\. The server chose the subprotocol "xai-client-secret\.ek_/);
  assert.ok(!(await shown(page, 'connect-result')).includes(token), 'shortened');
  await go('Event to send');
  await go('Send it');
  await keyboard.press('Space');
  await say(/^Everything went through/);
  await go('Ask for a response');
  await keyboard.press('Enter');
  await say(/speak as cedar/);
  await go('Let a token expire');
  await keyboard.press('ArrowDown');
  await keyboard.press('Enter');
  await say(/^Closed with 4001/);
  assert.deepEqual(complaints, []);
});

test('what goes wrong is said where it was done', async (t) => {
  const { page } = await visit(t);
  await press(page, 'Send it', 'Connect first, in step 2.');
  await press(page, 'Disconnect', 'There is no connection.');
  await tokenOf(page).fill('ek_wrong');
  await press(page, 'Connect', /^Refused\./);
  assert.match(await shown(page, 'connect-result'), /Closed with 4001, reason "Unauthorized/);
  await press(page, 'Mint token', /^Minted\. The token/);
  await press(page, 'Connect', /^Open\./);
  await page.getByLabel('Event to send').fill('{"type": ');
  await press(page, 'Send it', /^The server says:/);
  await press(page, 'Disconnect', /^Closed with 1000/);
  await press(page, 'Clear', 'Nothing yet.');
});

test('over TLS', async (t) => {
  const { origin: at } = await start('--tls');
  const { page, complaints } = await visit(t, { at, ignoreHTTPSErrors: true });
  await page.getByLabel('Swaram').check();
  await press(page, 'Mint token', /^Minted\. The token/);
  await press(page, 'Connect', /^Open\. The server chose the subprotocol "realtime"/);
  await press(page, 'Send it', /^The lock held: 2 of 3/);
  assert.deepEqual(complaints, []);
});

/** Asks for a token with these headers, which may name any host. */
async function ask(headers, to = port) {
  const asked = request({ port: to, path: '/demo/client_secrets', method: 'POST', headers });
  asked.setTimeout(DEADLINE, () => asked.destroy(new Error('no answer in time')));
  const [response] = await once(asked.end('{}'), 'response');
  const json = JSON.parse((await response.toArray()).join(''));
  return { status: response.statusCode, json };
}

describe('the page\'s own minting', () => {
  const local = `localhost:${port}`;
  for (const own of [host, local]) {
    test(`is for ${own.replace(port, 'PORT')}`, async () => {
      const { status, json } = await ask({ host: own, origin: `http://${own}` });
      assert.equal(status, 200);
      assert.match(json.value, /^ek_/);
    });
  }
  for (const [what, headers] of Object.entries({
    'another site': { host, origin: 'https://example.com' },
    'a sandboxed page': { host, origin: 'null' },
    'no page': { host },
    'an empty origin': { host, origin: '' },
    'another port': { host, origin: 'http://127.0.0.1:1' },
    'another scheme': { host, origin: `https://${host}` },
    'a name that begins alike': { host, origin: `http://${host}.example.com` },
    'a name that was made to lead here': {
      host: `example.com:${port}`, origin: `http://example.com:${port}`,
    },
    'a name that leads here, with our origin': { host: `example.com:${port}`, origin },
    'two origins': { host, origin: [origin, 'https://example.com'] },
    'one of our names under the other': { host: local, origin },
  })) {
    test(`is not for ${what}`, async () => {
      const { status, json } = await ask(headers);
      assert.deepEqual([status, json.error.code], [403, 'origin_not_allowed']);
      assert.ok(json.error.message.includes(origin), json.error.message);
    });
  }

  test('is off where others can reach it, and the page says so', async (t) => {
    const everywhere = await start('--listen', '0.0.0.0:0');
    const { port: to } = new URL(everywhere.origin);
    const at = `http://127.0.0.1:${to}`;
    for (const own of [at, everywhere.origin, `http://localhost:${to}`]) {
      const { status, json } = await ask({ host: new URL(own).host, origin: own }, to);
      assert.deepEqual([status, json.error.code], [403, 'demo_minting_off']);
    }
    const { page, complaints } = await visit(t, { at });
    await page.getByText('Minting from this page is off').waitFor();
    assert.ok(await page.getByRole('button', { name: 'Mint token' }).isDisabled());
    await assertAccessible(page);

    // A token from elsewhere works all the same.
    const minted = await fetch(`${at}/v1/realtime/client_secrets`, {
      method: 'POST',
      headers: { authorization: `Bearer ${key}` },
      body: '{"session": {"voice": "marin"}}',
    });
    await tokenOf(page).fill((await minted.json()).value);
    await press(page, 'Connect', /^Open\./);
    await press(page, 'Send it', /^The lock held: 1 of 3/);
    assert.deepEqual(complaints, []);
  });
});

test('the page comes with a strict policy', async () => {
  for (const [path, type] of [
    ['/', 'text/html; charset=utf-8'],
    ['/page.css', 'text/css; charset=utf-8'],
    ['/page.js', 'text/javascript; charset=utf-8'],
    ['/profiles.js', 'text/javascript; charset=utf-8'],
  ]) {
    const { status, headers } = await fetch(origin + path);
    assert.deepEqual([status, headers.get('content-type')], [200, type]);
    const policy = headers.get('content-security-policy');
    for (const part of ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"]) {
      assert.ok(policy.includes(part), policy);
    }
    assert.doesNotMatch(policy, /unsafe|\*|http/);
    assert.equal(headers.get('x-content-type-options'), 'nosniff');
    assert.equal(headers.get('referrer-policy'), 'no-referrer');
    assert.equal(headers.get('cache-control'), 'no-store');
  }
});

test('everything else needs a key', async () => {
  for (const path of ['/v1/realtime', '/demo', '/demo/', '/demo/other', '/page.css/', '/index.html', '//']) {
    assert.equal((await fetch(origin + path)).status, 401, path);
  }
});
