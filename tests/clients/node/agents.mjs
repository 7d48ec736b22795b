import {
  OpenAIRealtimeWebSocket, RealtimeAgent, RealtimeSession, tool,
} from '@openai/agents-realtime';

/**
 * Lets OpenAI's agents SDK hold a session. It sends its first agent's settings by itself, and those
 * of the others as it changes to them; in the end it is given the settings `last`. After each of
 * these updates the user speaks. Answers the events that it received, up to each response's end.
 *
 * It runs in Node and, bundled, in a page.
 */
export async function holdSession(
  { url, credential, model, config, agents, last, deadline = 10_000 },
) {
  const transport = new OpenAIRealtimeWebSocket({
    url,
    // Without this it takes only ephemeral tokens in a browser.
    useInsecureApiKey: !credential.startsWith('ek_'),
  });
  const [agent, ...others] = agents.map(agentOf);
  const session = new RealtimeSession(agent, { transport, model, config });

  const rounds = [];
  let received = [];
  let answered;
  let impatience;
  // Whatever the SDK takes for an error, and a connection that ends, are failures.
  const failure = new Promise((_, reject) => {
    const fail = (what) => reject(new Error(`${what}: ${JSON.stringify(received)}`));
    session.on('error', ({ error }) => fail(`an error, ${JSON.stringify(error)}`));
    transport.on('connection_change', (status) => {
      if (status === 'disconnected') fail('the end of the connection');
    });
    impatience = setTimeout(() => fail(`no end after ${deadline} ms`), deadline);
  });
  session.on('transport_event', (event) => {
    received.push(event);
    if (event.type !== 'response.done') return;
    rounds.push(received);
    received = [];
    answered();
  });
  const ask = () => {
    const answer = new Promise((resolve) => {
      answered = resolve;
    });
    session.sendMessage('Who are you?');
    return answer;
  };
  const converse = async () => {
    await session.connect({ apiKey: credential });
    // Before anything is heard, or it would interrupt that.
    session.sendAudio(new ArrayBuffer(960), { commit: true });
    await ask();
    for (const other of others) {
      await session.updateAgent(other);
      await ask();
    }
    transport.updateSessionConfig(last);
    await ask();
    return { rounds, status: transport.status };
  };

  try {
    return await Promise.race([converse(), failure]);
  } finally {
    clearTimeout(impatience);
    session.close();
  }
}

function agentOf({ name, instructions, voice, tools }) {
  return new RealtimeAgent({ name, instructions, voice, tools: tools.map(toolOf) });
}

function toolOf(name) {
  return tool({
    name,
    description: `Does what ${name} says.`,
    parameters: { type: 'object', properties: {}, required: [], additionalProperties: false },
    execute: () => 'done',
  });
}
