// What the page does. Everything on the wire passes through `mint` and `open`, and so into the log.

import { profile } from './profiles.js';

const $ = (id) => document.getElementById(id);
const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`).value;
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const mintingIsOn = document.documentElement.dataset.minting === 'on';

/* What the profile takes */

/** Leaves the choices that the profile takes, the first of them chosen. */
function offerChoices(name, taken) {
  const inputs = [...document.querySelectorAll(`input[name="${name}"]`)];
  for (const input of inputs) {
    input.checked = input.value === taken[0];
    if (!taken.includes(input.value)) input.parentElement.remove();
  }
}

/** Holds a number of seconds to what the profile takes. */
function bound(input, [min, max]) {
  Object.assign(input, { min, max });
  if (input.valueAsNumber < min) input.value = min;
}

/* The log */

const WAYS = { sent: '→ sent', received: '← received', socket: '· socket' };
const MAX_ENTRIES = 500;
const LONG = /[A-Za-z0-9+/=]{200,}/g;
const KEY = /\b(sk|ek)_\w{8,}/g;
const minted = new Set();

/** The text with every key in it shortened, and long audio too. */
function shortened(text) {
  const short = (key) => `${key.slice(0, 6)}…${key.slice(-4)}`;
  for (const key of [...minted, $('token').value.trim()]) {
    if (key.length > 12) text = text.replaceAll(key, short(key));
  }
  return text
    .replace(KEY, short)
    .replace(LONG, (long) => `${long.slice(0, 12)}… (${long.length} characters)`);
}

/** What the text says as JSON, if it is any. */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Writes down what was `sent` or `received`, or what the browser told: `socket`. */
function log(way, text) {
  const now = new Date();
  const time = [now.getHours(), now.getMinutes(), now.getSeconds()]
    .map((part) => String(part).padStart(2, '0'))
    .join(':');
  const entry = make('li', { className: way },
    make('span', { className: 'head' },
      make('span', { className: 'way' }, `${WAYS[way]} ${parsed(text)?.type ?? ''}`),
      make('time', {}, `${time}.${String(now.getMilliseconds()).padStart(3, '0')}`)),
    make('span', { className: 'text' }, shortened(text)));
  const follows = $('log').scrollTop + $('log').clientHeight > $('log').scrollHeight - 40;
  $('entries').append(entry);
  if ($('entries').children.length > MAX_ENTRIES) $('entries').firstChild.remove();
  $('log-empty').hidden = true;
  if (follows) $('log').scrollTop = $('log').scrollHeight;
}

$('clear').onclick = () => {
  $('entries').replaceChildren();
  $('log-empty').hidden = false;
};

/* What is shown */

function make(name, properties, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

/** Shows the outcome of a step: paragraphs or elements, `good`, `bad` or neither. */
function show(id, mood, ...parts) {
  const paragraph = (part) => (typeof part === 'string' ? make('p', {}, part) : part);
  $(id).className = `result ${mood}`;
  $(id).replaceChildren(...parts.map(paragraph));
}

const quoted = (value) => (value === undefined ? 'nothing' : JSON.stringify(value));

/** Runs `work` unless it is under way already. The button keeps the focus meanwhile. */
async function once(button, result, work) {
  if (button.getAttribute('aria-disabled') === 'true') return;
  button.setAttribute('aria-disabled', 'true');
  try {
    await work();
  } catch (error) {
    show(result, 'bad', `${error.message}`);
  }
  button.removeAttribute('aria-disabled');
}

/* The wire */

/** Mints as a backend would, but for the key, which the gateway puts in. */
async function mint(body) {
  log('sent', `POST /demo/client_secrets ${body}`);
  const response = await fetch('/demo/client_secrets', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body,
  });
  const text = await response.text();
  const json = parsed(text);
  if (json?.value) minted.add(json.value);
  const status = `${response.status} ${response.statusText}`.trim();
  log('received', `${status} ${text}`);
  const headers = `Cache-Control: ${response.headers.get('cache-control')}`;
  const shown = `${status}\n${headers}\n\n${json ? JSON.stringify(json, null, 2) : text}`;
  return { ok: response.ok, status, json, shown };
}

/** Opens a WebSocket; `on.open`, `on.event` and `on.close` hear of it. */
function open(path, { protocols = [], query = '' }, on) {
  const url = `${location.origin.replace('http', 'ws')}${path}${query}`;
  const socket = new WebSocket(url, protocols);
  log('sent', `WebSocket ${path}${query}, subprotocols ${JSON.stringify(protocols)}`);
  socket.onopen = () => {
    log('socket', `open, subprotocol ${JSON.stringify(socket.protocol)}`);
    on.open?.(socket);
  };
  socket.onmessage = ({ data }) => {
    log('received', data);
    on.event?.(JSON.parse(data));
  };
  socket.onclose = ({ code, reason }) => {
    log('socket', `closed, code ${code}, reason ${JSON.stringify(reason)}`);
    on.close?.({ code, reason });
  };
  return socket;
}

function send(text) {
  log('sent', text);
  socket.send(text);
}

/* 1: mint */

const shapes = {
  openai: ({ seconds, voice, model, instructions }) => ({
    expires_after: { anchor: 'created_at', seconds },
    session: { type: 'realtime', model, instructions, audio: voice && { output: { voice } } },
  }),
  xai: ({ seconds }) => ({ expires_after: { seconds } }),
  swaram: ({ seconds, voice, model, instructions }) => ({
    expires_after: { seconds },
    model,
    session: { voice, instructions },
  }),
};

function mintBody() {
  const field = (id) => $(id).value.trim() || undefined;
  const asked = {
    seconds: $('lifetime').valueAsNumber,
    voice: field('voice'),
    model: field('model'),
    instructions: field('instructions'),
  };
  return JSON.stringify(shapes[chosen('shape')](asked), null, 2);
}

function showRequest() {
  const bare = chosen('shape') === 'xai';
  for (const id of ['voice', 'model', 'instructions']) $(id).disabled = bare;
  $('shape-hint').textContent = bare
    ? 'A body of this shape carries a lifetime alone: the token locks nothing.'
    : '';
  $('request').textContent = [
    'POST /v1/realtime/client_secrets',
    'Authorization: Bearer (the secret key of your backend)',
    'Content-Type: application/json',
    '',
    mintBody(),
  ].join('\n');
}

$('mint-form').oninput = showRequest;
$('mint-form').onsubmit = (event) => {
  event.preventDefault();
  once($('mint'), 'mint-result', async () => {
    const { ok, status, json, shown } = await mint(mintBody());
    $('answer-part').hidden = false;
    $('answer').textContent = shown;
    if (!ok) return show('mint-result', 'bad', `Refused: ${json?.error?.message ?? status}`);
    $('token').value = json.value;
    showCode();
    const until = new Date(json.expires_at * 1000).toLocaleTimeString();
    show('mint-result', 'good',
      `Minted. The token opens sessions until ${until}, and waits in step 2.`);
  });
};

/* 2: connect */

let socket;

const offers = {
  openai: (token) => ({ protocols: ['realtime', `openai-insecure-api-key.${token}`] }),
  xai: (token) => ({ protocols: [`xai-client-secret.${token}`] }),
  query: (token) => ({ query: `?api_key=${encodeURIComponent(token)}` }),
};

function showCode() {
  const { protocols = [], query = '' } = offers[chosen('offer')]('TOKEN');
  const code = (text) =>
    text.endsWith('TOKEN') ? `"${text.replace('TOKEN', '')}" + token` : `"${text}"`;
  const url = code(`${location.origin.replace('http', 'ws')}/v1/realtime${query}`);
  const offered = protocols.length ? `,\n  [${protocols.map(code).join(', ')}]` : '';
  $('code').textContent = `new WebSocket(${url}${offered})`;
}

const voiceOf = (session) => session.audio?.output?.voice ?? session.voice;

function opened({ session }) {
  show('connect-result', 'good',
    socket.protocol
      ? `Open. The server chose the subprotocol ${JSON.stringify(shortened(socket.protocol))}.`
      : 'Open.',
    `The session has the voice ${quoted(voiceOf(session))}, the model ${quoted(session.model)} `
      + `and the instructions ${quoted(session.instructions)}.`);
}

const answers = {
  'session.created': opened,
  'session.updated': ({ session }) => compare(session),
  'response.done': ({ response }) => heard(response),
  error: ({ error }) => show('change-result', 'bad', `The server says: ${error.message ?? error}`),
};

$('connect-form').oninput = showCode;
$('connect-form').onsubmit = (event) => {
  event.preventDefault();
  socket?.close(1000);
  for (const id of ['change-result', 'respond-result']) show(id, '');
  show('connect-result', '', 'Connecting …');
  let refusal;
  const mine = open('/v1/realtime', offers[chosen('offer')]($('token').value.trim()), {
    event: (event) => {
      if (mine !== socket) return;
      if (event.type === 'session.created') mine.begun = true;
      // Before a session has begun, an error is a refusal: the Close that follows has a code.
      if (!mine.begun) refusal = event.error?.message ?? event.error;
      else answers[event.type]?.(event);
    },
    close: ({ code, reason }) => {
      if (mine !== socket) return;
      socket = undefined;
      const closed = `Closed with ${code}, reason ${quoted(reason)}.`;
      if (mine.begun) show('connect-result', '', closed);
      else show('connect-result', 'bad', `Refused. ${refusal ?? ''}`, closed);
    },
  });
  socket = mine;
};
$('disconnect').onclick = () => {
  if (socket) socket.close(1000);
  else show('connect-result', '', 'There is no connection.');
};

/* 3: change what is locked */

$('update').value = JSON.stringify({
  type: 'session.update',
  session: { voice: 'cedar', instructions: 'Tell all you know', temperature: 0.4 },
}, null, 2);

let asked;

const isConnected = () => socket?.begun && socket.readyState === WebSocket.OPEN;

$('change-form').onsubmit = (event) => {
  event.preventDefault();
  if (!isConnected()) return show('change-result', 'bad', 'Connect first, in step 2.');
  const text = $('update').value;
  // If it is no JSON, the server says so.
  asked = parsed(text)?.session;
  show('change-result', '', 'Sent.');
  send(text);
};

/** Says of every setting that was asked for what became of it. */
function compare(session) {
  const rows = leaves(asked ?? {}).map(([path, wanted]) => {
    // One setting under two names.
    const isVoice = ['voice', 'audio.output.voice'].includes(path);
    const at = () => path.split('.').reduce((part, name) => part?.[name], session);
    const has = isVoice ? voiceOf(session) : at();
    const went = JSON.stringify(has) === JSON.stringify(wanted);
    return make('tr', {},
      make('th', { scope: 'row' }, path),
      make('td', {}, quoted(wanted)),
      make('td', {}, quoted(has), make('br', {}),
        make('span', { className: went ? 'went' : 'kept' }, went ? 'as asked' : 'locked, kept')));
  });
  const kept = rows.filter((row) => row.querySelector('.kept')).length;
  const head = ['setting', 'you asked for', 'the session has'];
  show('change-result', 'good',
    kept ? `The lock held: ${kept} of ${rows.length} settings stayed as they were.`
      : 'Everything went through: the token locks none of it.',
    make('table', {},
      make('thead', {}, make('tr', {}, ...head.map((text) => make('th', { scope: 'col' }, text)))),
      make('tbody', {}, ...rows)));
}

/** All settings in an object, by dotted path. */
function leaves(object, path = []) {
  return Object.entries(object).flatMap(([name, value]) => {
    const here = [...path, name];
    const isGroup = value instanceof Object && !Array.isArray(value);
    return isGroup ? leaves(value, here) : [[here.join('.'), value]];
  });
}

$('respond').onclick = () => {
  if (!isConnected()) return show('respond-result', 'bad', 'Connect first, in step 2.');
  send(JSON.stringify({ type: 'response.create' }));
};

function heard(response) {
  const part = response.output?.[0]?.content?.[0] ?? {};
  show('respond-result', 'good', 'The response was made with what the session has:',
    make('blockquote', {}, part.transcript ?? part.text ?? ''));
}

/* 4: be refused */

function tell(column, { event = 'none', code, reason }) {
  const cell = (row, text) => {
    document.querySelector(`[data-cell="${column}-${row}"]`).textContent = text;
  };
  cell('event', event);
  cell('code', code);
  cell('reason', reason || 'empty');
  $('refusals').hidden = false;
}

/** Connects in vain, and answers what the script was told. */
const refused = (path, offer) => new Promise((resolve) => {
  let event;
  open(path, offer, {
    event: ({ error }) => { event = error?.message ?? error; },
    close: (closed) => resolve({ event, ...closed }),
  });
});

let expired = 'expired';

$('expire-form').onsubmit = (event) => {
  event.preventDefault();
  once($('expire'), 'expire-result', async () => {
    const seconds = $('expiry').valueAsNumber;
    const { ok, status, json } = await mint(JSON.stringify({ expires_after: { seconds } }));
    if (!ok) return show('expire-result', 'bad', `Refused: ${json?.error?.message ?? status}`);
    expired = json.value;
    show('expire-result', '', `Minted. Waiting ${seconds} s, until it has expired …`);
    await sleep(seconds * 1000 + 50);
    const told = await refused('/v1/realtime', offers[chosen('offer')](expired));
    tell('layer', told);
    show('expire-result', 'good',
      `Closed with ${told.code}: the script can tell its user what to do.`);
  });
};
$('status').onclick = () => once($('status'), 'expire-result', async () => {
  const told = await refused('/demo/refused-by-status', offers.openai(expired));
  tell('status', told);
  show('expire-result', '',
    `Closed with ${told.code}: the script cannot tell a bad key from a broken network. The status `
      + 'stands in the developer console alone.');
});

/* The start */

offerChoices('shape', profile.shapes);
offerChoices('offer', profile.offers);
bound($('lifetime'), profile.lifetime);
bound($('expiry'), [profile.lifetime[0], profile.lifetime[0] + 4]);
if (profile.notice) {
  const flag = make('code', {}, `--profile ${profile.name}`);
  $('profile').append(make('strong', {}, flag, ` serves ${profile.serves}.`), ` ${profile.notice}`);
  $('profile').hidden = false;
}
$('by-query').hidden = !profile.offers.includes('query');
$('minting-off').hidden = mintingIsOn;
if (!mintingIsOn) {
  for (const id of ['mint', 'expire']) $(id).disabled = true;
}
showRequest();
showCode();
