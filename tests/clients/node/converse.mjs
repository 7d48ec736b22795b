/**
 * Holds one conversation over a WebSocket and answers what the client itself reported of it.
 *
 * `answers` says what to send when an event of that type arrives; `until` is the event that ends
 * the conversation.
 *
 * It runs as it is in Node and, handed over as source, in a page with the browser's own WebSocket:
 * so it uses nothing from around it.
 */
export function converse(
  { url, protocols = [], headers, answers = {}, until = 'session.created', deadline = 10_000 },
  WebSocket = globalThis.WebSocket,
) {
  return new Promise((resolve, reject) => {
    const report = { opened: false, events: [] };
    // Browsers take no third argument and ignore it.
    const socket = new WebSocket(url, protocols, { headers });
    const impatience = setTimeout(() => {
      reject(new Error(`no end after ${deadline} ms: ${JSON.stringify(report)}`));
      socket.close();
    }, deadline);
    socket.onopen = () => {
      report.opened = true;
      report.protocol = socket.protocol;
    };
    socket.onmessage = ({ data }) => {
      const event = JSON.parse(data);
      report.events.push(event);
      if (event.type === until) socket.close(1000);
      else if (event.type in answers) socket.send(JSON.stringify(answers[event.type]));
    };
    socket.onerror = ({ message }) => {
      report.error = message;
    };
    socket.onclose = ({ code, reason, wasClean }) => {
      clearTimeout(impatience);
      resolve({ ...report, code, reason, wasClean });
    };
  });
}
