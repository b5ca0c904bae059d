import { within } from '../../lifecycle/wait.ts';

/** How many messages were handed over and have no answer yet. */
export class Unanswered {
  private number = 0;
  private onNone: (() => void) | undefined;

  get count(): number {
    return this.number;
  }

  add(messages: number): void {
    this.number += messages;
  }

  answered(messages: number): void {
    this.number -= messages;
    if (this.number === 0) this.onNone?.();
  }

  /** Resolves when there is none, or after `deadlineMs`. */
  async none(deadlineMs: number): Promise<void> {
    if (this.number === 0) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.onNone = resolve;
    await within(promise, deadlineMs, () => undefined);
  }
}
