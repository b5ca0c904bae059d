import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import {
  AuthenticationError,
  type Connection,
  defaultPartitioner,
  NetworkError,
  Producer,
  type saslAuthenticateV2,
  saslOAuthBearer,
  saslScramSha,
} from '@platformatic/kafka';
import { partitionOf } from '../../src/pipeline/publish/kafka/murmur2.ts';
import { FakeKafka } from '../support/publisher-fake-kafka.ts';

/**
 * Why the relay uses a connection of `@platformatic/kafka` and neither its producer nor all of its logins. Each test shows
 * what the naive use does, and fails on the day when it no longer does. What the relay makes of the same is shown for
 * both clients in answers.test.ts and security.test.ts.
 */
const NOT_LEADER = 6;

function serializer(text?: string): Buffer {
  return Buffer.from(text ?? '');
}

async function withProducer(
  kafka: FakeKafka,
  run: (producer: Producer<string, string>) => Promise<void>,
): Promise<void> {
  const producer = new Producer<string, string>({
    clientId: 'naive',
    bootstrapBrokers: [kafka.node(1).address],
    serializers: { key: serializer, value: serializer },
    retries: 1,
    retryDelay: 10,
  });
  try {
    await run(producer);
  } finally {
    await producer.close();
    await kafka.close();
  }
}

const twoPartitions = {
  acks: -1,
  messages: [
    { topic: 't', partition: 0, key: 'a', value: 'first' },
    { topic: 't', partition: 1, key: 'b', value: 'second' },
  ],
};

test('the client is the version whose behaviour the relay builds on', () => {
  const manifest = new URL('../package.json', import.meta.resolve('@platformatic/kafka'));
  const { version } = JSON.parse(readFileSync(manifest, 'utf8')) as { version: string };
  assert.equal(version, '2.12.1');
});

test('P1 naive: the producer resolves although the answer does not mention a partition', async () => {
  const kafka = await FakeKafka.start([1]);
  kafka.topics.set('t', [1, 1]);
  kafka.onProduce = ({ partition }) => (partition === 0 ? 'left out' : 0);
  await withProducer(kafka, async (producer) => {
    const { offsets } = await producer.send(twoPartitions);
    assert.deepEqual(
      offsets?.map(({ partition }) => partition),
      [1],
    );
  });
});

test('P4 naive: after an error of one partition, the producer also sends again what was written', async () => {
  const kafka = await FakeKafka.start([1]);
  kafka.topics.set('t', [1, 1]);
  let refusals = 1;
  kafka.onProduce = ({ partition }) => (partition === 1 && refusals-- > 0 ? NOT_LEADER : 0);
  await withProducer(kafka, async (producer) => {
    await producer.send(twoPartitions);
    const written = kafka.produced.filter(({ partition }) => partition === 0);
    assert.equal(written.length, 2, 'the first message was taken twice');
  });
});

test('P3 naive: half of the keys get another partition than from a Java producer', () => {
  const keys = Array.from({ length: 200 }, (_, n) => `key-${n}`);
  const message = { topic: 't' };
  const elsewhere = keys.filter(
    (key) => defaultPartitioner(message, Buffer.from(key)) % 6 !== partitionOf(key, 6),
  );
  assert.ok(elsewhere.length > 50, `${elsewhere.length} of 200`);
});

function unexpected(): void {
  assert.fail('it was told');
}

type Answer = [error: Error | null, response?: saslAuthenticateV2.SaslAuthenticateResponse];

/** A login over a connection that gives this answer to its first message. */
function scram(answer: Answer, done: (error: unknown) => void): void {
  const api = ((_connection: Connection, _bytes: Buffer, answered: (...given: Answer) => void) =>
    answered(...answer)) as saslAuthenticateV2.SASLAuthenticationAPI;
  const connection = {} as Connection;
  saslScramSha.authenticate(api, connection, 'SHA-256', 'user', 'secret', saslScramSha.defaultCrypto, done);
}

test('naive: an answer to a login that can not be read is thrown where nobody catches it', () => {
  const answer = {
    errorCode: 0,
    errorMessage: null,
    authBytes: Buffer.from('rubbish'),
    sessionLifetimeMs: 0n,
  };
  assert.throws(() => scram([null, answer], unexpected), AuthenticationError);
});

test('P10 naive: a connection lost in a login looks like a wrong password', () => {
  let told: unknown;
  scram([new NetworkError('Connection closed')], (error) => (told = error));
  assert.ok(told instanceof AuthenticationError);
});

test('P10 naive: of several commas in the name of a SCRAM user only the first is escaped', () => {
  const [once, twice] = ['a,b', 'a,b,c'].map((name) => saslScramSha.sanitizeString(name));
  assert.deepEqual([once, twice], ['a=2Cb', 'a=2Cb,c']);
});

test('P10 naive: its validator of tokens refuses a token, then accepts it', () => {
  const answers: unknown[] = [];
  const challenge = Buffer.from('{"status":"invalid_token"}');
  saslOAuthBearer.jwtValidateAuthenticationBytes(challenge, (error) => void answers.push(error));
  assert.equal(answers.length, 2);
  assert.ok(answers[0] instanceof AuthenticationError);
  assert.equal(answers[1], null);
});
