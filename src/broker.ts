import type { Config } from './config/config.ts';
import { classify } from './errors/policy.ts';
import { Backoff } from './lifecycle/backoff.ts';
import type { Observer } from './observe/observer.ts';
import { createPublisher } from './pipeline/publish/create-publisher.ts';
import type { Publisher } from './pipeline/publish/publisher.ts';

export interface BrokerOptions {
  readonly config: Config;
  readonly observer: Observer;
  readonly create: typeof createPublisher | undefined;
  readonly mayStart: () => boolean;
  readonly onRoom: () => void;
  /** The publisher can't go on; `error` says why. */
  readonly onFatal: () => void;
}

/** The publisher of this process: made anew after an error that it can't get over, connected for as long as it takes. */
export class Broker {
  /** What the publisher can't get over. It is not used again: the next one reads the secrets anew. */
  error: Error | undefined;
  connected = false;
  /** It was connected once: from then on an error is an outage, not a wrong setting. */
  worked = false;
  private readonly options: BrokerOptions;
  private publisher: Publisher | undefined;

  constructor(options: BrokerOptions) {
    this.options = options;
  }

  /** The present publisher, or a new one. */
  async open(): Promise<Publisher> {
    const { config, observer, mayStart, onRoom, create = createPublisher } = this.options;
    this.publisher ??= await create(config, {
      mayStart,
      onRoom,
      onFatal: (error) => this.fail(error),
      onNotice: (message) => observer.log.warn(message),
      onConnection: (connected, reason) => {
        this.connected = connected;
        this.worked ||= connected;
        observer.changes.report('broker', connected ? 'connected' : reason, {
          level: connected ? 'info' : 'warn',
          message: connected ? 'the broker is connected' : 'the broker is away',
          fields: { reason },
        });
      },
    });
    return this.publisher;
  }

  /** Until it succeeds or the signal aborts: the session runs beside it, and reads as far as the window allows. */
  async connect(publisher: Publisher, signal: AbortSignal): Promise<void> {
    const backoff = new Backoff({ firstMs: 200, maxMs: 5_000 });
    while (!signal.aborted) {
      try {
        await publisher.connect(signal);
        this.options.onRoom();
        return;
      } catch (error) {
        if (signal.aborted) return;
        const { consequence, code } = classify(error);
        if (consequence === 'stop') {
          this.fail(error as Error);
          return;
        }
        this.options.observer.changes.report('broker', code, {
          level: 'warn',
          message: 'the broker is away',
          fields: { error },
        });
        await backoff.wait(signal);
      }
    }
  }

  async close(): Promise<void> {
    await this.publisher?.close(0);
    this.publisher = undefined;
    this.connected = false;
    this.error = undefined;
  }

  private fail(error: Error): void {
    this.error ??= error;
    this.options.onFatal();
  }
}
