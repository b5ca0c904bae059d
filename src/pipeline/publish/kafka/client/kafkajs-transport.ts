import { connect as connectTcp, isIP, type Socket } from 'node:net';
import { connect as connectTls, type ConnectionOptions } from 'node:tls';

import type { KafkaConfig } from '../../../../config/config.ts';
import {
  API_VERSIONS,
  type ApiVersions,
  decodeApiVersions,
  type Request,
  requestHeader,
} from '../protocol.ts';
import { bearerMessage, refuseChallenge } from '../security.ts';
import { tlsOptions } from '../../../../config/tls.ts';
import { type KafkaConnection, type KafkaSasl, newConnection } from './kafkajs.ts';
import { SESSION_SHARE, type Transport, type TransportOptions, watchSocket } from './transport.ts';

const SASL_AUTHENTICATE = 36;

export class KafkajsTransport implements Transport {
  private readonly connection: KafkaConnection;
  private readonly options: TransportOptions;
  private socket: Socket | undefined;

  constructor(options: TransportOptions) {
    this.options = options;
    const { host, port, config, connectTimeoutMs } = options;
    this.connection = newConnection({
      host,
      port,
      clientId: config.clientId,
      ssl: config.ssl === undefined ? undefined : tlsOptions(config.ssl),
      sasl: saslOptions(config.sasl),
      socketFactory: (target) => this.newSocket(target),
      connectionTimeout: connectTimeoutMs,
      requestTimeout: config.requestTimeoutMs,
      // Its own deadlines leave the connection in use: a late answer could be taken for that of something else.
      enforceRequestTimeout: false,
    });
    // Looks after requests that wait for a free place; nothing ever waits here. kafkajs arms it with a negative time
    // after every answer, which wakes the process and makes Node print a warning.
    this.connection.requestQueue.scheduleCheckPendingRequests = () => undefined;
  }

  async connect(): Promise<ApiVersions> {
    await this.connection.connect();
    const versions = decodeApiVersions(await this.request({ ...API_VERSIONS, body: Buffer.alloc(0) }));
    this.connection.setVersions(versions);
    this.connection.setSupportAuthenticationProtocol(SASL_AUTHENTICATE in versions);
    await this.authenticate();
    return versions;
  }

  async request(request: Request): Promise<Buffer> {
    const { connection } = this;
    // Unique on this connection only. That is enough: it never opens a second socket, so an answer can't cross over.
    const correlationId = connection.nextCorrelationId();
    const header = requestHeader(request, correlationId, this.options.config.clientId);
    const answer = await new Promise<{ readonly payload: Buffer }>((resolve, reject) => {
      const { apiKey, version: apiVersion, name: apiName } = request;
      connection.requestQueue.push({
        entry: { apiKey, apiName, apiVersion, correlationId, resolve, reject },
        expectResponse: true,
        requestTimeout: this.options.config.requestTimeoutMs,
        sendRequest: () => {
          connection.socket.cork();
          connection.socket.write(header);
          connection.socket.write(request.body);
          connection.socket.uncork();
        },
      });
    });
    return answer.payload;
  }

  get needsAuthentication(): boolean {
    return this.options.config.sasl !== undefined && !this.connection.isAuthenticated();
  }

  async authenticate(): Promise<void> {
    const { connection } = this;
    await connection.authenticate();
    // kafkajs takes ten seconds: with shorter sessions it would log in before every request, and brokers end a connection
    // on which that is done more than once a second.
    connection.reauthenticationThreshold = Math.ceil(
      Number(connection.sessionLifetime) * (1 - SESSION_SHARE),
    );
  }

  destroy(reason: Error): void {
    // With an error, so that kafkajs clears its connect timer and rejects what it holds.
    this.socket?.destroy(reason);
    this.connection.requestQueue.destroy();
  }

  private newSocket(target: {
    host: string;
    port: number;
    ssl: ConnectionOptions | null;
    onConnect: () => void;
  }): Socket {
    const { host, port, ssl, onConnect } = target;
    const servername = isIP(host) === 0 ? { servername: host } : {};
    const socket =
      ssl === null
        ? connectTcp({ host, port }, onConnect)
        : connectTls({ host, port, ...servername, ...ssl }, onConnect);
    watchSocket(socket, this.options.onClose);
    this.socket = socket;
    return socket;
  }
}

function saslOptions(sasl: KafkaConfig['sasl']): KafkaSasl | undefined {
  if (sasl === undefined) return undefined;
  if (sasl.mechanism !== 'oauthbearer') {
    return { mechanism: sasl.mechanism, username: sasl.username, password: sasl.password() };
  }
  return { mechanism: 'oauthbearer', authenticationProvider: oauthBearer(sasl.token) };
}

/** kafkajs ignores the answer to a token, so that a refused one would look accepted. */
function oauthBearer(token: () => string): NonNullable<KafkaSasl['authenticationProvider']> {
  return (connection) => ({
    authenticate: async () => {
      const initial = bearerMessage(token());
      const sized = Buffer.concat([Buffer.alloc(4), initial]);
      sized.writeInt32BE(initial.length, 0);
      const answer = await connection.saslAuthenticate({
        request: { encode: async () => await Promise.resolve(sized) },
        response: { decode: same, parse: same },
      });
      if (Buffer.isBuffer(answer)) refuseChallenge(answer.subarray(4));
    },
  });
}

async function same<T>(decoded: T): Promise<T> {
  return await Promise.resolve(decoded);
}
