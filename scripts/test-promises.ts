import { spawnSync } from 'node:child_process';
import { appendFileSync, existsSync, globSync, mkdirSync, readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { codeCommit } from '../test/fault/code-commit.ts';

/**
 * `npm run test:promises [-- --times 10]`: the tests in which a whole relay keeps its promises through faults, as often
 * as asked, to find the one that fails now and then. A line a run in results/promises.jsonl; what has passed at this
 * commit is not repeated. Ends at the first failure, with that run's output.
 */
const { values } = parseArgs({ options: { times: { type: 'string', default: '1' } } });
const FILE = 'results/promises.jsonl';
/** They prove how the relay is packed and shown, and take their time. */
const PACKAGING = new Set(['chart', 'demo', 'examples', 'image']);

interface Run {
  readonly commit: string;
  readonly at: string;
  readonly seconds: number;
  readonly tests: number;
  readonly failed: number;
}

function passedAt(commit: string): number {
  if (!existsSync(FILE)) return 0;
  const lines = readFileSync(FILE, 'utf8').split('\n').filter(Boolean);
  return lines
    .map((line) => JSON.parse(line) as Run)
    .filter((run) => run.commit === commit && run.failed === 0).length;
}

const nameOf = (file: string): string => file.slice(file.lastIndexOf('/') + 1, -'.test.ts'.length);
const files = globSync('test/{relay,fault}/*.test.ts').filter((file) => !PACKAGING.has(nameOf(file)));
const commit = codeCommit();
const times = Number(values.times);
for (let done = passedAt(commit); done < times; done++) {
  const startMs = performance.now();
  const { stdout, status } = spawnSync(process.execPath, ['scripts/test.ts', ...files], {
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const count = (what: string): number => Number(new RegExp(`^ℹ ${what} (\\d+)$`, 'm').exec(stdout)?.[1]);
  const seconds = Math.round((performance.now() - startMs) / 1000);
  const failed = status === 0 ? 0 : Math.max(1, count('fail') || 0);
  const run: Run = { commit, at: new Date().toISOString(), seconds, tests: count('tests'), failed };
  mkdirSync('results', { recursive: true });
  appendFileSync(FILE, `${JSON.stringify(run)}\n`);
  console.log(`run ${done + 1} of ${times}: ${run.tests} tests, ${failed} failed, ${seconds} s`);
  if (failed > 0) {
    console.log(stdout);
    process.exit(1);
  }
}
