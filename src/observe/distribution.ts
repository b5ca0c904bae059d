/**
 * A Prometheus histogram for the path of every event: an observation is a comparison or two and an addition, where the
 * library's own looks its labels up each time (0.3 µs, one thirtieth of what an event may cost in all).
 */
export class Distribution {
  readonly name: string;
  private readonly help: string;
  private readonly bounds: readonly number[];
  private readonly counts: Float64Array;
  private sum = 0;

  constructor(options: { readonly name: string; readonly help: string; readonly bounds: readonly number[] }) {
    this.name = options.name;
    this.help = options.help;
    this.bounds = options.bounds;
    this.counts = new Float64Array(options.bounds.length + 1);
  }

  /** An event took so long. A clock that jumped back counts as 0. */
  observe(seconds: number): void {
    const value = seconds > 0 ? seconds : 0;
    let bucket = 0;
    while (bucket < this.bounds.length && value > (this.bounds[bucket] ?? 0)) bucket++;
    this.counts[bucket] = (this.counts[bucket] ?? 0) + 1;
    this.sum += value;
  }

  /** Exposition format, with a newline at the end: https://prometheus.io/docs/instrumenting/exposition_formats/ */
  text(): string {
    const lines = [`# HELP ${this.name} ${this.help}`, `# TYPE ${this.name} histogram`];
    let total = 0;
    for (const [index, count] of this.counts.entries()) {
      total += count;
      lines.push(`${this.name}_bucket{le="${this.bounds[index] ?? '+Inf'}"} ${total}`);
    }
    lines.push(`${this.name}_sum ${this.sum}`, `${this.name}_count ${total}`);
    return `${lines.join('\n')}\n`;
  }
}
