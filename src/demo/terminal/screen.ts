import type { Writable } from 'node:stream';
import { render, wantsColor } from './style.ts';
import type { Segment } from './style.ts';

type Terminal = Writable & { readonly isTTY?: boolean; readonly columns?: number };

const REDRAW_MS = 100;
const PRINT_MS = 1000;
/** Back to the first column, erase from there to the end of the screen. */
const ERASE = '\r\u001b[J';

/**
 * Lines that scroll, and below them one that changes: redrawn on a terminal; elsewhere printed once a second, since
 * a file can't be redrawn. What comes in one turn of the event loop is written at once.
 */
export class Screen {
  private readonly stdout: Terminal;
  private readonly stderr: Writable;
  private readonly color: boolean;
  private readonly terminal: boolean;
  private pending = '';
  private flushing: NodeJS.Immediate | undefined;
  private statusOf: (() => readonly Segment[]) | undefined;
  private timer: NodeJS.Timeout | undefined;
  private drawn = false;

  constructor(streams: { stdout: Terminal; stderr: Writable; env: NodeJS.ProcessEnv }) {
    this.stdout = streams.stdout;
    this.stderr = streams.stderr;
    this.terminal = streams.stdout.isTTY === true && streams.env['TERM'] !== 'dumb';
    this.color = wantsColor(streams.stdout, streams.env);
  }

  /** True where the status line is redrawn. */
  get live(): boolean {
    return this.terminal;
  }

  /** Columns of a line: the last one stays free, some terminals begin a new line after it. A file has no width. */
  get width(): number {
    return this.terminal ? Math.max(20, (this.stdout.columns ?? 80) - 1) : Infinity;
  }

  line(...segments: readonly Segment[]): void {
    this.pending += `${this.rendered(segments)}\n`;
    this.flushing ??= setImmediate(() => this.flush());
  }

  /** A line of the log, as it is; it goes to stderr. */
  note(text: string): void {
    this.flush();
    this.erase();
    this.stderr.write(text.endsWith('\n') ? text : `${text}\n`);
    this.draw();
  }

  /** The status line from now on; `undefined` ends it. On a terminal drawn at once, elsewhere after a second. */
  status(statusOf: (() => readonly Segment[]) | undefined): void {
    clearInterval(this.timer);
    this.timer = undefined;
    this.statusOf = statusOf;
    if (statusOf === undefined) {
      this.flush();
      this.erase();
      return;
    }
    if (this.terminal) this.timer = setInterval(() => this.redraw(), REDRAW_MS).unref();
    else this.timer = setInterval(() => this.line(...statusOf()), PRINT_MS).unref();
    this.redraw();
  }

  /** Writes what waits, and leaves the terminal as it was found. */
  close(): void {
    this.status(undefined);
  }

  private flush(): void {
    clearImmediate(this.flushing);
    this.flushing = undefined;
    if (this.pending === '') return;
    const text = this.pending;
    this.pending = '';
    const before = this.drawn ? ERASE : '';
    this.drawn = false;
    this.stdout.write(before + text + this.statusText());
  }

  private redraw(): void {
    this.flush();
    if (!this.terminal || this.statusOf === undefined) return;
    const before = this.drawn ? ERASE : '';
    this.stdout.write(before + this.statusText());
  }

  private draw(): void {
    this.stdout.write(this.statusText());
  }

  private erase(): void {
    if (this.drawn) this.stdout.write(ERASE);
    this.drawn = false;
  }

  private statusText(): string {
    if (!this.terminal || this.statusOf === undefined) return '';
    this.drawn = true;
    return this.rendered(this.statusOf());
  }

  private rendered(segments: readonly Segment[]): string {
    return render(segments, { color: this.color, width: this.width });
  }
}
