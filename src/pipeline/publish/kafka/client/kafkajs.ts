import { createRequire } from 'node:module';
import type { Socket } from 'node:net';
import type { ConnectionOptions } from 'node:tls';

import type { ApiVersions } from '../protocol.ts';

/**
 * The part of `kafkajs` that the relay builds on: its connection (sockets, TLS, SASL, framing, correlation). Its producer
 * is not used: it can resolve for a partition that was never produced, tells of one error for all partitions of a call
 * without naming any, fails every topic's metadata with one topic's, and stops good brokers for a bad one;
 * `test/kafka/naive-producer.test.ts` shows each. These are internal modules: the version is pinned exactly, and a test
 * fails when it moves.
 */
const require = createRequire(import.meta.url);

export interface KafkaConnection {
  readonly socket: Socket;
  readonly requestQueue: {
    push(request: PushedRequest): void;
    destroy(): void;
    scheduleCheckPendingRequests: () => void;
  };
  /** Milliseconds, a 64-bit number of the library's own kind; 0 without a limit. */
  readonly sessionLifetime: { toString(): string };
  /** How long before the end of a session the next login is due, milliseconds. */
  reauthenticationThreshold: number;
  connect(): Promise<unknown>;
  authenticate(): Promise<void>;
  isAuthenticated(): boolean;
  nextCorrelationId(): number;
  setVersions(versions: ApiVersions): void;
  setSupportAuthenticationProtocol(supported: boolean): void;
}

export interface PushedRequest {
  readonly entry: {
    readonly apiKey: number;
    readonly apiName: string;
    readonly apiVersion: number;
    readonly correlationId: number;
    readonly resolve: (answer: { readonly payload: Buffer }) => void;
    readonly reject: (error: Error) => void;
  };
  readonly expectResponse: true;
  readonly requestTimeout: number;
  readonly sendRequest: () => void;
}

export interface ResponseDecoder<T> {
  readonly decode: (payload: Buffer) => Promise<T>;
  /** Throws for the first error code in the answer; the relay reads the codes itself. */
  readonly parse: (decoded: T) => Promise<T>;
}

interface Logger {
  namespace(): Logger;
  debug(): void;
  info(): void;
  warn(): void;
  error(): void;
}

export interface SaslExchange {
  readonly request: { readonly encode: () => Promise<Buffer> };
  readonly response?: ResponseDecoder<Buffer>;
}

export interface KafkaSasl {
  readonly mechanism: string;
  readonly username?: string;
  readonly password?: string;
  readonly authenticationProvider?: (connection: {
    saslAuthenticate(exchange: SaslExchange): Promise<unknown>;
  }) => { authenticate(): Promise<void> };
}

export interface KafkaConnectionOptions {
  readonly host: string;
  readonly port: number;
  readonly clientId: string;
  readonly ssl: ConnectionOptions | undefined;
  readonly sasl: KafkaSasl | undefined;
  readonly socketFactory: (target: {
    host: string;
    port: number;
    ssl: ConnectionOptions | null;
    onConnect: () => void;
  }) => Socket;
  readonly connectionTimeout: number;
  readonly requestTimeout: number;
  readonly enforceRequestTimeout: boolean;
  readonly logger: Logger;
}

const Connection = require('kafkajs/src/network/connection') as new (
  options: KafkaConnectionOptions,
) => KafkaConnection;

/** Everything it would log comes to the relay as an error as well, and is logged there once, with advice. */
const SILENT: Logger = {
  namespace: () => SILENT,
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};

export function newConnection(options: Omit<KafkaConnectionOptions, 'logger'>): KafkaConnection {
  return new Connection({ ...options, logger: SILENT });
}
