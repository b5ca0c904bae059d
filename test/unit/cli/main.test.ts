import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, it } from 'node:test';

const MAIN = fileURLToPath(new URL('../../../src/main.ts', import.meta.url));

/** The real process, with nothing of this one's environment. */
function outboxRelay(args: readonly string[], env: NodeJS.ProcessEnv = {}) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [MAIN, ...args], { env, encoding: 'utf8' });
  return { status, stdout, stderr };
}

const GOOD = { DATABASE_URL: 'postgresql://relay:hush@db/shop', BROKER: 'stdout' };

describe('P10 bad configuration ends the process at once', () => {
  const env = { BROKER: 'kafka', MAX_ATTEMPTS: 'many', SLOT_NAME: 'A-B', KAFKA_BROKER: 'k1:9092' };
  for (const command of ['run', 'config']) {
    it(`${command}: exit code 78, every problem listed by variable name`, () => {
      assert.deepEqual(outboxRelay([command], env), {
        status: 78,
        stdout: '',
        stderr: `warning: KAFKA_BROKER: no such variable; the nearest is KAFKA_BROKERS
The configuration has 4 problems:
  SLOT_NAME: expected 1 to 63 lower-case letters, digits and underscores, got "A-B"
  MAX_ATTEMPTS: expected a whole number from 1 to 1000, got "many"
  DATABASE_URL: required: postgresql://user:password@host:port/database, or PGHOST, PGUSER and PGDATABASE
  KAFKA_BROKERS: required with BROKER=kafka: host:port, comma-separated
`,
      });
    });
  }

  it('migrate: exit code 78 without a database', () => {
    const { status, stderr } = outboxRelay(['migrate', '--dry-run']);
    assert.equal(status, 78);
    assert.match(stderr, /^The configuration has 1 problem:\n {2}DATABASE_URL: required/u);
  });

  it('a configuration file that is not there', () => {
    const { status, stderr } = outboxRelay(['--config', '/nowhere.env'], GOOD);
    assert.equal(status, 78);
    assert.match(stderr, /--config: can't read the file \/nowhere\.env \(ENOENT/u);
  });
});

describe('the process', () => {
  it('--help and --version of the program and of a command: exit code 0', () => {
    assert.match(outboxRelay(['--help']).stdout, /^Usage: outbox-relay \[command\]/u);
    assert.match(outboxRelay(['migrate', '--help']).stdout, /--dry-run/u);
    const { status, stdout } = outboxRelay(['config', '--version'], {});
    assert.equal(status, 0);
    assert.match(stdout, /^outbox-relay \d+\.\d+\.\d+/u);
  });

  it('wrong usage: exit code 2', () => {
    const { status, stdout, stderr } = outboxRelay(['status']);
    assert.deepEqual(
      [status, stdout, stderr],
      [2, '', 'outbox-relay: the command "status" is not in this release\n'],
    );
  });

  it('config --json: every value with its source, secrets masked', () => {
    const { status, stdout } = outboxRelay(['config', '--json'], { ...GOOD, MAX_ATTEMPTS: '9' });
    const shown = JSON.parse(stdout) as Record<string, unknown>;
    assert.equal(status, 0);
    assert.deepEqual(shown['MAX_ATTEMPTS'], { value: '9', source: 'environment' });
    assert.deepEqual(shown['DATABASE_URL'], {
      value: 'postgresql://relay:******@db/shop',
      source: 'environment',
    });
    assert.deepEqual(shown['CLEANUP'], { value: 'delete', source: 'default' });
  });

  it('config: a line for every setting', () => {
    const { stdout } = outboxRelay(['config'], GOOD);
    assert.match(stdout, /^DATABASE_URL +environment +postgresql:\/\/relay:\*{6}@db\/shop$/mu);
    assert.match(stdout, /^MAX_IN_FLIGHT_BYTES +default +64MiB$/mu);
  });
});
