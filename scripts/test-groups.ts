import type { run } from 'node:test';

/** What node's test runner reports. */
export type TestEvent = ReturnType<typeof run> extends AsyncIterable<infer Event> ? Event : never;

/** Cheap ones first: a mistake that a unit test finds should not cost the time of the others. */
const ORDER = ['test/unit', 'test/postgres', 'test/kafka', 'test/rabbitmq', 'test/relay', 'test/fault'];

function place(group: string): number {
  const index = ORDER.indexOf(group);
  return index < 0 ? ORDER.length : index;
}

/** Files by their folder below `test/`, in the order in which they run. */
export function groupFiles(files: readonly string[]): [group: string, files: string[]][] {
  const groups = Map.groupBy(files, (file) => file.split('/').slice(0, 2).join('/'));
  return [...groups]
    .map(([group, members]): [string, string[]] => [group, members.toSorted()])
    .toSorted(([a], [b]) => place(a) - place(b) || a.localeCompare(b));
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
  private durationMs = 0;
  private success = true;
  /** Names of tests that were skipped or are to do. */
  readonly unchecked: string[] = [];

  /** Counts an event; false when it is part of a run's own summary, which must not be shown. */
  take({ type, data }: TestEvent): boolean {
    if (type === 'test:summary') {
      if (data.file !== undefined) return true;
      this.add(data.counts, data.duration_ms, data.success);
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

  private add(counts: Counts, durationMs: number, success: boolean): void {
    for (const name of COUNTS) this.counts[name] += counts[name];
    this.durationMs += durationMs;
    this.success &&= success;
  }

  get passed(): boolean {
    return this.success && this.counts.tests > 0 && this.unchecked.length === 0;
  }

  /** In the words of node's own reporter, which other tools read. */
  summary(): string[] {
    const lines = COUNTS.map((name) => `${TITLES[name] ?? name} ${this.counts[name]}`);
    return [...lines, `duration_ms ${this.durationMs.toFixed(3)}`];
  }
}
