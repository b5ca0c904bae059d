import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { PlantedLine } from '../../fault/random/planted.ts';
import type { Line } from '../../fault/random/record.ts';
import { report, withResults } from '../../fault/random/report.ts';

const LINE: Line = {
  seed: 1,
  broker: 'kafka',
  commit: 'abc1234',
  at: '',
  seconds: 8,
  rate: 1_000,
  bursts: 0,
  relays: 1,
  faults: ['relay-kill'],
  committed: 4_000,
  delivered: 4_002,
  lost: 0,
  invented: 0,
  altered: 0,
  outOfOrder: 0,
  duplicates: 2,
  recoveredMs: 500,
  rssMiB: 120,
  notMade: [],
  ownExits: 0,
  broken: [],
};

function row(text: string, kind: string): string | undefined {
  return text.split('\n').find((line) => line.startsWith(`| \`${kind}\` |`));
}

test('a round counts for every kind of fault that was made in it, once', () => {
  const lines: Line[] = [
    LINE,
    {
      ...LINE,
      seed: 2,
      faults: ['relay-kill', 'relay-kill', 'slot-dropped'],
      duplicates: 6,
      recoveredMs: 1_500,
    },
    { ...LINE, seed: 3, faults: ['slot-dropped'], bursts: 1, notMade: ['slot-dropped: there was no slot'] },
    {
      ...LINE,
      seed: 4,
      broker: 'rabbitmq',
      faults: ['postgres-crash'],
      recoveredMs: undefined,
      lost: 3,
      broken: ['3 lost: a; b; c'],
    },
  ];
  const text = report(lines, []);
  assert.equal(row(text, 'relay-kill'), '| `relay-kill` | 2 | 0 | 0 | 0 | 0 | 2 / 6 | 0.5 / 1.5 |');
  assert.equal(row(text, 'slot-dropped'), '| `slot-dropped` | 1 | 0 | 0 | 0 | 0 | 6 / 6 | 1.5 / 1.5 |');
  assert.equal(row(text, 'postgres-crash'), '| `postgres-crash` | 1 | 3 | 0 | 0 | 0 | 2 / 2 | – |');
  assert.equal(row(text, 'topic-late'), '| `topic-late` | 0 | – | – | – | – | – | – |');
  assert.match(text, /^- 4 rounds, 3 on Kafka and 1 on RabbitMQ: 16,000 events, 5 faults\.$/m);
  assert.match(text, /^- Recovery: 0\.5 \/ 1\.5 s \(p50 \/ p99\), of 3 rounds in which it was seen\.$/m);
  assert.match(text, /^- Rounds with a complaint: 1 \(rabbitmq 4\)\.$/m);
  // Three kills in two rounds, two and six duplicates.
  assert.match(text, /2\.7 duplicates on average \(3 kills\)\.$/m);
});

test('a planted bug is shown with its rounds, or as not found', () => {
  const found: PlantedLine = {
    plant: 'a-bug',
    describes: 'It forgets.',
    broker: 'rabbitmq',
    commit: 'abc1234',
    at: '',
    seconds: 20,
    rounds: 2,
    seed: 2,
    complaints: ['12 lost: a; b; c', '3 outOfOrder: x'],
    control: [],
  };
  const text = report([], [found, { ...found, plant: 'another', rounds: undefined, complaints: [] }]);
  assert.equal(row(text, 'a-bug'), '| `a-bug` | It forgets. | RabbitMQ | 2 | 12 lost, 3 out of order |');
  assert.equal(row(text, 'another'), '| `another` | It forgets. | RabbitMQ | not found |  |');
});

test('results take the place of the earlier ones, and nothing else changes', () => {
  const page =
    'before\n<!-- results: written by npm run fault -- --report -->\nold\n<!-- end of the results -->\nafter\n';
  const written = withResults(page, 'new');
  assert.match(written, /^before\n<!--.*-->\n\nnew\n\n<!--.*-->\nafter\n$/);
  assert.equal(withResults(written, 'new'), written);
  assert.throws(() => withResults('nothing', 'new'), /the page has no/);
});
