import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { ReplicationSession } from '../../../../../src/pipeline/capture/streaming/slot.ts';
import { ReplicationStream } from '../../../../../src/pipeline/capture/streaming/stream.ts';

const SOON_MS = 1_500;

/** It accepts and says nothing: a firewall that drops, a server that hangs. */
describe('A stop while the replication connection is being made', () => {
  let server: Server;
  const sockets = new Set<Socket>();

  before(async () => {
    server = createServer((socket) => {
      sockets.add(socket);
      socket.on('error', () => undefined);
      socket.on('close', () => sockets.delete(socket));
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
  });

  after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });

  const config = () => ({
    host: '127.0.0.1',
    port: (server.address() as AddressInfo).port,
    user: 'relay',
    database: 'shop',
    connectionTimeoutMillis: 60_000,
  });

  async function endsSoon(open: (signal: AbortSignal) => Promise<unknown>): Promise<void> {
    const stop = new AbortController();
    const connected = once(server, 'connection');
    const opening = assert.rejects(open(stop.signal));
    await connected;
    const stoppedMs = performance.now();
    stop.abort(new Error('stopped'));
    await opening;
    assert.ok(performance.now() - stoppedMs < SOON_MS);
    while (sockets.size > 0) await once([...sockets][0] as Socket, 'close');
    await assert.rejects(open(stop.signal), /stopped/u);
  }

  it('ends it at once and leaves no socket: the connection for commands', async () => {
    await endsSoon((signal) => ReplicationSession.open(config(), signal));
  });

  it('ends it at once and leaves no socket: the stream', async () => {
    await endsSoon((signal) =>
      ReplicationStream.open(
        {
          clientConfig: config(),
          slotName: 'relay',
          publicationName: 'relay',
          startLsn: 1n,
          outbox: {
            schema: 'public',
            table: 'outbox',
            seqColumn: 'seq',
            xidColumn: 'xid',
            requiredColumns: [],
            addressColumns: [],
            oids: new Set<number>(),
            others: new Set<number>(),
            alone: true,
            asked: new Map<string, string>(),
          },
          maxEventBytes: 1_048_576,
          walSenderTimeoutMs: 60_000,
        },
        signal,
      ),
    );
  });
});
