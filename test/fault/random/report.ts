import type { PlantedLine } from './planted.ts';
import type { Line } from './record.ts';
import { FAULT_KINDS, KINDS, type FaultKind } from './schedule.ts';
import { quantile } from '../../support/statistics.ts';

/** Markdown of the results: what every kind of fault led to, and which bugs the judge found. Pure. */
export function report(lines: readonly Line[], planted: readonly PlantedLine[]): string {
  return [summary(lines), faultTable(lines), plantedTable(planted)].join('\n\n');
}

function summary(lines: readonly Line[]): string {
  const sum = (of: (line: Line) => number): string =>
    lines.reduce((total, line) => total + of(line), 0).toLocaleString('en');
  const brokers = (['kafka', 'rabbitmq'] as const)
    .map((broker) => `${lines.filter((line) => line.broker === broker).length} on ${TITLES[broker]}`)
    .join(' and ');
  const broken = lines.filter((line) => line.broken.length > 0);
  return [
    `${lines.length} rounds, ${brokers}: ${sum(({ committed }) => committed)} events, ${sum((line) => made(line).length)} faults.`,
    `Rounds with a complaint: ${broken.length}${broken.length > 0 ? ` (${broken.map(({ broker, seed }) => `${broker} ${seed}`).join(', ')})` : ''}.`,
    `Recovery: ${recovery(lines)} s (p50 / p99), of ${recoveries(lines).length} rounds in which it was seen.`,
    `Most memory of a relay: ${Math.max(0, ...lines.map(({ rssMiB }) => rssMiB))} MiB.`,
    killSentence(lines),
  ]
    .map((line) => `- ${line}`)
    .join('\n');
}

const TITLES = { kafka: 'Kafka', rabbitmq: 'RabbitMQ' } as const;

/** Rounds in which a kill is the only thing that can repeat anything. */
function killSentence(lines: readonly Line[]): string {
  const fast = lines.filter((line) => {
    const repeating = made(line).filter((kind) => KINDS[kind].repeats);
    return (
      line.rate === 1_000 &&
      line.bursts === 0 &&
      repeating.length > 0 &&
      repeating.every((kind) => kind === 'relay-kill')
    );
  });
  const kills = fast.flatMap(made).filter((kind) => kind === 'relay-kill').length;
  const duplicates = fast.reduce((total, line) => total + line.duplicates, 0);
  const mean = kills === 0 ? '–' : (duplicates / kills).toFixed(1);
  return `A kill at 1,000 events a second, without bursts, where nothing else can repeat anything: ${mean} duplicates on average (${kills} kills).`;
}

function faultTable(lines: readonly Line[]): string {
  const rows = FAULT_KINDS.map((kind) => {
    const those = lines.filter((line) => made(line).includes(kind));
    const sum = (of: (line: Line) => number): number => those.reduce((total, line) => total + of(line), 0);
    const duplicates = those.map((line) => line.duplicates);
    if (those.length === 0) return [`\`${kind}\``, 0, '–', '–', '–', '–', '–', '–'];
    return [
      `\`${kind}\``,
      those.length,
      sum((line) => line.lost),
      sum((line) => line.invented),
      sum((line) => line.altered),
      sum((line) => line.outOfOrder),
      `${quantile(duplicates, 0.5)} / ${Math.max(...duplicates)}`,
      recovery(those),
    ];
  });
  return table(
    [
      'fault',
      'rounds',
      'lost',
      'invented',
      'altered',
      'out of order',
      'duplicates a round, p50 / max',
      'recovery s, p50 / p99',
    ],
    rows,
  );
}

function plantedTable(planted: readonly PlantedLine[]): string {
  // A bug that was missed at first is looked for again.
  const last = new Map(planted.map((line) => [line.plant, line]));
  const rows = [...last.values()].map((line) => [
    `\`${line.plant}\``,
    line.describes,
    TITLES[line.broker],
    line.rounds ?? 'not found',
    line.complaints.map(kindOf).join(', '),
  ]);
  return table(['bug', 'what the relay does', 'broker', 'rounds', 'complaint'], rows);
}

/** Without examples: "12 lost". */
function kindOf(complaint: string): string {
  return complaint
    .replace(/:.*/s, '')
    .replace('outOfOrder', 'out of order')
    .replace('lagUntrue', 'lag untrue');
}

/** Faults of the round that struck. Old lines have one that could not be undone among those that were not made. */
function made({ faults, notMade }: Line): FaultKind[] {
  const left = notMade.map((text) => text.slice(0, text.indexOf(':')));
  return faults.filter((kind) => {
    const index = left.indexOf(kind);
    if (index >= 0) left.splice(index, 1);
    return index < 0;
  });
}

/** Seconds, p50 and p99. */
function recovery(lines: readonly Line[]): string {
  const seen = recoveries(lines);
  if (seen.length === 0) return '–';
  return [0.5, 0.99].map((share) => (quantile(seen, share) / 1000).toFixed(1)).join(' / ');
}

function recoveries(lines: readonly Line[]): number[] {
  return lines.map(({ recoveredMs = 0 }) => recoveredMs).filter((ms) => ms > 0);
}

function table(head: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  return [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

const BEGIN = '<!-- results: written by npm run fault -- --report -->';
const END = '<!-- end of the results -->';

/** The page with new results between its two marks. Throws when they are not there. */
export function withResults(page: string, results: string): string {
  const begin = page.indexOf(BEGIN);
  const end = page.indexOf(END);
  if (begin < 0 || end < begin) throw new Error(`the page has no "${BEGIN}" before "${END}"`);
  return `${page.slice(0, begin + BEGIN.length)}\n\n${results}\n\n${page.slice(end)}`;
}
