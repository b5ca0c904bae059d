/**
 * The requests that the relay makes and the answers that it reads; whichever client library carries them.
 * Format: https://kafka.apache.org/protocol. Produce 7 needs Kafka 2.1 (2018) and is taken by 4.x, as are the others.
 */
export const PRODUCE = { apiKey: 0, version: 7, name: 'Produce' } as const;
export const METADATA = { apiKey: 3, version: 5, name: 'Metadata' } as const;
export const API_VERSIONS = { apiKey: 18, version: 1, name: 'ApiVersions' } as const;

/** One whose body stands behind the usual header (version 1). */
export interface Request {
  readonly apiKey: number;
  readonly version: number;
  readonly name: string;
  readonly body: Buffer;
}

/** API key → versions that the broker takes. */
export type ApiVersions = Readonly<
  Record<number, { readonly minVersion: number; readonly maxVersion: number }>
>;

export interface ProduceAnswer {
  readonly topics: readonly {
    readonly topicName: string;
    readonly partitions: readonly { readonly partition: number; readonly errorCode: number }[];
  }[];
  readonly throttleTimeMs: number;
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

/** Length and header of a request; its body follows. */
export function requestHeader(request: Request, correlationId: number, clientId: string): Buffer {
  const client = Buffer.from(clientId);
  const header = Buffer.allocUnsafe(14 + client.length);
  header.writeInt32BE(header.length - 4 + request.body.length, 0);
  header.writeInt16BE(request.apiKey, 4);
  header.writeInt16BE(request.version, 6);
  header.writeInt32BE(correlationId, 8);
  header.writeInt16BE(client.length, 12);
  client.copy(header, 14);
  return header;
}

/** Topics that don't exist are created if the cluster does so, as for every producer. No topics: brokers alone. */
export function encodeMetadata(topics: readonly string[]): Buffer {
  const names = topics.map((topic) => Buffer.from(topic));
  const buffer = Buffer.alloc(4 + names.reduce((sum, name) => sum + 2 + name.length, 0) + 1);
  let at = buffer.writeInt32BE(names.length, 0);
  for (const name of names) {
    at = buffer.writeInt16BE(name.length, at);
    at += name.copy(buffer, at);
  }
  buffer[at] = 1;
  return buffer;
}

/** @throws RangeError when the answer is cut short, as do all of these. */
export function decodeApiVersions(payload: Buffer): ApiVersions {
  const answer = new AnswerReader(payload);
  answer.int16(); // error code: of a broker that lists no versions, each one needed is missing
  const versions = answer.list(() => {
    return [answer.int16(), { minVersion: answer.int16(), maxVersion: answer.int16() }] as const;
  });
  return Object.fromEntries(versions);
}

export function decodeMetadata(payload: Buffer): MetadataAnswer {
  const answer = new AnswerReader(payload);
  answer.skip(4); // throttle time
  const brokers = answer.list(() => {
    const broker = { nodeId: answer.int32(), host: answer.text(), port: answer.int32() };
    answer.text(); // rack
    return broker;
  });
  answer.text(); // cluster id
  answer.skip(4); // controller
  return { brokers, topicMetadata: answer.list(() => decodeTopic(answer)) };
}

function decodeTopic(answer: AnswerReader): MetadataAnswer['topicMetadata'][number] {
  const topicErrorCode = answer.int16();
  const topic = answer.text();
  answer.skip(1); // internal
  const partitionMetadata = answer.list(() => {
    const partitionErrorCode = answer.int16();
    const partition = { partitionErrorCode, partitionId: answer.int32(), leader: answer.int32() };
    for (let lists = 0; lists < 3; lists++) answer.skip(4 * Math.max(0, answer.int32())); // replicas, in sync, offline
    return partition;
  });
  return { topicErrorCode, topic, partitionMetadata };
}

/** Partitions that the broker did not mention are not in it: whoever reads it has to look for each that was sent. */
export function decodeProduce(payload: Buffer): ProduceAnswer {
  const answer = new AnswerReader(payload);
  const topics = answer.list(() => {
    const topicName = answer.text();
    const partitions = answer.list(() => {
      const partition = { partition: answer.int32(), errorCode: answer.int16() };
      answer.skip(24); // offset, append time, start of the log
      return partition;
    });
    return { topicName, partitions };
  });
  return { topics, throttleTimeMs: answer.int32() };
}

class AnswerReader {
  private readonly buffer: Buffer;
  private at = 0;

  constructor(buffer: Buffer) {
    this.buffer = buffer;
  }

  int16(): number {
    this.at += 2;
    return this.buffer.readInt16BE(this.at - 2);
  }

  int32(): number {
    this.at += 4;
    return this.buffer.readInt32BE(this.at - 4);
  }

  /** Empty for none. */
  text(): string {
    const length = Math.max(0, this.int16());
    const start = this.skip(length);
    return this.buffer.toString('utf8', start, this.at);
  }

  list<T>(one: () => T): T[] {
    const items: T[] = [];
    // Not allocated by the count: an answer that is cut short must throw, not fill the memory.
    for (let count = this.int32(); count > 0; count--) items.push(one());
    return items;
  }

  /** @returns where it began. */
  skip(bytes: number): number {
    const start = this.at;
    this.at += bytes;
    if (this.at > this.buffer.length) throw new RangeError('the answer is cut short');
    return start;
  }
}
