/** The part of the Dockerfile language that this project's Dockerfile uses. Anything else throws: never guess a step. */
export type Instruction =
  | { readonly kind: 'workdir'; readonly path: string }
  | { readonly kind: 'env'; readonly name: string; readonly value: string }
  | {
      readonly kind: 'copy';
      readonly from: string | undefined;
      readonly sources: readonly string[];
      readonly to: string;
    }
  | { readonly kind: 'run'; readonly command: string }
  | { readonly kind: 'user'; readonly uid: number; readonly gid: number }
  | { readonly kind: 'entrypoint' | 'cmd' | 'healthcheck'; readonly argv: readonly string[] }
  | { readonly kind: 'label'; readonly text: string }
  | { readonly kind: 'expose'; readonly port: number };

export interface Stage {
  readonly name: string;
  readonly base: string;
  readonly instructions: readonly Instruction[];
}

/** Stages in the order of the file, build arguments replaced by their defaults. */
export function parseDockerfile(text: string): Stage[] {
  const args = new Map<string, string>();
  const stages: { name: string; base: string; instructions: Instruction[] }[] = [];
  for (const line of logicalLines(text)) {
    const [, keyword = '', raw = ''] = /^(\w+)\s+(.*)$/s.exec(line) ?? refuse(line);
    const rest = substitute(raw, args);
    if (keyword === 'ARG') {
      const [name = '', value] = rest.split('=');
      if (value === undefined) refuse(line);
      else args.set(name, value);
    } else if (keyword === 'FROM') {
      const [, base = '', name = ''] = /^(\S+) AS (\w+)$/.exec(rest) ?? refuse(line);
      stages.push({ name, base, instructions: [] });
    } else {
      (stages.at(-1) ?? refuse(line)).instructions.push(parseInstruction(keyword, rest));
    }
  }
  return stages;
}

/** Paths that may enter the build: the `!` lines of a `.dockerignore` whose first pattern is `*`. */
export function parseDockerignore(text: string): string[] {
  const [first, ...rest] = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  if (first !== '*' || !rest.every((line) => /^![\w./-]+$/.test(line)))
    throw new Error('.dockerignore must exclude everything (*) and then name what enters (!path)');
  return rest.map((line) => line.slice(1));
}

function parseInstruction(keyword: string, rest: string): Instruction {
  switch (keyword) {
    case 'WORKDIR':
      return { kind: 'workdir', path: rest };
    case 'ENV': {
      const [, name = '', value = ''] = /^(\w+)=(\S*)$/.exec(rest) ?? refuse(`${keyword} ${rest}`);
      return { kind: 'env', name, value };
    }
    case 'COPY':
      return parseCopy(rest);
    case 'RUN':
      return { kind: 'run', command: parseRun(rest) };
    case 'USER': {
      const [, uid, gid] = /^(\d+):(\d+)$/.exec(rest) ?? refuse(`USER ${rest}: numbers are needed`);
      return { kind: 'user', uid: Number(uid), gid: Number(gid) };
    }
    case 'ENTRYPOINT':
      return { kind: 'entrypoint', argv: execForm(keyword, rest) };
    case 'CMD':
      return { kind: 'cmd', argv: execForm(keyword, rest) };
    case 'HEALTHCHECK':
      return { kind: 'healthcheck', argv: execForm(keyword, rest.replace(/^.*?\bCMD\s+/s, '')) };
    case 'LABEL':
      return { kind: 'label', text: rest };
    case 'EXPOSE':
      return { kind: 'expose', port: Number(rest) };
    default:
      return refuse(`${keyword} ${rest}`);
  }
}

function parseCopy(rest: string): Instruction {
  const words = rest.split(/\s+/);
  const flags = words.filter((word) => word.startsWith('--'));
  const paths = words.filter((word) => !word.startsWith('--'));
  const from = flags.map((flag) => /^--from=(\w+)$/.exec(flag)?.[1] ?? refuse(`COPY ${flag}`));
  const to = paths.pop();
  if (to === undefined || paths.length === 0 || from.length > 1) return refuse(`COPY ${rest}`);
  return { kind: 'copy', from: from[0], sources: paths, to };
}

/** Cache mounts only save time. A path from the root would reach this machine's own files, so it is refused. */
function parseRun(rest: string): string {
  const command = rest.replace(/^(--mount=type=cache,\S+\s+)*/, '');
  if (command.startsWith('--') || /(^|[\s=:'"])\//.test(command)) refuse(`RUN ${command}`);
  return command;
}

/** A shell as process 1 would keep SIGTERM to itself. */
function execForm(keyword: string, text: string): string[] {
  const argv: unknown = text.startsWith('[') ? JSON.parse(text) : undefined;
  if (!Array.isArray(argv) || !argv.every((word) => typeof word === 'string'))
    throw new Error(`${keyword} must be in exec form (a JSON list): ${text}`);
  return argv;
}

function logicalLines(text: string): string[] {
  const lines = text.split('\n').filter((line) => line.trim() !== '' && !line.trimStart().startsWith('#'));
  return lines
    .join('\n')
    .replaceAll(/\s*\\\n\s*/g, ' ')
    .split('\n');
}

function substitute(text: string, args: ReadonlyMap<string, string>): string {
  return text.replaceAll(/\$\{(\w+)\}/g, (whole, name: string) => args.get(name) ?? whole);
}

function refuse(what: string): never {
  throw new Error(`The Dockerfile has a step that can't be carried out without an engine: ${what}`);
}
