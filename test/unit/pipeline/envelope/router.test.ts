import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { BrokerConfig, Config } from '../../../../src/config/config.ts';
import type { OutboxEvent } from '../../../../src/pipeline/capture/event.ts';
import type { Message } from '../../../../src/pipeline/envelope/message.ts';
import {
  createRouter,
  isUnaddressable,
  type Unaddressable,
} from '../../../../src/pipeline/envelope/router.ts';
import { DEFAULT_OUTBOX } from '../../../support/default-outbox.ts';
import { eventOf, rowOf, transactionOf } from '../builders.ts';

const VALUES: Readonly<Record<string, string | null>> = {
  id: 'e1',
  aggregatetype: 'order',
  aggregateid: '42',
  type: 'OrderPlaced',
  payload: '{"n": 9007199254740993, "n": 1.0}',
  headers: '{"trace":"t"}',
  created_at: '2026-01-02 03:04:05.678912+00',
};

function configOf(broker: BrokerConfig, route: Partial<Config['route']> = {}): Config {
  const whole: Partial<Config> = {
    outbox: DEFAULT_OUTBOX,
    broker,
    route: { topic: 'outbox.event.${aggregatetype}', key: '${aggregateid}', ...route },
    maxEventBytes: 1_000,
  };
  return whole as Config;
}

const KAFKA = { kind: 'kafka' } as BrokerConfig;

function eventWith(values: Readonly<Record<string, string | null>>, payloadOid = 3802): OutboxEvent {
  return eventOf(1, transactionOf({ committedAtMs: 1_234.5 }), {
    row: rowOf(values, { payload: payloadOid }),
  });
}

function addressed(config: Config, event: OutboxEvent): Message {
  const result = createRouter(config)(event);
  assert.ok(!isUnaddressable(result));
  return result;
}

function refused(config: Config, event: OutboxEvent): Unaddressable {
  const result = createRouter(config)(event);
  assert.ok(isUnaddressable(result));
  return result;
}

describe('router', () => {
  it('P2 makes a message with the payload as stored', () => {
    const event = eventWith(VALUES);
    const message = addressed(configOf(KAFKA), event);
    assert.deepEqual(
      { ...message, headers: { ...message.headers } },
      {
        event,
        destination: 'outbox.event.order',
        key: '42',
        routingKey: '42',
        id: 'e1',
        type: 'OrderPlaced',
        contentType: 'application/json',
        timestampMs: Date.UTC(2026, 0, 2, 3, 4, 5, 678),
        headers: { trace: 't' },
        body: Buffer.from(VALUES['payload'] ?? ''),
        sizeBytes: event.sizeBytes,
        delivery: undefined,
      },
    );
  });

  it('the content type follows the type of the payload', () => {
    for (const [oid, type] of [
      [114, 'application/json'],
      [3802, 'application/json'],
      [17, 'application/octet-stream'],
      [25, 'text/plain; charset=utf-8'],
      [1043, 'text/plain; charset=utf-8'],
    ] as const) {
      assert.equal(addressed(configOf(KAFKA), eventWith(VALUES, oid)).contentType, type);
    }
  });

  it('P2 a NULL payload has no body, an empty one an empty body', () => {
    assert.equal(addressed(configOf(KAFKA), eventWith({ ...VALUES, payload: null })).body, null);
    assert.deepEqual(addressed(configOf(KAFKA), eventWith({ ...VALUES, payload: '' })).body, Buffer.alloc(0));
  });

  it('the time of the commit where the row has none of its own', () => {
    for (const createdAt of [null, 'infinity', '-infinity', '0044-03-15 12:00:00+00 BC', 'nonsense']) {
      assert.equal(
        addressed(configOf(KAFKA), eventWith({ ...VALUES, created_at: createdAt })).timestampMs,
        1_234,
      );
    }
    const { created_at: _, ...without } = VALUES;
    assert.equal(addressed(configOf(KAFKA), eventWith(without)).timestampMs, 1_234);
  });

  it('RabbitMQ: exchange and routing key of their own, the ordering key beside them', () => {
    const broker = {
      kind: 'rabbitmq',
      exchange: 'events.${type}',
      routingKey: '${aggregatetype}.${type}',
    } as BrokerConfig;
    const { destination, key, routingKey } = addressed(configOf(broker), eventWith(VALUES));
    assert.deepEqual([destination, key, routingKey], ['events.OrderPlaced', '42', 'order.OrderPlaced']);
  });

  it('RabbitMQ: ROUTE_TOPIC and the ordering key where nothing else is configured', () => {
    const broker = { kind: 'rabbitmq', exchange: undefined, routingKey: undefined } as BrokerConfig;
    const { destination, key, routingKey } = addressed(configOf(broker), eventWith(VALUES));
    assert.deepEqual([destination, key, routingKey], ['outbox.event.order', '42', '42']);
  });

  it('P10 a row that can not fill a template is refused with the column and why', () => {
    const config = configOf(KAFKA, { topic: '${tenant}', key: '${aggregateid}' });
    const missing = refused(config, eventWith(VALUES));
    assert.equal(missing.code, 'address-incomplete');
    assert.match(missing.reason, /"\$\{tenant\}" can't be filled: column "tenant" does not exist/);
    assert.match(refused(config, eventWith({ ...VALUES, tenant: null })).reason, /"tenant" is NULL/);
    for (const column of ['aggregatetype', 'aggregateid', 'id']) {
      const { code, reason } = refused(configOf(KAFKA), eventWith({ ...VALUES, [column]: null }));
      assert.equal(code, 'address-incomplete');
      assert.match(reason, new RegExp(`"${column}" is NULL`));
    }
  });

  it('P10 bad headers and too many bytes are refused, and say so', () => {
    const bad = refused(configOf(KAFKA), eventWith({ ...VALUES, headers: '[1]' }));
    assert.deepEqual([bad.code, bad.reason], ['headers-invalid', 'headers are not a JSON object']);
    const large = refused(configOf(KAFKA), { ...eventWith(VALUES), sizeBytes: 1_001 });
    assert.equal(large.code, 'event-too-large');
    assert.match(large.reason, /1001 bytes, MAX_EVENT_BYTES allows 1000/);
    addressed(configOf(KAFKA), { ...eventWith(VALUES), sizeBytes: 1_000 });
  });

  it('a table without the optional headers column has none', () => {
    const { headers: _, ...without } = VALUES;
    assert.equal(addressed(configOf(KAFKA), eventWith(without)).headers, undefined);
  });
});
