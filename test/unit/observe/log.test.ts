import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { LogLevel } from '../../../src/config/config.ts';
import { RelayError } from '../../../src/errors/errors.ts';
import { ChangeLog, type Logger, createLogger } from '../../../src/observe/log.ts';

const now = (): number => Date.UTC(2026, 0, 2, 3, 4, 5, 678);

function collect(format: 'json' | 'pretty', level: LogLevel = 'debug'): { lines: string[]; logger: Logger } {
  const lines: string[] = [];
  return { lines, logger: createLogger({ level, format, write: (line) => void lines.push(line), now }) };
}

const REFUSED = new Error('can not connect', {
  cause: new AggregateError([Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' })]),
});

test('JSON lines: fixed names first, errors with code and causes, bigints as text', () => {
  const { lines, logger } = collect('json');
  logger.warn('broker away', { error: REFUSED, lsn: 2n ** 60n, message: 'not replaced' });
  assert.equal(lines.length, 1);
  assert.match(lines[0] ?? '', /^\{"time":.*\}\n$/);
  assert.deepEqual(JSON.parse(lines[0] ?? ''), {
    time: '2026-01-02T03:04:05.678Z',
    level: 'warn',
    message: 'broker away',
    lsn: '1152921504606846976',
    error: {
      message: 'can not connect',
      cause: { message: 'AggregateError', cause: { code: 'ECONNREFUSED', message: 'connect ECONNREFUSED' } },
    },
  });
});

test("an error's advice is told; its stack and PostgreSQL's detail, which can hold a row, are not", () => {
  const { lines, logger } = collect('json');
  const detailed = Object.assign(new Error('duplicate key'), { code: '23505', detail: 'Key (card)=(4111)' });
  logger.error('failed', {
    error: new RelayError('stop', 'x', 'no', { advice: 'Do this.', cause: detailed }),
  });
  assert.deepEqual(JSON.parse(lines[0] ?? '').error, {
    code: 'x',
    message: 'no',
    advice: 'Do this.',
    cause: { code: '23505', message: 'duplicate key' },
  });
});

test('pretty: one line, whatever the message holds', () => {
  const { lines, logger } = collect('pretty');
  logger.info('hello\nworld', {
    topic: 'outbox.event.order',
    text: 'a "b"\nc',
    none: undefined,
    count: 3,
    lsn: 1n,
  });
  logger.error('gone', { error: REFUSED });
  assert.equal(
    lines[0],
    '03:04:05.678 INFO  hello world topic=outbox.event.order text="a \\"b\\"\\nc" count=3 lsn=1\n',
  );
  assert.equal(
    lines[1],
    '03:04:05.678 ERROR gone error="can not connect <- AggregateError <- ECONNREFUSED · connect ECONNREFUSED"\n',
  );
});

test('levels below the threshold are silent', () => {
  for (const [level, expected] of [
    ['debug', 4],
    ['info', 3],
    ['warn', 2],
    ['error', 1],
  ] as const) {
    const { lines, logger } = collect('json', level);
    for (const at of ['debug', 'info', 'warn', 'error'] as const) logger[at]('x');
    assert.equal(lines.length, expected, level);
  }
});

test('a line is bounded and never throws', () => {
  for (const format of ['json', 'pretty'] as const) {
    const { lines, logger } = collect(format);
    const circle: Record<string, unknown> = {};
    circle['self'] = circle;
    logger.info('circle', { circle });
    logger.info('x'.repeat(1e6), { text: 'y'.repeat(1e6) });
    const endless = new Error('a');
    endless.cause = endless;
    logger.info('endless', { endless });
    assert.equal(lines.length, 3);
    for (const line of lines) assert.ok(line.length < 10_000, `${format}: ${line.length}`);
  }
});

test('P10 a repeated condition is one line a change, with a reminder that counts', () => {
  const { lines, logger } = collect('json');
  let nowMs = 0;
  const changes = new ChangeLog(logger, { now: () => nowMs, remindMs: 1000 });
  const report = (state: string): boolean =>
    changes.report('broker', state, { level: 'warn', message: state, fields: { a: 1 } });
  for (; nowMs < 1000; nowMs += 10) assert.equal(report('away'), nowMs === 0);
  assert.equal(report('away'), true);
  assert.equal(JSON.parse(lines[1] ?? '').repeated, 100);
  assert.equal(report('back'), true);
  assert.equal(report('away'), true);
  assert.equal(JSON.parse(lines[3] ?? '').repeated, undefined);
  assert.equal(changes.report('database', 'away', { level: 'warn', message: 'away' }), true);
  assert.equal(lines.length, 5);
});
