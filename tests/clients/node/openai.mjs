import { OpenAIRealtimeWebSocket } from 'openai/realtime/websocket';

/** Opens a session as a page does, with OpenAI's SDK, and answers what that reports. */
export function connect({ apiKey, baseURL, model }) {
  return report(new OpenAIRealtimeWebSocket({ model }, { apiKey, baseURL }));
}

/** What OpenAI's SDK reports of a session, which is closed as soon as it has begun. */
export function report(realtime, deadline = 10_000) {
  return new Promise((resolve, reject) => {
    const told = { events: [], errors: [] };
    const impatience = setTimeout(() => {
      reject(new Error(`no end after ${deadline} ms: ${JSON.stringify(told)}`));
      realtime.close();
    }, deadline);
    realtime.on('event', ({ type }) => told.events.push(type));
    realtime.on('session.created', ({ session }) => {
      told.session = session;
      realtime.close();
    });
    realtime.on('error', ({ name, message, error, event_id }) => {
      told.errors.push({ name, message, error, event_id });
    });
    realtime.socket.addEventListener('close', ({ code, reason }) => {
      clearTimeout(impatience);
      resolve({ ...told, protocol: realtime.socket.protocol, code, reason });
    });
  });
}
