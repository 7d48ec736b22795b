// A browser: Chromium, in a page of another origin. What is asserted is what the page saw.

import { test } from 'node:test';

import { launch, openCustomersPage } from './browser.mjs';
import { converse } from './converse.mjs';
import { assertRefused, mustHoldFor } from './every-client.mjs';
import { realtime } from './gateway.mjs';

const page = await openCustomersPage(await launch());
const client = (options) => page.evaluate(converse, options);

mustHoldFor('Chromium', client);

test('Chromium, without a credential: the page is told so', async () => {
  const expected = { told: 'missing_api_key', code: 4001, reason: /^Unauthorized/ };
  assertRefused(await client({ url: realtime }), expected);
  assertRefused(await client({ url: realtime, protocols: ['realtime'] }), expected);
});
