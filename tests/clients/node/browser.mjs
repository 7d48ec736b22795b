// Chromium, for the test file that imports this.

import { once } from 'node:events';
import { createServer } from 'node:http';
import { after } from 'node:test';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';
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

/** A page of a customer's, which is of another origin; with this module here as `globalThis.sdk`. */
export async function openCustomersPage(browser, module) {
  const source = module ? await bundled(module) : '';
  const site = createServer(({ url }, response) => {
    const [type, body] = url === '/sdk.js'
      ? ['text/javascript', source]
      : ['text/html', '<!doctype html><title>A customer</title><script src="/sdk.js"></script>'];
    response.setHeader('content-type', `${type}; charset=utf-8`).end(body);
  });
  await once(site.listen(0, '127.0.0.1'), 'listening');
  after(() => site.close());
  const page = await browser.newPage();
  await page.goto(`http://127.0.0.1:${site.address().port}/`);
  return page;
}

async function bundled(module) {
  const bundle = await build({
    entryPoints: [fileURLToPath(new URL(module, import.meta.url))],
    bundle: true,
    format: 'iife',
    globalName: 'sdk',
    platform: 'browser',
    write: false,
  });
  return bundle.outputFiles[0].text;
}
