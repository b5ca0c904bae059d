import type { Delivered } from './checker.ts';
import type { Line } from './line.ts';

/** Aggregate types, each with a destination of its own: `late` is the one whose topic may be missing for a while. */
export const TYPES = ['order', 'late'] as const;
export type AggregateType = (typeof TYPES)[number];

/** A broker that lives through many rounds. Relays reach it by `lines` alone, the harness past them. */
export interface Broker {
  readonly lines: readonly Line[];
  /** Fresh destinations. `late`: without the one of that type, which `makeLate` makes. */
  openRound(prefix: string, late: boolean): Promise<BrokerRound>;
  /** The broker's processes, for signals. */
  pids(): number[];
  kill(target: number): Promise<void>;
  /** Whatever was killed runs again and serves. */
  restore(): Promise<void>;
  /** RabbitMQ's alarm: it takes nothing more from publishers. */
  setFull(full: boolean): Promise<void>;
  remove(): Promise<void>;
}

export interface BrokerRound {
  /** The relay's variables. */
  readonly env: Readonly<Record<string, string>>;
  makeLate(): Promise<void>;
  /** Each returns what undoes it. */
  moveLeader(target: number): Promise<Undo>;
  removeBinding(target: number): Promise<Undo>;
  removeExchange(target: number): Promise<Undo>;
  read(): Promise<Delivered[]>;
  drop(): Promise<void>;
}

export type Undo = () => Promise<void>;

export const NOTHING: Undo = async () => await Promise.resolve();

/** What `only` in the table of faults keeps from being drawn. */
export function unsupported(): never {
  throw new Error('this broker knows no such fault');
}
