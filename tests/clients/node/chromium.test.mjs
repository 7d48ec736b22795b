// A browser: Chromium, in a page of another origin. What is asserted is what the page saw.

import { once } from 'node:events';
import { createServer } from 'node:http';
import { after, test } from 'node:test';

import { launch } from './browser.mjs';
import { converse } from './converse.mjs';
import { assertRefused, mustHoldFor } from './every-client.mjs';
import { realtime } from './gateway.mjs';

const site = createServer((_, response) => {
  response.setHeader('content-type', 'text/html').end('<!doctype html><title>A customer</title>');
});
await once(site.listen(0, '127.0.0.1'), 'listening');

after(() => site.close());

const browser = await launch();
const page = await browser.newPage();
await page.goto(`http://127.0.0.1:${site.address().port}/`);

const client = (options) => page.evaluate(converse, options);

mustHoldFor('Chromium', client);

test('Chromium, without a credential: the page is told so', async () => {
  const expected = { told: 'missing_api_key', code: 4001, reason: /^Unauthorized/ };
  assertRefused(await client({ url: realtime }), expected);
  assertRefused(await client({ url: realtime, protocols: ['realtime'] }), expected);
});
