export type Style = 'plain' | 'bold' | 'dim' | 'green' | 'yellow' | 'red' | 'cyan';

/** A piece of a line in one style. Styled last: what is cut or padded must be counted without escape sequences. */
export type Segment = readonly [text: string, style: Style];

const CODES: Readonly<Record<Exclude<Style, 'plain'>, number>> = {
  bold: 1,
  dim: 2,
  red: 31,
  green: 32,
  yellow: 33,
  cyan: 36,
};

export interface Looks {
  readonly color: boolean;
  /** Columns that a line may take; a longer one is cut. */
  readonly width: number;
}

/** One line, without newline. */
export function render(segments: readonly Segment[], { color, width }: Looks): string {
  let left = width;
  let line = '';
  for (const [text, style] of segments) {
    if (left <= 0) break;
    const fits = text.length <= left ? text : `${text.slice(0, left - 1)}…`;
    left -= fits.length;
    line += color && style !== 'plain' ? `\u001b[${CODES[style]}m${fits}\u001b[0m` : fits;
  }
  return line.trimEnd();
}

/** https://no-color.org: any value but an empty one. */
export function wantsColor(stream: { readonly isTTY?: boolean }, env: NodeJS.ProcessEnv): boolean {
  return stream.isTTY === true && (env['NO_COLOR'] ?? '') === '' && env['TERM'] !== 'dumb';
}

/** `1,234,567` */
export function grouped(count: number): string {
  return String(count).replaceAll(/\B(?=(?:\d{3})+$)/gu, ',');
}

/** Three digits are enough for a delay: `0.84 ms`, `12.3 ms`, `4.1 s`. */
export function duration(milliseconds: number): string {
  if (milliseconds >= 1000) return `${(milliseconds / 1000).toFixed(1)} s`;
  return `${milliseconds.toFixed(milliseconds < 10 ? 2 : 1)} ms`;
}
