import type { run } from 'node:test';

/** What node's test runner reports. */
export type TestEvent = ReturnType<typeof run> extends AsyncIterable<infer Event> ? Event : never;

/**
 * Unit tests first: a mistake that they find should not cost the time of the others. Then the folders with the longest
 * files: one of them that began last would run alone at the end.
 */
const ORDER = ['test/unit', 'test/fault', 'test/kafka', 'test/relay', 'test/rabbitmq', 'test/services'];

export function groupOf(file: string): string {
  return file.split('/').slice(0, 2).join('/');
}

function place(file: string): number {
  const index = ORDER.indexOf(groupOf(file));
  return index < 0 ? ORDER.length : index;
}

/** Files in the order in which they start. */
export function inOrder(files: readonly string[]): string[] {
  return files.toSorted((a, b) => place(a) - place(b) || a.localeCompare(b));
}

export interface FileTime {
  readonly file: string;
  readonly seconds: number;
}

/** A line for each folder with what its files took one after the other, and one for each file that took longest. */
export function timeLines(times: readonly FileTime[]): string[] {
  const groups = Map.groupBy(times, ({ file }) => groupOf(file));
  const slowest = times.toSorted((a, b) => b.seconds - a.seconds).slice(0, 5);
  return [
    ...[...groups].map(([group, members]) => {
      const sum = members.reduce((seconds, member) => seconds + member.seconds, 0);
      return `${group}: ${members.length} files, ${sum.toFixed(1)} s one after the other`;
    }),
    ...slowest.map(({ file, seconds }) => `${file}: ${seconds.toFixed(1)} s`),
  ];
}

const COUNTS = ['tests', 'suites', 'passed', 'failed', 'cancelled', 'skipped', 'todo'] as const;
const TITLES: Readonly<Record<string, string>> = { passed: 'pass', failed: 'fail' };
const SUMMARY_LINE = /^(tests|suites|pass|fail|cancelled|skipped|todo|duration_ms) [\d.]+$/;

type Counts = Record<(typeof COUNTS)[number], number>;

/** Adds up the summaries of several runs. */
export class Totals {
  private readonly counts: Counts = {
    tests: 0,
    suites: 0,
    passed: 0,
    failed: 0,
    cancelled: 0,
    skipped: 0,
    todo: 0,
  };
  private success = true;
  /** Names of tests that were skipped or are to do. */
  readonly unchecked: string[] = [];

  /** Counts an event; false when it is part of a run's own summary, which must not be shown. */
  take({ type, data }: TestEvent): boolean {
    if (type === 'test:summary') {
      if (data.file !== undefined) return true;
      this.add(data.counts, data.success);
      return false;
    }
    if (type === 'test:pass' || type === 'test:fail') {
      const { skip, todo } = data;
      // Given as a reason or as true; absent or false when the test counts.
      if ((skip !== undefined && skip !== false) || (todo !== undefined && todo !== false)) {
        this.unchecked.push(data.name);
      }
    }
    return !(type === 'test:diagnostic' && data.nesting === 0 && SUMMARY_LINE.test(data.message));
  }

  private add(counts: Counts, success: boolean): void {
    for (const name of COUNTS) this.counts[name] += counts[name];
    this.success &&= success;
  }

  get passed(): boolean {
    return this.success && this.counts.tests > 0 && this.unchecked.length === 0;
  }

  /** In the words of node's own reporter, which other tools read. */
  summary(durationMs: number): string[] {
    const lines = COUNTS.map((name) => `${TITLES[name] ?? name} ${this.counts[name]}`);
    return [...lines, `duration_ms ${durationMs.toFixed(3)}`];
  }
}
