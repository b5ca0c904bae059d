import { freePort } from '../../src/demo/services/ports.ts';

/** One sample line of the exposition format. */
const SAMPLE = /^(?<name>[a-z_]+)(?:\{(?<labels>[^}]*)\})? (?<value>\S+)$/;

export interface Scrape {
  /** Sum over all labels; those given have to match, as `code="x"`. `undefined`: there is no such sample. */
  value(name: string, label?: string): number | undefined;
  readonly names: ReadonlySet<string>;
}

/** What a relay shows by HTTP, read as a person or Prometheus would. */
export class ExhibitReader {
  readonly port: number;
  /** The relay's variables for it. */
  readonly env: Readonly<Record<string, string>>;

  private constructor(port: number) {
    this.port = port;
    this.env = { HTTP_HOST: '127.0.0.1', HTTP_PORT: String(port) };
  }

  static async open(): Promise<ExhibitReader> {
    return new ExhibitReader(await freePort());
  }

  async text(path: '/metrics' | '/livez' | '/readyz' | '/status'): Promise<{ status: number; body: string }> {
    const response = await fetch(`http://127.0.0.1:${this.port}${path}`, {
      signal: AbortSignal.timeout(3_000),
      // A connection kept alive would be reset when the relay ends, and fail the next test's first request.
      headers: { connection: 'close' },
    });
    return { status: response.status, body: await response.text() };
  }

  async status(): Promise<Record<string, unknown>> {
    return JSON.parse((await this.text('/status')).body) as Record<string, unknown>;
  }

  async scrape(): Promise<Scrape> {
    return parse((await this.text('/metrics')).body);
  }

  /** Seconds. */
  async lag(): Promise<number> {
    return (await this.scrape()).value('outbox_relay_lag_seconds') ?? Number.NaN;
  }
}

function parse(text: string): Scrape {
  const samples = text.split('\n').flatMap((line) => {
    const groups = SAMPLE.exec(line)?.groups;
    return groups === undefined ? [] : [groups];
  });
  return {
    names: new Set(samples.map(({ name }) => name ?? '')),
    value: (name, label) => {
      const found = samples.filter(
        (sample) => sample['name'] === name && (label === undefined || sample['labels']?.includes(label)),
      );
      if (found.length === 0) return undefined;
      return found.reduce((sum, { value }) => sum + Number(value), 0);
    },
  };
}
