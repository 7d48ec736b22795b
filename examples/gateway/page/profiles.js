// What the page offers by the gateway's flag `--profile`, and says of it: whose clients are served.

const everything = {
  lifetime: [1, 7200],
  shapes: ['openai', 'xai', 'swaram'],
  offers: ['openai', 'xai', 'query'],
};
const profiles = {
  any: everything,
  openai: {
    lifetime: [10, 7200],
    shapes: ['openai'],
    offers: ['openai'],
    serves: 'OpenAI\'s clients alone',
    notice: 'Tokens are asked for with OpenAI\'s fields and live at least 10 seconds, no token is '
      + 'read from a query, and a browser that is refused is closed with code 3000.',
  },
  xai: {
    lifetime: [1, 3600],
    shapes: ['xai'],
    offers: ['xai'],
    serves: 'xAI\'s clients alone',
    notice: 'Tokens are asked for with a lifetime and nothing else, so they lock nothing, and step 3 '
      + 'changes whatever you like. A browser offers its token as the only subprotocol.',
  },
  swaram: {
    lifetime: [1, 3600],
    shapes: ['swaram', 'openai', 'xai'],
    offers: ['openai', 'query'],
    serves: 'Swaram\'s clients alone',
    notice: 'Once a conversation has begun, all settings are locked, also those that the token '
      + 'leaves open. To see it, ask for a response in step 3, then send another temperature.',
  },
  decart: {
    lifetime: [1, 3600],
    shapes: everything.shapes,
    offers: ['query'],
    serves: 'Decart\'s clients alone',
    notice: 'The token of a browser travels in the query, and errors are plain texts. Decart\'s '
      + 'clients themselves mint at /v1/client/tokens.',
  },
  svara: {
    ...everything,
    offers: ['openai'],
    serves: 'Svara\'s clients alone',
    notice: 'A key stands in a header and nowhere else, and a browser can send none with a '
      + 'WebSocket: so it is told in step 2 that it sent no key.',
  },
};
const { profile: name } = document.documentElement.dataset;

/** `lifetime` is in seconds, the shortest and the longest; of the rest, the first is chosen. */
export const profile = { name, ...profiles[name] };
