import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { isProvenDead, nameOfThisProcess } from '../../../src/lifecycle/holder.ts';
import { until } from '../../support/until.ts';

/** Elsewhere nobody can tell; a name says nothing, and nothing is ever proven. */
const tells = process.platform === 'linux';
/** Elsewhere nothing proves a death: said by the test run, not passed over. */
const ONLY_HERE = { skip: !tells };
const HOLDER = new URL('../../../src/lifecycle/holder.ts', import.meta.url).href;

function replaced(name: string, index: number, part: string): string {
  return name.split('/').with(index, part).join('/');
}

async function firstLine(child: ChildProcess): Promise<string> {
  if (!child.stdout) throw new Error('no stdout');
  const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
  return line;
}

test('P8 a process that runs is never proven dead; each has a name of its own', () => {
  const name = nameOfThisProcess();
  assert.equal(isProvenDead(name), false);
  assert.equal(name.split('/').length, tells ? 5 : 2);
});

test(
  'P8 a process that has ended is proven dead on the same machine, and only there',
  ONLY_HERE,
  async () => {
    const print = `import { nameOfThisProcess } from '${HOLDER}'; console.log(nameOfThisProcess()); setInterval(() => {}, 1000)`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', print], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const name = await firstLine(child);
    assert.equal(isProvenDead(name), false);
    child.kill('SIGSTOP');
    assert.equal(isProvenDead(name), false, 'a stopped process may go on');
    child.kill('SIGKILL');
    await once(child, 'exit');
    assert.equal(isProvenDead(name), true);
    assert.equal(isProvenDead(replaced(name, 1, 'another-boot')), false);
    assert.equal(isProvenDead(replaced(name, 2, '1')), false, 'of another namespace');
    assert.equal(
      isProvenDead(replaced(nameOfThisProcess(), 4, '1')),
      true,
      'the number was given to another process',
    );
  },
);

test('P8 a process that only waits for its parent is dead', { ...ONLY_HERE, timeout: 20_000 }, async () => {
  const parent = spawn('sh', ['-c', 'sleep 0.3 & echo $!; exec sleep 30'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  try {
    const pid = await firstLine(parent);
    const stat = await until(
      () => {
        const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ');
        return fields?.[0] === 'Z' ? fields : undefined;
      },
      { what: 'a zombie' },
    );
    assert.equal(isProvenDead(replaced(replaced(nameOfThisProcess(), 3, pid), 4, stat[19] ?? '')), true);
  } finally {
    parent.kill('SIGKILL');
    await once(parent, 'exit');
  }
});

test('P8 a name that says nothing proves nothing', () => {
  const name = nameOfThisProcess();
  const nonsense = ['', 'host', 'host/', '////', `host/${crypto.randomUUID()}`];
  if (tells) nonsense.push(...['x', '-1', '0', ''].map((pid) => replaced(name, 3, pid)));
  for (const each of nonsense) assert.equal(isProvenDead(each), false, each);
});
