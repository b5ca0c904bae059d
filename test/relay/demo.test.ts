import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { after, before, describe, it } from 'node:test';
import { connect } from 'amqplib';
import { runDemo } from '../../src/demo/demo.ts';
import { openConsumer } from '../../src/demo/consumers/consumer.ts';
import { withClient } from '../support/database.ts';
import { RelayProcess } from '../support/relay-process.ts';
import { kafkaService, rabbitmqService } from '../support/services.ts';
import { withAdmin } from '../support/topic.ts';
import { until } from '../support/until.ts';

const EVENTS = 200;
const RATE = 400;

/** A folder for temporary files, to see that nothing stays in it. */
let folder: string;

before(() => {
  folder = mkdtempSync(join(tmpdir(), 'demo-test-'));
  // The database server runs as another user when the tests run as root.
  chmodSync(folder, 0o755);
});

after(() => rmSync(folder, { recursive: true, force: true }));

function startDemo(args: readonly string[], env: Readonly<Record<string, string>> = {}): RelayProcess {
  return RelayProcess.start({ args: ['demo', ...args], env: { TMPDIR: folder, ...env } });
}

async function finished(demo: RelayProcess): Promise<Record<string, number>> {
  try {
    const exit = await demo.exit;
    assert.deepEqual(exit, { code: 0, signal: null }, demo.output);
    return summaryOf(demo.stdout);
  } finally {
    await demo.destroy();
  }
}

/** Label → number, of the lines below "Summary". */
function summaryOf(lines: readonly string[]): Record<string, number> {
  const summary = lines.slice(lines.indexOf('Summary') + 1);
  const entries = summary.flatMap((line) => {
    const [, label, digits] = /^ {2}([a-z ]+?) {2,}([\d,]+) {2}/u.exec(line) ?? [];
    return label === undefined || digits === undefined
      ? []
      : [[label, Number(digits.replaceAll(',', ''))] as const];
  });
  return Object.fromEntries(entries);
}

const NOTHING_WRONG = { lost: 0, duplicates: 0, 'out of order': 0 };

function assertComplete(summary: Record<string, number>, events = EVENTS): void {
  const { 'rolled back': rolledBack, ...rest } = summary;
  assert.deepEqual(rest, { committed: events, delivered: events, ...NOTHING_WRONG });
  assert.ok((rolledBack ?? 0) > 0, 'some transactions were rolled back');
}

async function untilFolderIsEmpty(): Promise<void> {
  await until(() => readdirSync(folder).length === 0, { what: 'the temporary files to be removed' });
}

const ENDING = ['--events', String(EVENTS), '--rate', String(RATE)];

describe('demo', () => {
  it('P1 P2 P3 P4 every committed event is delivered once and in order, no rolled-back one; each is printed', async () => {
    const demo = startDemo(ENDING);
    assertComplete(await finished(demo));
    const events = demo.stdout.filter((line) => /^\d\d:\d\d:\d\d\.\d{3} .* #\d+ .* m?s$/u.test(line));
    assert.equal(events.length, EVENTS);
    assert.ok(demo.stdout.some((line) => /^✓ Relay +http:\/\/127\.0\.0\.1:\d+\/metrics$/u.test(line)));
    assert.ok(!demo.output.includes('\u001b'), 'no escape sequences off a terminal');
    await untilFolderIsEmpty();
  });

  it("its database is for its user alone, and it does not read the environment of the user's own", async () => {
    const own = { PGSSLMODE: 'require', PGOPTIONS: '-c nonsense=1', PGUSER: 'me', PGPASSWORD: 'mine' };
    const demo = startDemo(['--events', '1000000', '--rate', '50'], own);
    await demo.waitForLine(/#5 /u, 60_000);
    const url = new URL(/postgresql:\/\/\S+/u.exec(demo.output)?.[0] ?? '');
    assert.match(url.password, /^[0-9a-f]{36}$/u);
    for (const password of ['postgres', ''])
      await assert.rejects(
        withClient(`postgresql://postgres:${password}@${url.host}/postgres`, async () => undefined),
        /password/u,
      );
    demo.kill('SIGINT');
    const { committed, delivered } = await finished(demo);
    assert.equal(delivered, committed);
  });

  it('P1 P2 P3 P4 the same on Kafka, counted by a consumer; topic and group are removed', async () => {
    const { brokers } = await kafkaService();
    const demo = startDemo(['--broker', 'kafka', '--broker-url', brokers.join(','), ...ENDING]);
    assertComplete(await finished(demo));
    const left = await withAdmin({ brokers }, async (admin) => {
      const { groups } = await admin.listGroups();
      return [...(await admin.listTopics()), ...groups.map(({ groupId }) => groupId)];
    });
    const channel = channelOf(demo);
    assert.ok(!left.includes(channel), `${channel} is still among ${left.join(', ')}`);
  });

  it('P1 P2 P3 P4 the same on RabbitMQ, counted by a consumer; the exchange is removed', async () => {
    const { url } = await rabbitmqService();
    const demo = startDemo(['--broker', 'rabbitmq', ...ENDING], { RABBITMQ_URL: url });
    assertComplete(await finished(demo));
    const connection = await connect(url);
    try {
      const channel = await connection.createChannel();
      channel.on('error', () => undefined);
      await assert.rejects(async () => await channel.checkExchange(channelOf(demo)), /NOT[-_]FOUND/u);
    } finally {
      await connection.close();
    }
  });

  it('Ctrl-C closes the shop, drains, and prints a summary', async () => {
    const demo = startDemo(['--events', '1000000', '--rate', '200']);
    // So many that one rolled back among them is all but certain.
    await demo.waitForLine(/#60 /u, 60_000);
    demo.kill('SIGINT');
    const summary = await finished(demo);
    assertComplete(summary, summary['committed']);
    assert.ok((summary['committed'] ?? 0) >= 60);
    await untilFolderIsEmpty();
  });

  it('Ctrl-C while it starts ends it and removes everything', async () => {
    const demo = startDemo([]);
    await demo.waitForLine(/making a database cluster/u);
    demo.kill('SIGINT');
    const exit = await demo.exit;
    assert.equal(exit.code, 0, demo.output);
    await untilFolderIsEmpty();
  });

  for (const when of [/making a database cluster/u, /#1 /u]) {
    it(`a second Ctrl-C ends it at once and leaves nothing: at ${String(when)}`, async () => {
      const demo = startDemo(['--rate', '200']);
      await demo.waitForLine(when, 60_000);
      demo.kill('SIGINT');
      await demo.waitForLine(/^(?:draining|Stopping)/u);
      demo.kill('SIGINT');
      const { code } = await demo.exit;
      // Draining takes a moment only: it may be over before the second signal comes.
      assert.ok(code === 130 || (code === 0 && demo.stdout.includes('Summary')), demo.output);
      await untilFolderIsEmpty();
    });
  }

  it('it fails when its consumer misses an event', async () => {
    const { code, text } = await demoWith((ids) => ids.slice(1));
    assert.equal(code, 1, text);
    const summary = summaryOf(text.split('\n'));
    assert.deepEqual([summary['delivered'], summary['lost'], summary['duplicates']], [19, 1, 0], text);
  });

  it('it fails when its consumer sees an event twice, or one that was never committed', async () => {
    const { code, text } = await demoWith((ids) => [...ids, ids[0] ?? '', 'never-committed']);
    assert.equal(code, 1, text);
    const summary = summaryOf(text.split('\n'));
    assert.deepEqual([summary['delivered'], summary['duplicates'], summary['foreign']], [20, 1, 1], text);
  });

  it('a broker that is not there is told in one line, and everything is removed', async () => {
    const demo = startDemo(['--broker', 'kafka', '--broker-url', '127.0.0.1:9', '--events', '1']);
    assert.equal((await demo.exit).code, 1, demo.output);
    assert.match(demo.stderr.join('\n'), /^outbox-relay: Kafka can't be had: .*127\.0\.0\.1:9.*$/u);
    await untilFolderIsEmpty();
  });

  for (const [args, problem] of [
    [['--broker', 'kafak'], /did you mean "kafka"/u],
    [['--events', '0'], /--events: expected a whole number/u],
    [['--rate', 'fast'], /--rate: expected a whole number/u],
    [['--broker-url', 'amqp://x'], /--broker-url needs --broker/u],
  ] as const) {
    it(`wrong usage: ${args.join(' ')}`, async () => {
      const demo = startDemo(args);
      assert.equal((await demo.exit).code, 2, demo.output);
      assert.match(demo.stderr.join('\n'), problem);
    });
  }
});

function channelOf(demo: RelayProcess): string {
  const channel = demo.stdout.join('\n').match(/outbox-relay-demo-[0-9a-f]+/u)?.[0];
  assert.ok(channel !== undefined, demo.output);
  return channel;
}

/** The demo in this process, with a consumer that tells something else than it saw, at the end. */
async function demoWith(tell: (ids: string[]) => string[]): Promise<{ code: number; text: string }> {
  const output = new Collected();
  const code = await runDemo(
    { broker: 'stdout', brokerUrl: undefined, events: 20, rate: 1000 },
    {
      env: {},
      signal: new AbortController().signal,
      stdout: output,
      stderr: output,
      openConsumer: async (options) => {
        const ids: string[] = [];
        const consumer = await openConsumer({ ...options, onArrival: (id) => ids.push(id) });
        const finish = async (): Promise<void> => {
          await consumer.finish();
          for (const id of tell(ids)) options.onArrival(id);
        };
        return { ...consumer, finish };
      },
    },
  );
  return { code, text: output.text };
}

class Collected extends Writable {
  text = '';

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.text += chunk.toString();
    done();
  }
}
