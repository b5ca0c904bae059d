import { isIP } from 'node:net';
import { createSecureContext } from 'node:tls';

import {
  AuthenticationError,
  Connection,
  GenericError,
  MultipleErrors,
  ProtocolError,
  type saslAuthenticateV2,
  type SASLCustomAuthenticator,
  type SASLOptions,
  saslPlain,
  saslScramSha,
  Writer,
} from '@platformatic/kafka';

import type { KafkaConfig } from '../../../../config/config.ts';
import { API_VERSIONS, type ApiVersions, decodeApiVersions, type Request } from '../protocol.ts';
import { bearerMessage, refuseChallenge } from '../security.ts';
import { tlsOptions } from '../../../../config/tls.ts';
import { SESSION_SHARE, type Transport, type TransportOptions, watchSocket } from './transport.ts';
import { toError } from '../../../../errors/thrown.ts';

/** The longest that a timer can be. */
const NEVER_MS = 2 ** 31 - 1;

type Sasl = NonNullable<KafkaConfig['sasl']>;
type AuthenticationApi = saslAuthenticateV2.SASLAuthenticationAPI;
type OnAuthenticated = (error: unknown, response?: saslAuthenticateV2.SaslAuthenticateResponse) => void;

/**
 * A connection of `@platformatic/kafka`. Its producer is not used: it resolves for a partition that the answer does not
 * mention, and after one partition's error sends those of the same broker again that were written.
 */
export class PlatformaticTransport implements Transport {
  private readonly options: TransportOptions;
  private readonly connection: Connection;
  /** `performance.now()` */
  private sessionEndsAt = Infinity;

  constructor(options: TransportOptions) {
    this.options = options;
    const { config, connectTimeoutMs } = options;
    this.connection = new Connection(config.clientId, {
      connectTimeout: connectTimeoutMs,
      // Each request has a deadline of its own, which ends the connection.
      requestTimeout: NEVER_MS,
      // Nothing may wait unseen behind others.
      maxInflights: 1000,
      // The name goes with the first message: what stands before the broker may choose by it whose certificate it shows.
      ...(config.ssl !== undefined && {
        tls: tlsOptions(config.ssl),
        tlsServerName: isIP(options.host) === 0,
      }),
      ...(config.sasl !== undefined && { sasl: this.saslOptions(config.sasl) }),
    });
    // Without a listener it would end the process. Whoever waits for something is told by that.
    this.connection.on('error', () => undefined);
  }

  async connect(): Promise<ApiVersions> {
    const { host, port, config, onClose } = this.options;
    // What it would throw here, the library throws as well, but leaves a timer behind.
    if (config.ssl !== undefined) createSecureContext(tlsOptions(config.ssl));
    await settled((done) => {
      void this.connection.connect(host, port, done);
      watchSocket(this.connection.socket, onClose);
    });
    return decodeApiVersions(await this.request({ ...API_VERSIONS, body: Buffer.alloc(0) }));
  }

  async request({ apiKey, version, body }: Request): Promise<Buffer> {
    const payload = Writer.create().append(body);
    return await new Promise<Buffer>((resolve, reject) => {
      this.connection.send<Buffer>(
        apiKey,
        version,
        () => payload,
        (_correlationId, _apiKey, _version, { buffer }) => buffer.slice(),
        false,
        false,
        (error, answer) => {
          if (answer === undefined) reject(error ?? new Error('no answer'));
          else resolve(answer);
        },
      );
    });
  }

  get needsAuthentication(): boolean {
    return performance.now() > this.sessionEndsAt;
  }

  async authenticate(): Promise<void> {
    await settled((done) => {
      this.connection.ready(done);
      this.connection.reauthenticate();
    });
  }

  destroy(reason: Error): void {
    // With an error, or what waits for the connection would wait until its time is up. There is none before `connect`.
    (this.connection.socket as typeof this.connection.socket | undefined)?.destroy(reason);
  }

  private saslOptions(sasl: Sasl): SASLOptions {
    const mechanism = MECHANISMS[sasl.mechanism];
    if (sasl.mechanism === 'oauthbearer')
      return { mechanism, authenticate: this.guarded(byToken(sasl.token)) };
    const { username } = sasl;
    return { mechanism, authenticate: this.guarded(byPassword(sasl.mechanism, username, sasl.password())) };
  }

  /**
   * The library lets what is thrown in a login end the process, and logs in again by a timer of its own: in the middle of
   * other requests, which brokers refuse; also after the connection has ended; and without a pause when the session lasts
   * longer than a timer can. So it is told of no session's end.
   */
  private guarded(login: Login): SASLCustomAuthenticator {
    return (_mechanism, connection, authenticate, _username, _password, _token, callback) => {
      let over = false;
      const done: OnAuthenticated = (error, response) => {
        if (over) return;
        over = true;
        if (response === undefined) {
          callback(toError(error));
          return;
        }
        const ms = Number(response.sessionLifetimeMs);
        this.sessionEndsAt = ms > 0 ? performance.now() + ms * SESSION_SHARE : Infinity;
        callback(null, { ...response, sessionLifetimeMs: 0n });
      };
      const orFailed = (step: () => void): void => {
        try {
          step();
        } catch (error) {
          done(error);
        }
      };
      const api = (to: Connection, bytes: Buffer, answered: OnAuthenticated): void =>
        authenticate(to, bytes, (error, response) => orFailed(() => answered(error, response)));
      orFailed(() => login(api as AuthenticationApi, connection, done));
    };
  }
}

type Login = (api: AuthenticationApi, connection: Connection, done: OnAuthenticated) => void;

const MECHANISMS = {
  plain: 'PLAIN',
  'scram-sha-256': 'SCRAM-SHA-256',
  'scram-sha-512': 'SCRAM-SHA-512',
  oauthbearer: 'OAUTHBEARER',
} as const;

function byPassword(
  mechanism: Exclude<Sasl['mechanism'], 'oauthbearer'>,
  username: string,
  password: string,
): Login {
  if (mechanism === 'plain') {
    return (api, connection, done) => saslPlain.authenticate(api, connection, username, password, done);
  }
  const algorithm = mechanism === 'scram-sha-256' ? 'SHA-256' : 'SHA-512';
  return (api, connection, done) =>
    saslScramSha.authenticate(
      api,
      connection,
      algorithm,
      username,
      password,
      saslScramSha.defaultCrypto,
      done,
    );
}

/** By the library's own way a refused token is accepted, or, with its validator, answered twice. */
function byToken(token: () => string): Login {
  return (api, connection, done) =>
    api(connection, bearerMessage(token()), (error, response) => {
      if (response !== undefined) refuseChallenge(response.authBytes);
      done(error, response);
    });
}

/** @throws the innermost cause: the library calls every error in a login one of authentication, a lost network too. */
async function settled(start: (done: (error?: Error | null) => void) => void): Promise<void> {
  try {
    await new Promise<void>((resolve, reject) => {
      start((error) => {
        if (error) reject(error);
        else resolve();
      });
    });
  } catch (error) {
    throw innermost(error);
  }
}

function innermost(error: unknown): unknown {
  if (error instanceof MultipleErrors) return innermost(error.errors[0]);
  if (error instanceof ProtocolError) return asBrokerError(error);
  if (!(error instanceof GenericError)) return error;
  if (error.cause !== undefined) return innermost(error.cause);
  return error instanceof AuthenticationError
    ? Object.assign(new Error(error.message), { type: 'SASL_AUTHENTICATION_FAILED' })
    : error;
}

/** The form in which `connectError` knows errors of the protocol. */
function asBrokerError(error: ProtocolError): Error {
  const { apiId, serverErrorMessage } = error as ProtocolError & Record<string, unknown>;
  const text = typeof serverErrorMessage === 'string' ? serverErrorMessage : error.message;
  return Object.assign(new Error(text, { cause: error }), { type: apiId });
}
