import { connect } from 'node:net';

const PROBE_TIMEOUT_MS = 2000;

/** Does something on 127.0.0.1 accept TCP connections on this port? */
export async function accepts(port: number): Promise<boolean> {
  return await probe(port, undefined);
}

/**
 * Does an AMQP 0-9-1 broker answer? It is greeted as its specification says (section 4.2.2) and starts the
 * negotiation by a method frame; the port alone is open before the broker is ready.
 */
export async function greets(port: number): Promise<boolean> {
  return await probe(port, Buffer.from('AMQP\0\0\x09\x01', 'latin1'));
}

async function probe(port: number, greeting: Buffer | undefined): Promise<boolean> {
  return await new Promise<boolean>((resolve) => {
    const socket = connect({ host: '127.0.0.1', port, timeout: PROBE_TIMEOUT_MS });
    const done = (answer: boolean): void => {
      socket.destroy();
      resolve(answer);
    };
    socket.once('connect', () => {
      if (greeting === undefined) done(true);
      else socket.write(greeting);
    });
    socket.once('data', (data) => done(data[0] === 1));
    socket.once('error', () => done(false));
    socket.once('timeout', () => done(false));
    socket.once('close', () => done(false));
  });
}
