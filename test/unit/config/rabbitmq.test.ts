import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import type { RabbitmqConfig } from '../../../src/config/config.ts';
import { loadConfig } from '../../../src/config/load.ts';
import { RelayError } from '../../../src/errors/errors.ts';

const folder = mkdtempSync(join(tmpdir(), 'rabbitmq-config-'));
after(() => rmSync(folder, { recursive: true }));

const BASE = { DATABASE_URL: 'postgresql://relay:hush@db/shop', BROKER: 'rabbitmq' };

function rabbitmq(env: NodeJS.ProcessEnv): RabbitmqConfig {
  const { broker } = loadConfig({ ...BASE, ...env });
  assert.ok(broker.kind === 'rabbitmq');
  return broker;
}

function warningsOf(url: string, password = ''): string[] {
  const warnings: string[] = [];
  const env = { ...BASE, RABBITMQ_URL: url, RABBITMQ_PASSWORD: password };
  loadConfig(env, { warn: (text) => void warnings.push(text) });
  return warnings;
}

describe('RabbitMQ', () => {
  it('the exchange of all events is known as such', () => {
    assert.equal(rabbitmq({ RABBITMQ_URL: 'amqp://r1', RABBITMQ_EXCHANGE: 'shop' }).exchangeIsConstant, true);
    assert.equal(
      rabbitmq({ RABBITMQ_URL: 'amqp://r1', RABBITMQ_EXCHANGE: 'shop.${type}' }).exchangeIsConstant,
      false,
    );
    assert.equal(rabbitmq({ RABBITMQ_URL: 'amqp://r1', ROUTE_TOPIC: 'shop' }).exchangeIsConstant, true);
  });

  it('a password in the clear is warned of, unless the broker is on this machine', () => {
    const clear = ['RABBITMQ_URL: without TLS the password is sent in the clear; use amqps://'];
    assert.deepEqual(warningsOf('amqp://u:p@r1'), clear);
    assert.deepEqual(warningsOf('amqp://r1', 'hush'), clear);
    for (const url of ['amqps://u:p@r1', 'amqp://u:p@localhost', 'amqp://u:p@127.0.0.1', 'amqp://u:p@[::1]'])
      assert.deepEqual(warningsOf(url), []);
  });

  it('a rotated file must not change between TLS and none in silence', () => {
    const path = join(folder, 'url');
    writeFileSync(path, 'amqps://u:p@r1');
    const broker = rabbitmq({ RABBITMQ_URL_FILE: path });
    writeFileSync(path, 'amqps://u:other@r2');
    assert.deepEqual(broker.urls(), ['amqps://u:other@r2']);
    writeFileSync(path, 'amqp://u:p@r1');
    assert.throws(
      () => broker.urls(),
      (error) =>
        error instanceof RelayError && error.consequence === 'stop' && /amqps:\/\//.test(error.message),
    );
  });

  it('a rotated file that holds no URL any more waits for a person, and is not quoted', () => {
    const path = join(folder, 'broken');
    writeFileSync(path, 'amqp://u:p@r1');
    const broker = rabbitmq({ RABBITMQ_URL_FILE: path });
    writeFileSync(path, 'u:hush@r1');
    assert.throws(
      () => broker.urls(),
      (error) =>
        error instanceof RelayError &&
        error.code === 'rabbitmq-url' &&
        error.consequence === 'stop' &&
        !error.message.includes('hush'),
    );
  });
});
