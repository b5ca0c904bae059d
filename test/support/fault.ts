/** What a test makes the relay do at a fault point, see `src/lifecycle/fault-point.ts`. */
export interface Fault {
  readonly point: string;
  readonly action:
    | { readonly kind: 'kill' | 'stop' | 'notify' }
    | { readonly kind: 'delay'; readonly ms: number };
  /** Only at this hit, counted from 1; `undefined`: at every one. */
  readonly hit: number | undefined;
}

const FORM = /^(?<point>[a-z-]+):(?:(?<kind>kill|stop|notify)|delay-(?<ms>\d+))(?::(?<hit>[1-9]\d*))?$/;

/**
 * Reads `<point>:<action>[:<nth hit>]`, several separated by commas. Actions: `kill` (SIGKILL to itself), `stop`
 * (SIGSTOP to itself), `delay-<ms>` (blocks the process), `notify`. All of them write `fault-point <point>` to stderr.
 */
export function parseFaults(text: string): Fault[] {
  return text
    .split(',')
    .filter((part) => part !== '')
    .map((part) => {
      const groups = FORM.exec(part)?.groups;
      if (groups === undefined) throw new Error(`FAULT: "${part}" is not <point>:<action>[:<nth hit>]`);
      return toFault(groups);
    });
}

function toFault(groups: Record<string, string | undefined>): Fault {
  const { point = '', kind, ms, hit } = groups;
  const action: Fault['action'] =
    kind === undefined ? { kind: 'delay', ms: Number(ms) } : { kind: kind as 'kill' | 'stop' | 'notify' };
  return { point, action, hit: hit === undefined ? undefined : Number(hit) };
}
