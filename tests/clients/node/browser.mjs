// Chromium, for the test file that imports this.

import { after } from 'node:test';

import { chromium } from 'playwright-core';

/** Starts Chromium with these flags besides the usual ones. It ends with the test file. */
export async function launch(...flags) {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    // As root there is no sandbox; the rest keeps it from calling home.
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      ...flags,
    ],
  });
  after(() => browser.close());
  return browser;
}
