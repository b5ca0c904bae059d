import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { effectiveSettings } from '../../../src/config/effective.ts';
import { loadChecked, loadConfig } from '../../../src/config/load.ts';
import { maskUrl } from '../../../src/config/mask.ts';

function warningsOf(env: NodeJS.ProcessEnv): string[] {
  const warnings: string[] = [];
  loadConfig(env, { warn: (text) => void warnings.push(text) });
  return warnings;
}

describe('effective settings', () => {
  it('P10 no password is shown, whatever stands in it', () => {
    const shown = [
      'postgresql://u:hu,sh@h/db',
      'postgresql://u:hu@sh@h:5433/db?sslmode=require',
      'postgresql://h/db?user=u&password=hu,sh',
      'postgresql://u:p@h/db?password=hu@sh&sslpassword=hush&nonsense=hush',
      'postgresql://u:hush@/db?host=/run',
      'postgresql://u:12?hush@h/db',
      'postgresql://u:12@b/hush@h/db',
      'postgresql://u:12@b?hush@h/db',
      'postgresql://u:hush[@h',
      'u:hush@h',
    ].map(maskUrl);
    assert.deepEqual(shown, [
      'postgresql://u:******@h/db',
      'postgresql://u:******@h:5433/db?sslmode=require',
      'postgresql://h/db?user=u&password=******',
      'postgresql://u:******@h/db?password=******&sslpassword=******&nonsense=******',
      'postgresql://u:******@/db?host=/run',
      'postgresql://******',
      'postgresql://******',
      'postgresql://u:******@b?******',
      'postgresql://u:******@h',
      '******',
    ]);
  });

  it('a parameter that may be a piece of a password is not named', () => {
    assert.deepEqual(warningsOf({ BROKER: 'stdout', DATABASE_URL: 'postgresql://u:12@b?hu.sh&extra=1' }), [
      'DATABASE_URL: a parameter whose name is no word is not used',
      'DATABASE_URL: the parameter "extra" is not used',
    ]);
  });

  it('no secret is shown, also not inside URLs', () => {
    const { settings } = loadChecked({
      DATABASE_URL: 'postgres://relay:hu@sh@db/shop?sslmode=disable&password=hush',
      DATABASE_PASSWORD: 'hush',
      PGPASSWORD: 'hush',
      BROKER: 'rabbitmq',
      RABBITMQ_URL: 'amqp://u:hush@r1,amqp://u:hush@r2',
      RABBITMQ_PASSWORD: 'hush',
    });
    const shown = new Map(effectiveSettings(settings).map((setting) => [setting.name, setting]));
    assert.ok(!JSON.stringify([...shown.values()]).match(/hush|hu@sh/u));
    assert.equal(
      shown.get('DATABASE_URL')?.value,
      'postgres://relay:******@db/shop?sslmode=disable&password=******',
    );
    assert.equal(shown.get('RABBITMQ_URL')?.value, 'amqp://u:******@r1,amqp://u:******@r2');
    assert.deepEqual(shown.get('SLOT_NAME'), { name: 'SLOT_NAME', value: 'outbox_relay', source: 'default' });
    assert.deepEqual(shown.get('PGUSER'), { name: 'PGUSER', value: null, source: 'not set' });
    assert.equal(shown.has('KAFKA_BROKERS'), false);
  });
});
