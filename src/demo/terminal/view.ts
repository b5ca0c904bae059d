import { viewOf } from '../../pipeline/capture/byte-range.ts';
import type { Message } from '../../pipeline/envelope/message.ts';
import type { Reckoning } from '../reckoning.ts';
import { Delays, RunningRate } from './measures.ts';
import type { Screen } from './screen.ts';
import { duration, grouped } from './style.ts';
import type { Segment, Style } from './style.ts';

/** Numbers that the status line shows, read when it is drawn. */
export interface Live {
  readonly committed: number;
  readonly rolledBack: number;
  readonly lagSeconds: number;
}

/** Time, customer, order, item, total; negative: flush right. */
const WIDTHS = [12, 8, -6, 16, -8];
const DELAY_WIDTH = 11;
const FULL_WIDTH = 12 + 8 + 6 + 16 + 8 + 2 * 4 + DELAY_WIDTH;

const SPINNER = '⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏';

/** What the demo says, in the order of its life: start, events, summary. */
export class View {
  private readonly screen: Screen;
  private readonly rate = new RunningRate();
  private readonly delays = new Delays();
  private readonly progress = new Map<string, string>();
  private readonly startedMs = performance.now();
  private delivered = 0;
  private draining = false;

  constructor(screen: Screen) {
    this.screen = screen;
  }

  title(text: string): void {
    this.screen.line([text, 'bold']);
  }

  /** Something is being started. `text` is "Service: what happens"; the latest of each service is shown. */
  starting(text: string): void {
    const [service = text] = text.split(':');
    this.progress.set(service, text);
    if (!this.screen.live) this.screen.line(['… ', 'plain'], [text, 'plain']);
    else if (this.progress.size === 1) this.screen.status(() => this.spinner());
  }

  ready(label: string, text: string): void {
    this.screen.line(['✓ ', 'green'], [label.padEnd(12), 'plain'], [text, 'dim']);
  }

  started(): void {
    this.progress.clear();
    const seconds = ((performance.now() - this.startedMs) / 1000).toFixed(1);
    this.screen.line(['✓ ', 'green'], ['Started'.padEnd(12), 'plain'], [`in ${seconds} s`, 'dim']);
    this.screen.line();
    const header = this.cells(['durable at', 'customer', 'order', 'item', 'total']);
    this.screen.line([header + 'delay'.padStart(DELAY_WIDTH), 'dim']);
  }

  running(live: () => Live): void {
    this.rate.at(performance.now(), this.delivered);
    this.screen.status(() => this.statusLine(live()));
  }

  stopping(): void {
    this.draining = true;
    if (!this.screen.live) this.screen.line(['draining', 'plain']);
  }

  delivery(message: Message, delayMs: number): void {
    this.delivered++;
    this.delays.add(delayMs);
    const { number, item, pieces, cents } = JSON.parse(String(viewOf(message.body))) as Record<
      string,
      number | string
    >;
    const time = new Date().toTimeString().slice(0, 8);
    const milliseconds = String(Date.now() % 1000).padStart(3, '0');
    const price = (Number(cents) / 100).toFixed(2);
    const texts = [`${time}.${milliseconds}`, message.key ?? '', `#${number}`, `${pieces} × ${item}`, price];
    const delay = duration(delayMs).padStart(DELAY_WIDTH);
    this.screen.line([this.cells(texts), 'plain'], [delay, delayStyle(delayMs)]);
  }

  /** On a narrow terminal the goods give way: the delay is what the line is about. */
  private cells(texts: readonly string[]): string {
    const widths = this.screen.width < FULL_WIDTH ? WIDTHS.slice(0, 3) : WIDTHS;
    return widths.map((width, i) => at(texts[i] ?? '', width)).join('  ');
  }

  summary(reckoning: Reckoning, facts: { readonly consumer: string; readonly unknown: number }): void {
    this.screen.status(undefined);
    const { screen } = this;
    const number = (label: string, count: number, text: string, bad = false): void =>
      screen.line(
        ['  ', 'plain'],
        [label.padEnd(14), 'plain'],
        [grouped(count).padStart(9), bad && count > 0 ? 'red' : 'bold'],
        [`  ${text}`, 'dim'],
      );
    screen.line();
    screen.line(['Summary', 'bold']);
    number('committed', reckoning.committed, "read back from the shop's orders table");
    number('rolled back', reckoning.rolledBack, `${reckoning.rolledBackArrived} of them delivered`);
    number('delivered', reckoning.delivered, `distinct and committed, counted by ${facts.consumer}`);
    number('lost', reckoning.lost, 'committed and nowhere to be found', true);
    number('duplicates', reckoning.duplicates, 'deliveries beyond the first', true);
    number('out of order', reckoning.outOfOrder, 'against the commit order of their customer', true);
    const also = (label: string, count: number, text: string): void => {
      if (count > 0) number(label, count, text, true);
    };
    also('invented', reckoning.rolledBackArrived, 'rolled back and delivered all the same');
    also('foreign', reckoning.foreign, 'delivered, and not from this shop');
    also('waiting', reckoning.waiting, 'still in the outbox, not delivered yet');
    also('parked', reckoning.parked, 'in the dead letters');
    also('unknown', facts.unknown, 'sent without an answer');
    this.delayLine();
    this.verdict(reckoning.consistent && facts.unknown === 0);
  }

  private delayLine(): void {
    const quantiles = this.delays.quantiles(0.5, 0.99, 1);
    if (quantiles === undefined) return;
    const [median = 0, high = 0, longest = 0] = quantiles;
    const rest = `median, commit to durable; 99 %: ${duration(high)}, longest: ${duration(longest)}`;
    this.screen.line(
      ['  ', 'plain'],
      ['delay'.padEnd(12), 'plain'],
      [duration(median).padStart(11), 'bold'],
      [`  ${rest}`, 'dim'],
    );
  }

  private verdict(consistent: boolean): void {
    if (consistent)
      this.screen.line(
        ['✓ ', 'green'],
        ['every committed event was delivered once and in order, and none of the rolled-back ones', 'plain'],
      );
    else this.screen.line(['✗ ', 'red'], ['what was delivered is not what was committed', 'plain']);
  }

  private statusLine({ committed, rolledBack, lagSeconds }: Live): readonly Segment[] {
    const rate = this.rate.at(performance.now(), this.delivered);
    const state: Segment = this.draining ? ['draining  ', 'yellow'] : ['', 'plain'];
    return [
      state,
      [`${grouped(this.delivered)} delivered`, 'green'],
      [`  ${rate.toFixed(rate < 10 ? 1 : 0)}/s`, 'plain'],
      [`  lag ${lagSeconds.toFixed(1)} s`, lagSeconds >= 1 ? 'yellow' : 'plain'],
      [`  ${grouped(committed)} committed  ${grouped(rolledBack)} rolled back`, 'dim'],
      [this.screen.live && !this.draining ? '  Ctrl-C: stop' : '', 'dim'],
    ];
  }

  private spinner(): readonly Segment[] {
    const frame = SPINNER[Math.floor(performance.now() / 100) % SPINNER.length] ?? '';
    return [
      [`${frame} `, 'cyan'],
      [[...this.progress.values()].join(' · '), 'plain'],
    ];
  }
}

function at(text: string, width: number): string {
  return width < 0 ? text.padStart(-width) : text.padEnd(width);
}

function delayStyle(delayMs: number): Style {
  if (delayMs < 50) return 'green';
  return delayMs < 1000 ? 'yellow' : 'red';
}
