import { createDecartClient, models } from '@decartai/sdk';

/**
 * Lets Decart's SDK hold a session and give some directions, and then leave. Answers what it saw
 * until then, or until it gave up.
 *
 * It runs bundled, in a page, with `livekit.mjs` in the place of LiveKit.
 */
export async function holdStream({ origin, credential, model, deadline = 30_000 }) {
  const seen = { states: [], queue: [], errors: [] };
  const client = createDecartClient({
    apiKey: credential,
    baseUrl: origin,
    realtimeBaseUrl: origin.replace('http', 'ws'),
    telemetry: false,
  });
  const connecting = client.realtime.connect(null, {
    model: models.realtime(model),
    resolution: '720p',
    initialState: { prompt: { text: 'Like a pirate.' } },
    onRemoteStream: () => {},
    onConnectionChange: (state) => seen.states.push(state),
    onQueuePosition: (place) => seen.queue.push(place),
  });
  const impatience = new Promise((_, reject) => {
    setTimeout(() => reject(new Error(`no end after ${deadline} ms`)), deadline);
  });
  try {
    const session = await Promise.race([connecting, impatience]);
    session.on('error', ({ message }) => seen.errors.push(message));
    seen.sessionId = session.sessionId;
    await session.setPrompt('Like a whale.');
    await session.setImage('QUJD', { prompt: 'Like an eagle.' });
    await session.setImage('file_1');
    await session.set({ image: null, prompt: 'Like a pirate.' });
    session.disconnect();
  } catch (error) {
    seen.failure = error.message ?? String(error);
  }
  return seen;
}

/** Mints a token; answers it, or what the SDK says. */
export async function mintToken({ origin, credential, asked }) {
  const { tokens } = createDecartClient({ apiKey: credential, baseUrl: origin });
  try {
    return await tokens.create(asked);
  } catch ({ message, data }) {
    return { failure: message, ...data };
  }
}
