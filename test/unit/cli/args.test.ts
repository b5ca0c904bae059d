import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseCommandLine } from '../../../src/cli/args.ts';
import { explainFailure } from '../../../src/cli/failure.ts';
import { ConfigError, RelayError, UsageError } from '../../../src/errors/errors.ts';

describe('command line', () => {
  it('run is the default command', () => {
    assert.deepEqual(parseCommandLine([]), { command: 'run', values: {}, help: false, version: false });
    assert.deepEqual(parseCommandLine(['--config', 'x.env']).values, { config: 'x.env' });
    assert.equal(parseCommandLine(['-h']).help, true);
    assert.deepEqual(parseCommandLine(['migrate', '--dry-run']).values, { 'dry-run': true });
    assert.deepEqual(parseCommandLine(['demo', '--events=5']).values, { events: '5' });
  });

  for (const [argv, message] of [
    [['confg'], 'unknown command "confg"; did you mean "config"? Commands: run, migrate, config, demo'],
    [['doctor'], 'the command "doctor" is not in this release'],
    [['dead-letters', 'list'], 'the command "dead-letters" is not in this release'],
    [['toString'], /^unknown command "toString"/],
    [['run', '--dry-run'], 'Unknown option \'--dry-run\'; see "outbox-relay run --help"'],
    [['--config'], 'Option \'--config <value>\' argument missing; see "outbox-relay run --help"'],
    [['run', 'now'], /^Unexpected argument 'now'/],
  ] as const) {
    it(`wrong usage: ${argv.join(' ')}`, () => {
      assert.throws(() => parseCommandLine(argv), { name: 'UsageError', message });
    });
  }
});

describe('exit codes', () => {
  const advice = 'Do this.';
  for (const [error, exitCode, text] of [
    [new ConfigError([{ variable: 'A', message: 'b' }]), 78, 'The configuration has 1 problem:\n  A: b'],
    [new UsageError('what'), 2, 'outbox-relay: what'],
    [new RelayError('stop', 'auth', 'refused', { advice }), 78, 'outbox-relay: refused [auth] Do this.'],
    [new RelayError('retry', 'net', 'a\n  b', { advice }), 1, 'outbox-relay: a b [net] Do this.'],
    [new Error('boom'), 1, 'outbox-relay: boom (LOG_LEVEL=debug shows where)'],
    [
      Object.assign(new AggregateError([]), { code: 'ECONNREFUSED' }),
      1,
      'outbox-relay: ECONNREFUSED (LOG_LEVEL=debug shows where)',
    ],
    ['text', 1, 'outbox-relay: text'],
  ] as const) {
    it(text, () => assert.deepEqual(explainFailure(error, false), { exitCode, text }));
  }

  it('the stack of an unclassified error at debug level', () => {
    assert.match(explainFailure(new Error('boom'), true).text, /Error: boom\n\s+at /u);
  });
});
