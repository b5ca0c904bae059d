import { createRequire } from 'node:module';
import type { Socket } from 'node:net';
import type { ConnectionOptions } from 'node:tls';

/**
 * The parts of `kafkajs` that the relay builds on: its connection (sockets, TLS, SASL, framing, correlation) and its
 * decoders. Its producer is not used: it can resolve for a partition that was never produced, tells of one error for
 * all partitions of a call without naming any, fails every topic's metadata with one topic's, and stops good brokers
 * for a bad one; `test/kafka/naive-producer.test.ts` shows each. These are internal modules: the version is pinned
 * exactly, and a test fails when it moves.
 */
const require = createRequire(import.meta.url);

export interface KafkaConnection {
  readonly socket: Socket;
  readonly requestQueue: {
    push(request: PushedRequest): void;
    destroy(): void;
    scheduleCheckPendingRequests: () => void;
  };
  connect(): Promise<unknown>;
  authenticate(): Promise<void>;
  isConnected(): boolean;
  isAuthenticated(): boolean;
  nextCorrelationId(): number;
  setVersions(versions: ApiVersions): void;
  setSupportAuthenticationProtocol(supported: boolean): void;
  send<T>(protocol: { request: RequestBody; response: ResponseDecoder<T> }): Promise<T>;
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

export interface RequestBody {
  readonly apiKey: number;
  readonly apiVersion: number;
  readonly apiName: string;
  /** The encoder of `kafkajs`, as far as its framing looks at it. */
  readonly encode: () => Promise<{ readonly buf: Buffer; readonly buffer: Buffer }>;
}

export interface ResponseDecoder<T> {
  readonly decode: (payload: Buffer) => Promise<T>;
  /** Throws for the first error code in the answer; the relay reads the codes itself. */
  readonly parse: (decoded: T) => Promise<T>;
}

/** API key → versions that the broker takes. */
export type ApiVersions = Readonly<
  Record<number, { readonly minVersion: number; readonly maxVersion: number }>
>;

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

export interface ProduceAnswer {
  readonly topics: readonly {
    readonly topicName: string;
    readonly partitions: readonly { readonly partition: number; readonly errorCode: number }[];
  }[];
  readonly clientSideThrottleTime?: number;
  readonly throttleTime?: number;
}

export interface MetadataAnswer {
  readonly brokers: readonly { readonly nodeId: number; readonly host: string; readonly port: number }[];
  readonly topicMetadata: readonly {
    readonly topicErrorCode: number;
    readonly topic: string;
    readonly partitionMetadata: readonly {
      readonly partitionErrorCode: number;
      readonly partitionId: number;
      readonly leader: number;
    }[];
  }[];
}

export interface ApiVersionsAnswer {
  readonly apiVersions: readonly {
    readonly apiKey: number;
    readonly minVersion: number;
    readonly maxVersion: number;
  }[];
}

type Decode<T> = (payload: Buffer) => Promise<T>;

function decoderOf<T>(api: string, version: number): Decode<T> {
  const module = require(`kafkajs/src/protocol/requests/${api}/v${version}/response`) as {
    decode: Decode<T>;
  };
  return module.decode;
}

/** Versions: Produce 7 needs Kafka 2.1 (2018) and is taken by 4.x, as are Metadata 5 and ApiVersions 1. */
export const PRODUCE_VERSION = 7;
export const METADATA_VERSION = 5;
export const decodeProduce: Decode<ProduceAnswer> = decoderOf('produce', PRODUCE_VERSION);
export const decodeMetadata: Decode<MetadataAnswer> = decoderOf('metadata', METADATA_VERSION);
export const decodeApiVersions: Decode<ApiVersionsAnswer> = decoderOf('apiVersions', 1);
