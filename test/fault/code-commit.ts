import { execFileSync } from 'node:child_process';

/** What a result speaks of: the relay, and the tests that judge it. Not documents, nor the results themselves. */
const CODE = ['src', 'migrations', 'test', 'scripts', 'package-lock.json'];

/** The last commit that changed the code, with a word where the work tree differs from it. */
export function codeCommit(): string {
  return git('log', '-1', '--format=%h') + (git('status', '--porcelain') === '' ? '' : ' and changes');
}

function git(...args: string[]): string {
  return execFileSync('git', [...args, '--', ...CODE], { encoding: 'utf8' }).trim();
}
